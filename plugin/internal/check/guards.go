package check

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ainode/ainode/api/contract"
)

// guard is what the support table says of an object that speaks of pods: rows which
// take a look at more than one object, and which the webhook therefore leaves alone.
type guard struct {
	finding contract.Finding
	level   Level
}

var guards = map[string]guard{
	"NetworkPolicy": {contract.Finding{
		Feature: "network-policy", Field: "spec.podSelector", Action: contract.Warn,
		Detail: "selects %s, and network policies are not enforced on AI nodes",
		Remedy: "guard them by the network that the AI nodes are in",
	}, Warning},
	"PodDisruptionBudget": {contract.Finding{
		Feature: "pod-disruption-budget", Field: "spec.selector", Action: contract.Warn,
		Detail: "selects %s; unbind honours it, the loss of an AI node does not",
	}, Info},
}

// Guarded tells of the objects that select pods which AI nodes don't treat as they
// say.
func Guarded(all []Object, results []Result, s Settings) ([]Finding, error) {
	var found []Finding
	for i := range all {
		o := &all[i]
		g, ok := guards[o.Kind]
		if !ok || !o.is("networking.k8s.io", o.Kind) && !o.is("policy", o.Kind) {
			continue
		}
		selector, err := o.selector()
		if err != nil {
			return found, o.wrong(g.finding.Field, err)
		}
		for _, r := range results {
			if r.Untouched || s.namespaceOf(o) != s.namespaceOf(&r.Object) {
				continue
			}
			of, err := r.Object.podLabels()
			if err != nil || !selector.Matches(of) {
				continue // Judge has said what is wrong
			}
			f := g.finding
			f.Detail = fmt.Sprintf(f.Detail, r.Object.Ref)
			here := o.finding(f)
			here.Level = g.level
			found = append(found, here)
		}
	}
	return found, nil
}

func (s Settings) namespaceOf(o *Object) string {
	return cmp.Or(o.Namespace, s.InNamespace, metav1.NamespaceDefault)
}

func (o *Object) selector() (labels.Selector, error) {
	var spec struct {
		Spec struct {
			PodSelector *metav1.LabelSelector `json:"podSelector"`
			Selector    *metav1.LabelSelector `json:"selector"`
		} `json:"spec"`
	}
	if err := contract.Unmarshal(o.JSON, &spec); err != nil {
		return nil, fmt.Errorf("decode %s: %w", o.Ref, err)
	}
	if o.Kind == "NetworkPolicy" && spec.Spec.PodSelector == nil { // every pod
		return labels.Everything(), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(cmp.Or(spec.Spec.PodSelector, spec.Spec.Selector))
	if err != nil {
		return nil, fmt.Errorf("read the selector of %s: %w", o.Ref, err)
	}
	return selector, nil
}

// podLabels are those of the pod, or of the pods that a workload makes.
func (o *Object) podLabels() (labels.Set, error) {
	if o.isPod() {
		return o.meta.Labels, nil
	}
	raw, _, err := o.template()
	if err != nil {
		return nil, err
	}
	var template struct {
		Metadata metadata `json:"metadata"`
	}
	err = contract.Unmarshal(raw, &template)
	return template.Metadata.Labels, err
}
