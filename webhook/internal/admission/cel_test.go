package admission

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	apiadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
)

// matcher compiles conditions as the API server does, for the oldest version that
// the chart installs on.
func matcher(t *testing.T, conditions ...contract.MatchCondition) matchconditions.Matcher {
	t.Helper()
	compiler := cel.NewConditionCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, 30)))
	var expressions []cel.ExpressionAccessor
	for _, c := range conditions {
		expressions = append(expressions, &matchconditions.MatchCondition{Name: c.Name, Expression: c.Expression})
	}
	fail := admissionregistrationv1.Fail
	return matchconditions.NewMatcher(
		compiler.CompileCondition(expressions, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions),
		&fail, "webhook", "admit", "test")
}

func matches(t *testing.T, m matchconditions.Matcher, object, old runtime.Object, gvk schema.GroupVersionKind) bool {
	t.Helper()
	operation := apiadmission.Create
	if old != nil {
		operation = apiadmission.Update
	}
	result := m.Match(t.Context(), &apiadmission.VersionedAttributes{
		Attributes: apiadmission.NewAttributesRecord(object, old, gvk, "team", "x", schema.GroupVersionResource{}, "",
			operation, nil, false, nil),
		VersionedKind: gvk, VersionedObject: apiadmission.NewLazyObject(object), VersionedOldObject: apiadmission.NewLazyObject(old),
	}, nil, nil)
	require.NoError(t, result.Error)
	return result.Matches
}

var (
	podKind        = corev1.SchemeGroupVersion.WithKind("Pod")
	deploymentKind = appsv1.SchemeGroupVersion.WithKind("Deployment")
)

// What the API server decides in CEL is what the contract decides in Go, for pods
// and for templates, opted in or not.
func TestConditionsAgreeWithTargets(t *testing.T) {
	t.Parallel()
	const template = "object.spec.template"
	r := rand.New(rand.NewPCG(1, 2)) // a repeatable series
	counts := map[bool]int{}
	for _, optedIn := range []bool{false, true} {
		pods := matcher(t, contract.MatchConditions("object", optedIn)...)
		templates := matcher(t, append([]contract.MatchCondition{contract.TemplateCondition(template)}, contract.MatchConditions(template, optedIn)...)...)
		for range 4000 {
			pod := randomPod(r)
			projected, err := contract.FromPod(pod)
			require.NoError(t, err)
			want := contract.Targets(projected, contract.Namespace{OptedIn: optedIn})
			counts[want]++
			require.Equal(t, want, matches(t, pods, pod, nil, podKind), "%+v", pod)
			require.Equal(t, want, matches(t, templates, &appsv1.Deployment{Spec: appsv1.DeploymentSpec{
				Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec},
			}}, nil, deploymentKind), "%+v", pod)
		}
	}
	require.Greater(t, min(counts[true], counts[false]), 500, "the series is one-sided")
}

func TestOnlyUngatingIsLookedAt(t *testing.T) {
	t.Parallel()
	m := matcher(t, contract.UngateCondition())
	gated := &corev1.Pod{Spec: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "g"}}}}
	free := &corev1.Pod{}
	require.True(t, matches(t, m, gated, nil, podKind), "created")
	require.True(t, matches(t, m, free, gated, podKind), "the last gate goes")
	require.False(t, matches(t, m, gated, gated, podKind), "still gated")
	require.False(t, matches(t, m, free, free, podKind), "never gated")
}

func TestOnlyChangedTemplatesAreLookedAt(t *testing.T) {
	t.Parallel()
	m := matcher(t, contract.TemplateCondition("object.spec.template"))
	old := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3)}}
	scaled := old.DeepCopy()
	scaled.Spec.Replicas = ptr.To[int32](0)
	changed := old.DeepCopy()
	changed.Spec.Template.Spec.HostNetwork = true
	dying := changed.DeepCopy()
	dying.DeletionTimestamp = &metav1.Time{}
	dying.DeletionTimestamp.Time = metav1.Unix(1, 0).Time
	require.True(t, matches(t, m, old, nil, deploymentKind), "created")
	require.False(t, matches(t, m, scaled, old, deploymentKind), "scaled")
	require.True(t, matches(t, m, changed, old, deploymentKind), "changed")
	require.False(t, matches(t, m, dying, old, deploymentKind), "being deleted")
}

// randomPod draws from everything that decides whether a pod is an AI node's.
func randomPod(r *rand.Rand) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "team"}}
	some := func(one int) bool { return r.IntN(one) == 0 }
	if some(2) {
		pod.Labels = map[string]string{"app": "x"}
		if some(2) {
			pod.Labels[contract.ScheduleLabel] = pick(r, "true", "true", "false", "")
		}
		if some(4) {
			pod.Labels[contract.GPUsLabel] = "1"
		}
	}
	if some(8) {
		pod.Annotations = map[string]string{pick(r, "kubernetes.io/config.mirror", "a/b"): "x"}
	}
	if some(6) {
		owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: pick(r, "DaemonSet", "ReplicaSet"), Name: "o", UID: "u"}
		if some(2) {
			owner.Controller = ptr.To(some(2))
		}
		pod.OwnerReferences = []metav1.OwnerReference{owner}
	}
	if some(4) {
		pod.Spec.NodeName = pick(r, "ai-a", "ai-", "node-1")
	}
	if some(3) {
		pod.Spec.NodeSelector = map[string]string{pick(r, contract.NodeLabel, contract.NodeLabel, "disk"): pick(r, "true", "true", "false", "")}
	}
	if some(2) {
		pod.Spec.Affinity = &corev1.Affinity{}
		if !some(6) {
			pod.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
		}
		if pod.Spec.Affinity.NodeAffinity != nil && !some(6) {
			required := &corev1.NodeSelector{}
			for range r.IntN(3) {
				var term corev1.NodeSelectorTerm
				for range r.IntN(3) {
					e := corev1.NodeSelectorRequirement{
						Key: pick(r, contract.NodeLabel, contract.NodeLabel, "disk"),
						Operator: pick(r, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
							corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt),
					}
					for range r.IntN(3) {
						e.Values = append(e.Values, pick(r, "true", "true", "false"))
					}
					term.MatchExpressions = append(term.MatchExpressions, e)
				}
				required.NodeSelectorTerms = append(required.NodeSelectorTerms, term)
			}
			pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = required
		}
	}
	for i := range 1 + r.IntN(2) {
		c := corev1.Container{Name: fmt.Sprint(i)}
		if some(3) {
			list := corev1.ResourceList{
				pick(r, contract.GPUResource, contract.GPUResource, "cpu", contract.MIGResourcePrefix+"1g.10gb"): resource.MustParse(pick(r, "0", "1", "0.5")),
			}
			if some(2) {
				c.Resources.Limits = list
			} else {
				c.Resources.Requests = list
			}
		}
		if some(3) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		} else {
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
	}
	return pod
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
