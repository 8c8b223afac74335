package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ainode/ainode/api/contract"
)

// Object is one object of a file or of a cluster.
type Object struct {
	// File and Line say where it begins; of an object of a cluster File is its
	// TYPE/NAME and Line is 0.
	File string
	Line int

	Ref
	// JSON is all of it.
	JSON json.RawMessage

	node *yaml.Node // nil of an object of a cluster
	meta metadata
}

// Ref names an object.
type Ref struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
}

func (r Ref) String() string {
	if r.Name == "" {
		return r.Kind
	}
	return fmt.Sprintf("%s %q", r.Kind, r.Name)
}

type metadata struct {
	Name         string            `json:"name"`
	GenerateName string            `json:"generateName"`
	Namespace    string            `json:"namespace"`
	Labels       map[string]string `json:"labels"`
}

// Live is true of an object of a cluster.
func (o *Object) Live() bool { return o.node == nil }

func (o *Object) group() string {
	gv, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return o.APIVersion // no group that we know
	}
	return gv.Group
}

func (o *Object) is(group, kind string) bool { return o.Kind == kind && o.group() == group }

// line is the line of a field of the object.
func (o *Object) line(field string) int {
	if o.Live() {
		return 0
	}
	return lineOf(o.node, field)
}

// kinds are those that are or make pods: where the pod stands in them, and what
// the API server calls them.
var kinds = map[schema.GroupKind]struct{ template, resource string }{
	{Group: "", Kind: "Pod"}:                   {"", "pods"},
	{Group: "", Kind: "PodTemplate"}:           {"template", "podtemplates"},
	{Group: "", Kind: "ReplicationController"}: {"spec.template", "replicationcontrollers"},
	{Group: "apps", Kind: "Deployment"}:        {"spec.template", "deployments"},
	{Group: "apps", Kind: "ReplicaSet"}:        {"spec.template", "replicasets"},
	{Group: "apps", Kind: "StatefulSet"}:       {"spec.template", "statefulsets"},
	{Group: "apps", Kind: "DaemonSet"}:         {"spec.template", "daemonsets"},
	{Group: "batch", Kind: "Job"}:              {"spec.template", "jobs"},
	{Group: "batch", Kind: "CronJob"}:          {"spec.jobTemplate.spec.template", "cronjobs"},
}

func (o *Object) groupKind() schema.GroupKind {
	return schema.GroupKind{Group: o.group(), Kind: o.Kind}
}

// HasPod reports whether o is a pod or makes pods.
func (o *Object) HasPod() bool {
	_, ok := kinds[o.groupKind()]
	return ok
}

func (o *Object) isPod() bool { return o.is("", "Pod") }

// template is the pod template of a workload.
func (o *Object) template() (raw json.RawMessage, field string, err error) {
	field = kinds[o.groupKind()].template
	raw = o.JSON
	for key := range strings.SplitSeq(field, ".") {
		var inner map[string]json.RawMessage
		if err := contract.Unmarshal(raw, &inner); err != nil {
			return nil, field, fmt.Errorf("%s: decode %q: %w", o.Ref, field, err)
		}
		if raw = inner[key]; len(raw) == 0 || string(raw) == "null" {
			return nil, field, fmt.Errorf("%s has no %s", o.Ref, field)
		}
	}
	return raw, field, nil
}

// objectsOf reads all objects of a file's text.
func objectsOf(file string, text []byte) ([]Object, []error) {
	all, errs := documents(file, text)
	var objects []Object
	for _, d := range all {
		some, err := d.objects(file, Ref{})
		objects = append(objects, some...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	return objects, errs
}

// objects is the object of a document or, of a List, its items'. A typed list says
// of what kind items are that don't say it themselves.
func (d document) objects(file string, typed Ref) ([]Object, error) {
	var head struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metadata          `json:"metadata"`
		Items      []json.RawMessage `json:"items"`
	}
	line := d.node.Line
	if follow(d.node).Kind != yaml.MappingNode {
		return nil, fault(file, line, "no Kubernetes object: a mapping is expected")
	}
	err := contract.Unmarshal(d.json, &head)
	if head.Kind == "" {
		head.Kind, head.APIVersion = typed.Kind, typed.APIVersion
	}
	o := Object{
		File: file, Line: line, JSON: d.json, node: d.node, meta: head.Metadata,
		Ref: Ref{APIVersion: head.APIVersion, Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: nameOf(head.Metadata)},
	}
	switch {
	case err != nil && head.Kind != "":
		return nil, o.wrong("", err)
	case err != nil:
		return nil, fault(file, line, "no Kubernetes object: %w", err)
	case head.Kind == "":
		return nil, fault(file, line, "no Kubernetes object: it has no kind")
	case strings.HasSuffix(head.Kind, "List") && head.Items != nil:
		return d.items(file, Ref{APIVersion: head.APIVersion, Kind: strings.TrimSuffix(head.Kind, "List")}, head.Items)
	}
	return []Object{o}, nil
}

func (d document) items(file string, typed Ref, items []json.RawMessage) ([]Object, error) {
	var objects []Object
	var errs []error
	for i, raw := range items {
		node := find(d.node, fmt.Sprintf("items[%d]", i))
		if node == nil || string(raw) == "null" {
			continue
		}
		some, err := document{raw, node}.objects(file, typed)
		objects, errs = append(objects, some...), append(errs, err)
	}
	return objects, errors.Join(errs...)
}

func nameOf(m metadata) string {
	if m.Name == "" {
		return m.GenerateName
	}
	return m.Name
}

// FromCluster is an object as an API server gave it; called is its TYPE/NAME.
func FromCluster(u *unstructured.Unstructured, called string) (Object, error) {
	raw, err := u.MarshalJSON()
	if err != nil {
		return Object{}, fmt.Errorf("read %s: %w", called, err)
	}
	return Object{
		File: called, JSON: raw, meta: metadata{Name: u.GetName(), Namespace: u.GetNamespace(), Labels: u.GetLabels()},
		Ref: Ref{APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()},
	}, nil
}
