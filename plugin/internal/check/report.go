package check

import "github.com/ainode/ainode/api/contract"

// Version is that of what -o json and -o yaml print.
const Version = "cli." + contract.Group + "/v1alpha1"

// List is what programs read.
type List struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Items are the findings.
	Items []Finding `json:"items"`
	// Untouched are the objects that are no AI node's matter.
	Untouched []Untouched `json:"untouched"`
}

// Untouched is an object that is no AI node's matter, and where it is.
type Untouched struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Object Ref    `json:"object"`
}

// NewList makes the list of findings and of what was left untouched.
func NewList(findings []Finding, results []Result) List {
	list := List{APIVersion: Version, Kind: "FindingList", Items: findings, Untouched: []Untouched{}}
	if findings == nil {
		list.Items = []Finding{}
	}
	for _, r := range results {
		if r.Untouched {
			list.Untouched = append(list.Untouched, Untouched{File: r.Object.File, Line: r.Object.Line, Object: r.Object.Ref})
		}
	}
	return list
}
