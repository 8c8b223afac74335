package contract

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Finding is one thing that a row says about one field of a pod.
type Finding struct {
	Feature Feature `json:"feature"`
	// Field is the path as the pod was submitted: spec.containers[0].securityContext.
	Field  string `json:"field"`
	Action Action `json:"action"`
	// Detail is the reason, a short clause without a capital or a full stop.
	Detail string `json:"detail"`
	// Remedy says what to write instead; always there on a refusal.
	Remedy string `json:"remedy,omitempty"`
	// Old is what was there, as JSON.
	Old json.RawMessage `json:"old,omitempty"`
	// Routine is true of what nearly every pod has.
	Routine bool `json:"routine,omitempty"`
	// Lost are protections that the change takes away.
	Lost []string `json:"lost,omitempty"`
}

// Entry is one change as AdmissionAnnotation keeps it.
type Entry struct {
	Feature Feature         `json:"feature"`
	Field   string          `json:"field"`
	Action  Action          `json:"action"`
	Old     json.RawMessage `json:"old,omitempty"`
}

const (
	oldAtMost        = 256       // bytes of one old value
	annotationAtMost = 128 << 10 // bytes; the API server allows 256 KiB for all annotations of an object
)

// annotation is the value of AdmissionAnnotation after findings were applied to a
// pod that came with before; a value that is no list is replaced.
func annotation(before string, findings []Finding) (string, error) {
	var kept []json.RawMessage
	if before != "" && json.Unmarshal([]byte(before), &kept) != nil {
		kept = nil
	}
	entries := make([][]byte, 0, len(kept)+len(findings))
	for _, raw := range kept {
		entries = append(entries, raw)
	}
	size := len(before)
	for i, f := range findings {
		if !f.Action.changes() {
			continue
		}
		entry := Entry{Feature: f.Feature, Field: f.Field, Action: f.Action}
		var old bytes.Buffer // as it will be stored, without a file's spaces
		if json.Compact(&old, f.Old) == nil && old.Len() <= oldAtMost {
			entry.Old = old.Bytes()
		}
		raw, err := json.Marshal(entry)
		if err != nil {
			return "", err
		}
		if size += len(raw) + 1; size > annotationAtMost {
			raw, err = json.Marshal(Entry{Field: andMore(len(changesOf(findings[i:])))})
			if err != nil {
				return "", err
			}
			entries = append(entries, raw)
			break
		}
		entries = append(entries, raw)
	}
	return "[" + string(bytes.Join(entries, []byte(","))) + "]", nil
}

func changesOf(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return !f.Action.changes() })
}

// ReadAnnotation reads AdmissionAnnotation back.
func ReadAnnotation(value string) ([]Entry, error) {
	var entries []Entry
	err := json.Unmarshal([]byte(value), &entries)
	return entries, err
}
