package kube

import (
	"fmt"

	utilversion "k8s.io/apimachinery/pkg/util/version"
)

// The minor versions of Kubernetes 1.x that a cluster may have. Below oldest the Node
// authorizer does not hold a node down to its own pods (KEP-4601); the chart's kubeVersion
// says the same. Between lowest and highest, nodes were bound and ran pods in our tests.
// (A kubelet may not be newer than its API server, by Kubernetes' policy on skew; an agent
// is none, and asks for stable APIs alone.)
const (
	oldest  = 32
	lowest  = 35
	highest = 37
)

// Doubt is what speaks against a cluster's version.
type Doubt struct {
	What, Why, Fix string
	// Unfit is true of a cluster that bind refuses.
	Unfit bool
}

// Judge judges a version as an API server tells it; nil is one that was tried.
func Judge(version string) *Doubt {
	v, err := utilversion.ParseGeneric(version)
	if err != nil || v.Major() == 0 { // a build that was given none calls itself 0.0.0
		return &Doubt{What: fmt.Sprintf("the API server calls its version %q", version), Why: "whether it can hold AI nodes down can't be told from that",
			Fix: "See what it is:  kubectl version"}
	}
	is := "the API server is " + version
	switch minor := v.Minor(); {
	case v.Major() != 1 || minor < oldest:
		return &Doubt{Unfit: true, What: is, Why: fmt.Sprintf("before 1.%d the Node authorizer lets a node list all pods; bind refuses such a cluster", oldest),
			Fix: fmt.Sprintf("upgrade it to 1.%d or newer", oldest)}
	case minor < lowest || minor > highest:
		return &Doubt{What: is, Why: fmt.Sprintf("AI nodes are tried with 1.%d to 1.%d; it may work", lowest, highest),
			Fix: "See whether there is another version of the plugin and the agents:  kubectl ainode version"}
	}
	return nil
}
