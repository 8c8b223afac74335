package admission

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

// facts are the four kinds of namespace that the webhook tells apart.
var facts = map[string]contract.Namespace{
	"plain": {}, "opted-in": {OptedIn: true}, "restricted": {Restricted: true}, "both": {OptedIn: true, Restricted: true},
}

// setting is one way to configure the webhook: the chart's values and what they
// mean to the pure functions.
type setting struct {
	name   string
	policy contract.Policy
	values []string
}

var settings = []setting{
	{name: "default"},
	{
		name: "strict",
		policy: contract.Policy{Overrides: map[contract.Feature]contract.Action{
			"host-network": contract.Deny, "host-port": contract.Deny, "host-pid": contract.Deny, "host-ipc": contract.Deny,
			"runtime-class": contract.Deny, "empty-dir": contract.Deny, "security-context": contract.Deny, "service-account-token": contract.Deny,
		}},
	},
	{
		name: "lenient",
		policy: contract.Policy{UnreachableSeconds: 86400, Overrides: map[contract.Feature]contract.Action{
			"security-context": contract.Warn, "service-account-token": contract.Warn, "empty-dir": contract.Warn, "service-access": contract.Allow, "dns": contract.Allow, "daemonset": contract.Warn,
		}},
		values: []string{"admission.unreachableSeconds=86400"},
	},
	{
		name: "open",
		policy: contract.Policy{Overrides: map[contract.Feature]contract.Action{
			"security-context": contract.Allow, "service-account-token": contract.Allow, "empty-dir": contract.Allow,
			"pod-affinity": contract.Allow, "topology-spread": contract.Allow, "dns": contract.Warn, "placement": contract.Warn,
		}},
	},
	{
		name: "agent",
		policy: contract.Policy{Profile: contract.ProfileAgent, Nameservers: []string{"10.0.0.1", "10.0.0.2"},
			Overrides: map[contract.Feature]contract.Action{"daemonset": contract.Allow}},
		values: []string{"admission.profile=agent", "admission.nameservers={10.0.0.1,10.0.0.2}"},
	},
}

// covers reports whether a fixture means under s what it means by itself.
func (s setting) covers(f contracttest.Fixture) bool {
	for feature, mode := range f.Policy.Overrides {
		if s.policy.Overrides[feature] != mode {
			return false
		}
	}
	for _, nameserver := range f.Policy.Nameservers {
		if !slices.Contains(s.policy.Nameservers, nameserver) {
			return false
		}
	}
	return (f.Policy.Profile == "" || f.Policy.Profile == s.policy.Profile) &&
		(f.Policy.UnreachableSeconds == 0 || f.Policy.UnreachableSeconds == s.policy.UnreachableSeconds)
}

// sample is one fixture in one namespace under one setting.
type sample struct {
	contracttest.Fixture
	setting   setting
	namespace string
	pod       map[string]any
	// verdict is what the pure functions say of the pod as the API server hands it
	// to webhooks.
	verdict contract.Verdict
	// want is what the API server makes of the pod where no webhook is asked and the
	// user has written by hand what the verdict says.
	want answer
}

func (s sample) String() string {
	return fmt.Sprintf("%s/%s in %s (%s)", s.Feature, s.Name, s.namespace, s.setting.name)
}

// oracle knows what has to come out, by asking the API server before the webhook
// is there.
type oracle struct {
	*cluster
	fixtures []contracttest.Fixture
	samples  []sample
	objects  []workload
	// unsound are fixtures that the API server refuses whatever we say.
	unsound map[string]string
}

