package contract

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Moment is when a pod is looked at; it decides what can still be changed.
type Moment string

// The moments.
const (
	// OnCreate: the pod is being made, everything can be changed.
	OnCreate Moment = ""
	// OnUngate: the pod's last scheduling gate goes. The API server lets only
	// tolerations be added; all else that would be changed is told.
	OnUngate Moment = "ungate"
	// OnTemplate: it is the template of a workload. Nothing is changed; what will
	// be changed on its pods is told, the routine part left out.
	OnTemplate Moment = "template"
	// Settled: all mutating webhooks have been asked. Nothing is changed any more.
	Settled Moment = "settled"
)

// Request is what is judged and what has to be known to judge it.
type Request struct {
	Pod       *Pod
	Namespace Namespace
	Policy    Policy
	Moment    Moment
	// DaemonSet is true where Pod is the template of a DaemonSet.
	DaemonSet bool
}

// Verdict is the answer.
type Verdict struct {
	// Findings in the order of the table.
	Findings []Finding
	// Patch makes the pod fit; empty where nothing is to be changed or the pod is
	// refused.
	Patch []Op

	moment Moment
}

// Evaluate judges a pod by every row of the table. It is a pure function of the
// request; the pod must be one that Targets says is an AI node's.
func (in Request) Evaluate() (Verdict, error) {
	return in.review(func(*Row) bool { return true })
}

// Place is the part of Evaluate that brings a pod onto AI nodes: selector,
// toleration and GPUs.
func (in Request) Place() (Verdict, error) {
	return in.review(func(r *Row) bool { return r.places })
}

// Strip is the part of Evaluate that takes away what AI nodes do not have.
func (in Request) Strip() (Verdict, error) {
	return in.review(func(r *Row) bool { return !r.places })
}

func (in Request) review(part func(*Row) bool) (Verdict, error) {
	r := &review{Request: in, pod: in.Pod, gone: make([]bool, len(in.Pod.Spec.Volumes))}
	for i := range Table {
		row := &Table[i]
		if row.rule == nil || !part(row) {
			continue
		}
		r.row, r.override = row, in.Policy.override(row)
		row.rule(r)
	}
	verdict := Verdict{Findings: r.findings, moment: in.Moment}
	if verdict.Denied() || in.Moment == OnTemplate {
		return verdict, nil
	}
	verdict.Patch = r.patch.finish()
	if len(verdict.Patch) == 0 {
		return verdict, nil
	}
	note, err := r.annotate()
	if err != nil {
		return verdict, err
	}
	verdict.Patch = append(verdict.Patch, note)
	return verdict, nil
}

// annotate is the operation that writes AdmissionAnnotation.
func (r *review) annotate() (Op, error) {
	value, err := annotation(r.pod.Metadata.Annotations[AdmissionAnnotation], r.findings)
	if err != nil {
		return Op{}, fmt.Errorf("encode annotation %q: %w", AdmissionAnnotation, err)
	}
	if r.pod.Metadata.absent {
		annotations := map[string]any{"annotations": map[string]string{AdmissionAnnotation: value}}
		return Op{Op: "add", Path: "/metadata", Value: annotations}, nil
	}
	if r.pod.Metadata.Annotations == nil {
		return Op{Op: "add", Path: "/metadata/annotations", Value: map[string]string{AdmissionAnnotation: value}}, nil
	}
	return Op{Op: "add", Path: "/metadata/annotations/" + escape(AdmissionAnnotation), Value: value}, nil
}

// review is one walk of the rules over one pod.
type review struct {
	Request
	pod      *Pod
	row      *Row
	override Action               // "" where the policy leaves the table's mode
	gone     []bool               // by volume: taken away by an earlier rule
	mounted  map[string][]mountOf // by the volume's name
	findings []Finding
	patch    patch
}

// find reports a finding of the current row and, where its action is carried out,
// applies the edits. It returns whether it was.
func (r *review) find(f Finding, edits ...edit) bool {
	f.Feature = r.row.Feature
	// What a row refuses beside what it is there for (huge pages) stays refused.
	if f.Action != Deny || r.row.Default == Deny {
		switch r.override {
		case Allow:
			return false
		case Warn, Deny:
			f.Action = r.override
		}
	}
	if f.Action.changes() && r.tooLate(f.Feature) {
		f.Detail = fmt.Sprintf("would have been %s when the pod was made: %s", done[f.Action], f.Detail)
		f.Action, f.Routine, f.Lost = Warn, false, nil
	}
	if f.Action == Deny && f.Remedy == "" {
		f.Remedy = "remove the field"
	}
	r.findings = append(r.findings, f)
	if !f.Action.changes() {
		return false
	}
	for _, e := range edits {
		e(&r.patch)
	}
	return true
}

// tooLate reports whether a change of feature can't be made at this moment.
func (r *review) tooLate(feature Feature) bool {
	return r.Moment == Settled || r.Moment == OnUngate && feature != "tolerations"
}

// takeVolume takes volume i away with all its mounts.
func (r *review) takeVolume(i int) []edit {
	edits := []edit{removeAt("/spec/volumes", i, len(r.pod.Spec.Volumes))}
	r.mounts(i, func(c *Container, m int) {
		edits = append(edits, removeAt(c.path+"/volumeMounts", m, len(c.VolumeMounts)))
	})
	return edits
}

// mounts calls f for every mount of volume i.
func (r *review) mounts(i int, f func(c *Container, mount int)) {
	if r.mounted == nil { // a search for each volume would take seconds on a pod of 1 MiB
		r.mounted = map[string][]mountOf{}
		r.pod.containers(func(c *Container) {
			for m := range c.VolumeMounts {
				name := c.VolumeMounts[m].Name
				r.mounted[name] = append(r.mounted[name], mountOf{c, m})
			}
		})
	}
	for _, m := range r.mounted[r.pod.Spec.Volumes[i].Name] {
		f(m.container, m.index)
	}
}

// mountOf is one mount in one container.
type mountOf struct {
	container *Container
	index     int
}

// mountedAt reports whether volume i is mounted at dir or, with below, under it.
func (r *review) mountedAt(i int, dir string, below bool) bool {
	found := false
	r.mounts(i, func(c *Container, m int) { found = found || c.VolumeMounts[m].at(dir, below) })
	return found
}

// Denied reports whether the pod is refused.
func (v Verdict) Denied() bool {
	return slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Action == Deny })
}

// raw is v as JSON; only for values that can't fail.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
