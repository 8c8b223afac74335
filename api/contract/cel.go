package contract

import (
	"fmt"
	"strings"
)

// MatchCondition is a condition of a webhook entry: a name and a CEL expression.
type MatchCondition struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
}

// orEmpty ends an optional list. What is required in the API is null where a user
// left it out, and is validated only after the webhooks; a condition that fails
// would refuse the pod in our name.
const orEmpty = ".optMap(l, l == null ? [] : l).orValue([])"

// MatchConditions say in CEL what Targets says in Go: object is the expression of
// the pod ("object") or of a workload's template ("object.spec.template"). They
// decide in the API server, before any call, so that no other pod is delayed and
// none notices an outage. The namespaces of UntouchedNamespaces, and whether the
// namespace opts in, are the webhook entry's namespaceSelector.
func MatchConditions(object string, optedIn bool) []MatchCondition {
	e := func(text string) string {
		return strings.NewReplacer(
			"{o}", object, "{label}", NodeLabel, "{value}", NodeLabelValue, "{schedule}", ScheduleLabel,
			"{gpus}", GPUsLabel, "{gpu}", string(GPUResource), "{prefix}", NodeNamePrefix,
			"{mirror}", mirrorAnnotation, "{daemonset}", daemonSetKind,
			"{terms}", object+".spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms"+orEmpty,
			"{containers}", object+".spec.?containers"+orEmpty,
		).Replace(text)
	}
	selects := []string{
		e(`{o}.spec.?nodeSelector[?'{label}'].orValue('') == '{value}'`),
		e(`{o}.spec.?nodeName.orValue('').startsWith('{prefix}')`),
		e(`({terms}.size() > 0 && {terms}.all(t, t.?matchExpressions.orValue([]).exists(x, x.key == '{label}' && ` +
			`(x.operator == 'Exists' || (x.operator == 'In' && x.?values.orValue([]) == ['{value}'])))))`),
		e(`{o}.?metadata.?labels[?'{schedule}'].orValue('') == 'true'`),
	}
	if optedIn {
		selects = append(selects,
			e(`'{gpus}' in {o}.?metadata.?labels.orValue({})`),
			e(`({containers} + {o}.spec.?initContainers.orValue([])).exists(c, `+
				`c.?resources.?limits[?'{gpu}'].orValue('0') != '0' || c.?resources.?requests[?'{gpu}'].orValue('0') != '0')`))
	}
	return []MatchCondition{
		{"untouched", e(`{o}.?metadata.?labels[?'{schedule}'].orValue('') != 'false' && ` +
			`!('{mirror}' in {o}.?metadata.?annotations.orValue({})) && ` +
			`!{o}.?metadata.?ownerReferences.orValue([]).exists(r, r.?kind.orValue('') == '{daemonset}' && r.?controller.orValue(false))`)},
		{"not-elsewhere", e(`({o}.spec.?nodeName.orValue('') == '' || ({o}.spec.nodeName.startsWith('{prefix}') && {o}.spec.nodeName != '{prefix}')) && ` +
			`{o}.spec.?nodeSelector[?'{label}'].orValue('{value}') == '{value}' && ` +
			`!({terms}.size() > 0 && {terms}.all(t, t.?matchExpressions.orValue([]).exists(x, x.key == '{label}' && ` +
			`(x.operator in ['DoesNotExist', 'Gt', 'Lt'] || (x.operator == 'In' && !('{value}' in x.?values.orValue([]))) || ` +
			`(x.operator == 'NotIn' && '{value}' in x.?values.orValue([]))))))`)},
		{"ai-node-pod", strings.Join(selects, " || ")},
	}
}

// UngateCondition keeps every UPDATE away but the one that takes a pod's last
// scheduling gate.
func UngateCondition() MatchCondition {
	return MatchCondition{"created-or-ungated", `request.operation == 'CREATE' || ` +
		`(oldObject.spec.?schedulingGates.orValue([]).size() > 0 && object.spec.?schedulingGates.orValue([]).size() == 0)`}
}

// TemplateCondition keeps every UPDATE of a workload away that leaves its template
// alone, so that a violating one can still be scaled, finalized and deleted.
func TemplateCondition(template string) MatchCondition {
	old := strings.Replace(template, "object.", "oldObject.", 1)
	return MatchCondition{"template-changes", fmt.Sprintf(
		`!has(object.metadata.deletionTimestamp) && (request.operation == 'CREATE' || %s != %s)`, template, old)}
}
