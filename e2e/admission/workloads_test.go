package admission

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

// workload is a fixture as the template of a workload.
type workload struct {
	name      string
	setting   setting
	namespace string
	kind      kind
	object    map[string]any
	verdict   contract.Verdict
	want      answer
}

// kind is a kind of workload; everything asks about every fixture, not of some
// features only.
type kind struct {
	name, resource string
	group          string
	text           string // with %s for the template
	everything     bool
}

var kinds = []kind{
	{"Deployment", "deployments", "apps", "spec: {selector: {matchLabels: {app: w}}, template: %s}", true},
	{"CronJob", "cronjobs", "batch", `spec: {schedule: "0 0 * * *", jobTemplate: {spec: {template: %s}}}`, true},
	{"StatefulSet", "statefulsets", "apps", "spec: {serviceName: w, selector: {matchLabels: {app: w}}, template: %s}", false},
	{"Job", "jobs", "batch", "spec: {template: %s}", false},
	{"DaemonSet", "daemonsets", "apps", "spec: {selector: {matchLabels: {app: w}}, template: %s}", false},
}

func (k kind) at() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: "v1", Resource: k.resource}
}

// prefix is where a workload of the kind holds its template.
func (k kind) prefix() string {
	if k.name == "CronJob" {
		return "spec.jobTemplate.spec.template"
	}
	return "spec.template"
}

func (o *oracle) workloadsBefore(t *testing.T) {
	for _, f := range o.fixtures {
		for _, k := range kinds {
			some := map[contract.Feature]bool{"daemonset": true, "gpu": true, "host-network": true, "host-path": true, "placement": true}[f.Feature]
			if !k.everything && !some || f.Moment == contract.OnUngate || f.Moment == contract.Settled || f.DaemonSet && k.name != "DaemonSet" {
				continue
			}
			for _, s := range settings {
				if s.covers(f) {
					for _, namespace := range []string{"plain", "both"} {
						o.objects = append(o.objects, o.workload(t, f, s, k, namespace))
					}
					break
				}
			}
		}
	}
}

func (o *oracle) workload(t *testing.T, f contracttest.Fixture, s setting, k kind, namespace string) workload {
	t.Helper()
	pod := object(t, string(f.YAML))
	metadata := map[string]any{"annotations": pod["metadata"].(map[string]any)["annotations"]}
	labels, _ := pod["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
	}
	labels["app"], metadata["labels"] = "w", labels
	spec := pod["spec"].(map[string]any)
	if k.group == "batch" {
		spec["restartPolicy"] = "Never"
	}
	template, err := json.Marshal(map[string]any{"metadata": metadata, "spec": spec})
	require.NoError(t, err)
	w := workload{
		name: fmt.Sprintf("%s/%s as %s in %s (%s)", f.Feature, f.Name, k.name, namespace, s.name), setting: s, namespace: namespace, kind: k,
		object: object(t, "{apiVersion: %s/v1, kind: %s, metadata: {name: w}, "+k.text+"}", k.group, k.name, template),
	}
	w.want = o.try(t.Context(), k.at(), namespace, w.object)
	given := w.object
	if w.want.err == nil {
		given = w.want.object
	}
	inner := any(given)
	for _, field := range strings.Split(k.prefix(), ".") {
		inner = inner.(map[string]any)[field]
	}
	raw, err := json.Marshal(inner)
	require.NoError(t, err)
	decoded, err := contract.Decode(raw)
	require.NoError(t, err)
	ns := facts[namespace]
	if k.name == "DaemonSet" {
		ns.OptedIn = false
	}
	if !contract.Targets(decoded, ns) {
		return w
	}
	w.verdict, err = contract.Request{Pod: decoded, Namespace: ns, Policy: s.policy, Moment: contract.OnTemplate, DaemonSet: k.name == "DaemonSet"}.Evaluate()
	require.NoError(t, err)
	for i := range w.verdict.Findings {
		if finding := &w.verdict.Findings[i]; finding.Feature != "daemonset" {
			finding.Field = k.prefix() + "." + finding.Field
		}
	}
	return w
}

func (o *oracle) testWorkloads(t *testing.T) { o.compareWorkloads(t, settings[0]) }

// compareWorkloads submits every template. A workload's own validation comes
// before the webhooks that only validate, so the API server speaks first there.
func (o *oracle) compareWorkloads(t *testing.T, by setting) {
	counts := map[string]int{}
	for _, w := range o.objects {
		if w.setting.name != by.name {
			continue
		}
		got := o.try(t.Context(), w.kind.at(), w.namespace, w.object)
		counts[outcome(got)]++
		verdict := w.verdict
		if w.want.err != nil {
			verdict = contract.Verdict{}
		}
		judge(t, w.name, verdict, w.want, got)
	}
	t.Logf("%s: %v", by.name, counts)
}