// testBefore asks before there is a webhook: first for the pod with everything
// that the API server adds, then for what it makes of our version of that.
func (o *oracle) testBefore(t *testing.T) {
	for name, ns := range facts {
		labels := map[string]string{}
		if ns.OptedIn {
			labels[contract.ScheduleLabel] = "true"
		}
		if ns.Restricted {
			labels["pod-security.kubernetes.io/enforce"] = "restricted"
		}
		o.namespace(t, name, labels)
	}
	// A pod of an unknown runtime class is refused before any webhook is asked.
	for name, overhead := range map[string]string{"nvidia": `{podFixed: {cpu: 100m}}`, "nvidia-cdi": "null", "nvidia-legacy": "null", "gvisor": "null"} {
		o.create(t, schema.GroupVersionResource{Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses"}, "",
			"{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: %s}, handler: runc, overhead: %s}", name, overhead)
	}
	all, err := contracttest.All()
	require.NoError(t, err)
	o.fixtures = all
	require.Greater(t, len(all), 90)
	o.unsound = map[string]string{}
	var elsewhere []string
	for _, f := range all {
		own := slices.IndexFunc(settings, func(s setting) bool { return s.covers(f) })
		require.GreaterOrEqual(t, own, 0, "%s: no setting covers it", f.Path)
		switch {
		case f.DaemonSet || f.Moment == contract.OnTemplate: // testWorkloads, testPolicies
			continue
		case f.Moment != contract.OnCreate:
			elsewhere = append(elsewhere, string(f.Feature)+"/"+f.Name)
			continue
		}
		for name := range facts {
			o.samples = append(o.samples, o.sample(t, f, settings[own], name))
		}
	}
	// testUngated; and every stored pod is looked at once more when it is settled.
	require.Equal(t, []string{"security-context/warned-ungated", "tolerations/allowed-unreachable-settled", "tolerations/changed-ungated"}, elsewhere)
	require.Equal(t, map[string]string{
		"gpu/rejected-junk":          "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
		"runtime-class/allowed-none": "resource name may not be empty",
	}, o.unsound, "the API server refuses these before any webhook is asked, and no others")
	o.workloadsBefore(t)
	t.Logf("%d fixtures: %d pods, %d workloads", len(all), len(o.samples), len(o.objects))
}

func (o *oracle) sample(t *testing.T, f contracttest.Fixture, by setting, namespace string) sample {
	t.Helper()
	s := sample{Fixture: f, setting: by, namespace: namespace, pod: object(t, string(f.YAML))}
	s.pod["metadata"].(map[string]any)["namespace"] = namespace
	if facts[namespace].Restricted {
		restrict(s.pod["spec"].(map[string]any))
	}
	// What the API server adds does not depend on the namespace; whether it takes
	// the pod as it was written does, and that comes only after the webhooks.
	before := clone(t, s.pod)
	before["metadata"].(map[string]any)["namespace"] = "plain"
	filled := o.try(t.Context(), pods, "plain", before)
	if apierrors.IsInvalid(filled.err) {
		filled = o.fillWithoutGPUs(t, before)
	}
	switch {
	case apierrors.IsInvalid(filled.err):
		// It is refused after the webhooks, unless they make it sound.
		filled = answer{object: asDecoded(before)}
		s.pod["spec"].(map[string]any)["automountServiceAccountToken"] = false
	case filled.err != nil:
		s.want = filled
		o.unsound[string(f.Feature)+"/"+f.Name] = filled.err.Error()
		return s
	}
	given := filled.object
	given["metadata"].(map[string]any)["namespace"] = namespace
	raw := []byte(stored(t, given))
	pod, err := contract.Decode(raw)
	require.NoError(t, err, s)
	if !contract.Targets(pod, facts[namespace]) {
		s.want = o.try(t.Context(), pods, namespace, s.pod)
		return s
	}
	s.verdict, err = contract.Request{Pod: pod, Namespace: facts[namespace], Policy: by.policy}.Evaluate()
	require.NoError(t, err, s)
	if s.verdict.Denied() {
		return s
	}
	s.want = o.try(t.Context(), pods, namespace, patched(t, raw, s.verdict))
	for _, warning := range filled.warnings {
		if strings.HasPrefix(warning, "unknown field") && !slices.Contains(s.want.warnings, warning) {
			s.want.warnings = append(s.want.warnings, warning) // of what the user wrote
		}
	}
	return s
}

// restrict adds what Pod Security restricted asks of a pod, where the pod says
// nothing about it itself.
func restrict(spec map[string]any) {
	security := func(holder map[string]any, fields map[string]any) {
		own, ok := holder["securityContext"].(map[string]any)
		if !ok {
			own = map[string]any{}
		}
		for name, value := range fields {
			if _, has := own[name]; !has {
				own[name] = value
			}
		}
		holder["securityContext"] = own
	}
	security(spec, map[string]any{"runAsNonRoot": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"}})
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			security(c.(map[string]any), map[string]any{
				"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []any{"ALL"}},
			})
		}
	}
}

// asDecoded does to a pod what the API server does before webhooks are asked, as
// far as the fixtures that it refuses need it: it forgets volume types that it does
// not know and fills in a hostPath's type. Without an automounted token nothing is
// added that the table looks at.
func asDecoded(pod map[string]any) map[string]any {
	spec := pod["spec"].(map[string]any)
	spec["automountServiceAccountToken"] = false
	volumes, _ := spec["volumes"].([]any)
	for _, v := range volumes {
		volume := v.(map[string]any)
		delete(volume, "newerThanUs")
		if hostPath, ok := volume["hostPath"].(map[string]any); ok && hostPath["type"] == nil {
			hostPath["type"] = ""
		}
	}
	return pod
}

// fillWithoutGPUs is what webhooks are handed of a pod whose GPU amounts the API
// server would refuse after them: it has spelled the amounts its own way and copied
// limits into requests.
func (o *oracle) fillWithoutGPUs(t *testing.T, pod map[string]any) answer {
	t.Helper()
	lists := []string{"initContainers", "containers"}
	amounts := map[string]map[string]any{}
	each := func(pod map[string]any, do func(id string, container map[string]any)) {
		for _, list := range lists {
			containers, _ := pod["spec"].(map[string]any)[list].([]any)
			for i, c := range containers {
				do(fmt.Sprint(list, i), c.(map[string]any))
			}
		}
	}
	bare := clone(t, pod)
	each(bare, func(id string, container map[string]any) {
		resources, _ := container["resources"].(map[string]any)
		all := map[string]any{"limits": map[string]any{}, "requests": map[string]any{}}
		for _, side := range []string{"limits", "requests"} {
			list, _ := resources[side].(map[string]any)
			for name, amount := range list {
				q, err := resource.ParseQuantity(fmt.Sprint(amount))
				require.NoError(t, err)
				all[side].(map[string]any)[name] = q.String()
				if _, has := all["requests"].(map[string]any)[name]; side == "limits" && !has {
					all["requests"].(map[string]any)[name] = q.String()
				}
			}
		}
		amounts[id] = all
		delete(container, "resources")
	})
	filled := o.try(t.Context(), pods, "plain", bare)
	if filled.err != nil {
		return filled
	}
	each(filled.object, func(id string, container map[string]any) {
		own := map[string]any{}
		for side, list := range amounts[id] {
			if len(list.(map[string]any)) > 0 {
				own[side] = list
			}
		}
		container["resources"] = own
	})
	return filled
}

func patched(t *testing.T, raw []byte, v contract.Verdict) map[string]any {
	t.Helper()
	if len(v.Patch) > 0 {
		ops, err := json.Marshal(v.Patch)
		require.NoError(t, err)
		patch, err := jsonpatch.DecodePatch(ops)
		require.NoError(t, err)
		raw, err = patch.Apply(raw)
		require.NoError(t, err)
	}
	var pod map[string]any
	require.NoError(t, json.Unmarshal(raw, &pod))
	return pod
}

func clone(t *testing.T, o map[string]any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(o)
	require.NoError(t, err)
	var copied map[string]any
	require.NoError(t, json.Unmarshal(raw, &copied))
	return copied
}

func (o *oracle) testDefault(t *testing.T) { o.compare(t, settings[0]) }

// compare submits every fixture to the API server with the webhook.
func (o *oracle) compare(t *testing.T, by setting) {
	counts := map[string]int{}
	for _, s := range o.samples {
		if s.setting.name != by.name {
			continue
		}
		got := o.try(t.Context(), pods, s.namespace, s.pod)
		counts[outcome(got)]++
		judge(t, s.String(), s.verdict, s.want, got)
	}
	require.NotEmpty(t, counts)
	t.Logf("%s: %v", by.name, counts)
}

// judge demands that what the API server did is what the verdict says.
func judge(t *testing.T, what string, verdict contract.Verdict, want, got answer) {
	t.Helper()
	switch {
	case verdict.Denied():
		_, said, _ := strings.Cut(fmt.Sprint(got.err), " denied the request: ")
		if diff := cmp.Diff(verdict.Refusal(), said); diff != "" {
			t.Errorf("%s: the refusal reads\n%v\n%s", what, got.err, diff)
		}
	case want.err != nil:
		if got.err == nil || withoutNames(want.err) != withoutNames(got.err) {
			t.Errorf("%s: the API server itself says\n%v\nand with the webhook\n%v", what, want.err, got.err)
		}
	case got.err != nil:
		t.Errorf("%s: refused: %v", what, got.err)
	default:
		if diff := cmp.Diff(stored(t, want.object), stored(t, got.object)); diff != "" {
			t.Errorf("%s: stored otherwise than the table says:\n%s", what, diff)
		}
		expected := append(slices.Clone(want.warnings), verdict.Warnings()...)
		slices.Sort(expected)
		if diff := cmp.Diff(slices.Compact(expected), got.warnings); diff != "" && len(expected)+len(got.warnings) > 0 {
			t.Errorf("%s: the warnings differ:\n%s", what, diff)
		}
	}
}

func withoutNames(err error) string {
	return randomVolume.ReplaceAllString(err.Error(), "kube-api-access-x")
}

func outcome(a answer) string {
	switch {
	case a.err == nil && a.object == nil:
		return "nothing"
	case a.err == nil:
		return "stored"
	case strings.Contains(a.err.Error(), "cannot run on an AI node"):
		return "refused by us"
	default:
		return "refused by the API server"
	}
}

// testPolicies goes through the webhook's other settings.
func (o *oracle) testPolicies(t *testing.T) {
	for _, s := range settings[1:] {
		values := slices.Clone(s.values)
		for feature, mode := range s.policy.Overrides {
			values = append(values, fmt.Sprintf("admission.features.%s=%s", feature, mode))
		}
		slices.Sort(values)
		o.reconfigure(t, values...)
		o.compare(t, s)
		o.compareWorkloads(t, s)
	}
	// Where the cluster's default level is restricted, no namespace says so.
	o.reconfigure(t, "admission.assumeRestricted=true")
	got := o.try(t.Context(), pods, "plain", object(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: ai-a, volumes: [{name: w, emptyDir: {}}], containers: [{name: a, image: a, securityContext: {runAsNonRoot: true}, volumeMounts: [{name: w, mountPath: /w}]}]}}`))
	require.NoError(t, got.err)
	require.Contains(t, stored(t, got.object), `"runAsNonRoot": true`)
	require.Contains(t, stored(t, got.object), `"medium": "Memory"`)
	o.testTokenNamespaces(t)
}

// testTokenNamespaces: where tokens are allowed a pod keeps its own and its node gets
// it; in every other namespace neither.
func (o *oracle) testTokenNamespaces(t *testing.T) {
	require.Error(t, o.UpgradeChart(t.Context(), "admission.tokenNamespaces={life}"), "only with the profile agent")
	require.Error(t, o.UpgradeChart(t.Context(), "admission.profile=agent", "admission.tokenNamespaces={kube-system}"))
	o.reconfigure(t, "admission.profile=agent", "admission.tokenNamespaces={life}")
	o.create(t, nodes, "", `{apiVersion: v1, kind: Node, metadata: {name: ai-token}}`)
	defer func() { require.NoError(t, o.delete(t, nodes, "", "ai-token")) }()
	node := o.asNode(t, "ai-token")
	for namespace, keeps := range map[string]bool{"life": true, "plain": false} {
		// The other one opts out, so that only the policy keeps its token from the node.
		pod := o.create(t, pods, namespace, `{apiVersion: v1, kind: Pod, metadata: {name: token, labels: {ainode.dev/schedule: "%v"}}, spec: {nodeName: ai-token, containers: [{name: a, image: a}]}}`, keeps)
		defer func() {
			require.NoError(t, o.any.Resource(pods).Namespace(namespace).Delete(t.Context(), "token", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
		}()
		require.Contains(t, stored(t, pod.Object), "serviceAccountToken")
		ask := func() error {
			_, err := node.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{
				Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "token", UID: pod.GetUID()}},
			}, metav1.CreateOptions{})
			return err
		}
		eventually(t, "the answer is the policy's, not the authorizer's", func() error {
			err := ask()
			if !keeps && err != nil && strings.Contains(err.Error(), "ainode-node-identity") {
				return nil
			}
			return err
		})
		if !keeps {
			refused(t, ask(), "admission.profile=agent and admission.tokenNamespaces")
		}
	}
	stripped := o.try(t.Context(), pods, "plain", object(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: ai-token, containers: [{name: a, image: a}]}}`))
	require.NoError(t, stripped.err)
	require.NotContains(t, stored(t, stripped.object), "serviceAccountToken")
}

// reconfigure gives the webhook other chart values, and waits until nobody is left
// who has the old ones.
func (o *oracle) reconfigure(t *testing.T, values ...string) {
	t.Helper()
	old := strings.Fields(o.must(t, "get", "pods", "-n", system, "-l", webhookPods, "-o", "name"))
	require.NoError(t, o.UpgradeChart(t.Context(), append(values, "replicaCount=1")...))
	o.must(t, append([]string{"wait", "-n", system, "--for=delete", "--timeout=2m"}, old...)...)
}
