package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
)

func TestWhatAPodBrings(t *testing.T) {
	t.Parallel()
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	spec := &corev1.PodSpec{
		ServiceAccountName: "agent",
		ImagePullSecrets:   []corev1.LocalObjectReference{ref("pull")},
		InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("all")}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("settings")}},
		}}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{
			{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("key")}}},
			{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("mode")}}},
			{Value: "none"},
		}}},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "file"}}},
			{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: ptr.To(ref("bucket"))}}},
			{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}},
			{VolumeSource: corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{SecretRef: ptr.To(ref("flex"))}}},
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("mode")}}},
			{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: ref("part")}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("kube-root-ca.crt")}},
			}}}},
		},
	}
	all := brought{}
	all.add("team", spec)
	require.ElementsMatch(t, []string{"team/pull", "team/all", "team/key", "team/file", "team/bucket", "team/flex", "team/part"}, all["Secret"])
	require.Equal(t, "Secrets team/all, team/bucket, team/file, team/flex and 3 more; ServiceAccount team/agent; ConfigMaps team/mode, team/settings; "+
		"PersistentVolumeClaim team/data", all.String())

	account := func(spec corev1.PodSpec) string {
		b := brought{}
		b.add("team", &spec)
		return b.String()
	}
	require.Equal(t, "ServiceAccount team/default", account(corev1.PodSpec{}), "a pod that names no account has its namespace's")
	off := corev1.PodSpec{ServiceAccountName: "agent", AutomountServiceAccountToken: ptr.To(false)}
	require.Empty(t, account(off), "an account whose token is not mounted is not brought")
	off.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
	}}}}}
	require.Equal(t, "ServiceAccount team/agent", account(off), "nor is one whose token is mounted by hand left out")
}

// What a scheduler sends to a node that is not there yet is judged by the Node that the
// agent will register.
func TestWhichPodsLand(t *testing.T) {
	t.Parallel()
	node := nodeToBe(&v1alpha1.AINode{
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1"},
		Spec:       v1alpha1.AINodeSpec{NodeLabels: map[string]string{"zone": "b"}},
		Status: v1alpha1.AINodeStatus{
			GPUs:     []v1alpha1.GPU{{Product: "NVIDIA H200", Memory: resource.MustParse("141Gi")}, {Product: "NVIDIA H200"}},
			Capacity: map[string]resource.Quantity{"cpu": resource.MustParse("8"), "nvidia.com/gpu": resource.MustParse("2")},
		},
	})
	asks := func(cards string) []corev1.Container {
		return []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse(cards)}}}}
	}
	ours := []corev1.Toleration{contract.Toleration()}
	for name, test := range map[string]struct {
		edit  func(*corev1.Pod)
		lands bool
	}{
		"as the contract has it":        {func(*corev1.Pod) {}, true},
		"asks for its cards":            {func(p *corev1.Pod) { p.Spec.Containers = asks("2") }, true},
		"asks for more cards":           {func(p *corev1.Pod) { p.Spec.Containers = asks("3") }, false},
		"does not tolerate the taint":   {func(p *corev1.Pod) { p.Spec.Tolerations = nil }, false},
		"tolerates everything":          {func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }, true},
		"selects it by name":            {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "ai-1"} }, true},
		"selects another by name":       {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "ai-2"} }, false},
		"selects the product":           {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"nvidia.com/gpu.product": "NVIDIA-H200"} }, true},
		"selects its zone":              {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} }, true},
		"keeps off by affinity":         {func(p *corev1.Pod) { p.Spec.Affinity = affinity(contract.NodeLabel, corev1.NodeSelectorOpDoesNotExist) }, false},
		"waits at a gate":               {func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a/b"}} }, false},
		"is on a node already":          {func(p *corev1.Pod) { p.Spec.NodeName = "worker" }, false},
		"is being deleted":              {func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }, false},
		"has failed without any node":   {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"a DaemonSet's of another node": {func(p *corev1.Pod) { p.Spec.Affinity = ofNode("worker") }, false},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: ours, NodeSelector: map[string]string{contract.NodeLabel: contract.NodeLabelValue}}}
		pod.Status.Phase = corev1.PodPending
		test.edit(pod)
		require.Equal(t, test.lands, lands(pod, node), name)
	}
	node.Status.Capacity = nil
	require.True(t, lands(&corev1.Pod{Spec: corev1.PodSpec{Tolerations: ours, Containers: asks("3")}, Status: corev1.PodStatus{Phase: corev1.PodPending}}, node),
		"of a machine whose size is not known nothing is ruled out by it")
}

func ofNode(name string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}},
	}}}
}

// What Cilium's operator and ACI's controller are told decides, and of Cilium whether its
// agent's pods come at all.
func TestWhichNetworkPluginsTaint(t *testing.T) {
	t.Parallel()
	everywhere := corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}
	keptOff := everywhere
	keptOff.Affinity = affinity(contract.NodeLabel, corev1.NodeSelectorOpDoesNotExist)
	cilium := func(spec corev1.PodSpec) *appsv1.DaemonSet {
		d := daemonSet(spec)
		d.Namespace, d.Name = "kube-system", "cilium"
		d.Spec.Template.Labels = map[string]string{"k8s-app": "cilium"}
		return d
	}
	aci := daemonSet(everywhere)
	aci.Namespace, aci.Name = "aci-containers-system", "aci-containers-host"
	for name, test := range map[string]struct {
		of     *appsv1.DaemonSet
		config map[string]string
		key    string
	}{
		"Cilium as helm installs it":    {cilium(everywhere), map[string]string{"set-cilium-node-taints": "true", "agent-not-ready-taint-key": "a/b"}, "a/b"},
		"Cilium without a key":          {cilium(everywhere), map[string]string{"set-cilium-node-taints": "true"}, "node.cilium.io/agent-not-ready"},
		"Cilium that only takes away":   {cilium(everywhere), map[string]string{"remove-cilium-node-taints": "true", "agent-not-ready-taint-key": "a/b"}, ""},
		"Cilium told not to":            {cilium(everywhere), map[string]string{"set-cilium-node-taints": "false"}, ""},
		"Cilium that is kept off":       {cilium(keptOff), map[string]string{"set-cilium-node-taints": "true"}, ""},
		"ACI told to":                   {aci, map[string]string{"controller-config": `{"taint-not-ready-node": true}`}, "aci-containers-host/unavailable"},
		"ACI as it comes":               {aci, map[string]string{"controller-config": `{"log-level": "info"}`}, ""},
		"ACI with a damaged config":     {aci, map[string]string{"controller-config": `{`}, ""},
		"another plugin with that file": {daemonSet(everywhere), map[string]string{"set-cilium-node-taints": "true"}, ""},
	} {
		key := ""
		for _, plugin := range networkPlugins {
			if plugin.is(test.of) {
				key += plugin.taint(test.of, test.config)
			}
		}
		require.Equal(t, test.key, key, name)
	}

	byHand := keepCiliumOff(cilium(everywhere))
	require.Contains(t, byHand[0], "kubectl -n kube-system edit daemonset cilium")
	d := cilium(everywhere)
	d.Annotations = map[string]string{"meta.helm.sh/release-name": "net", "meta.helm.sh/release-namespace": "infra"}
	byHelm := strings.Join(keepCiliumOff(d), "\n")
	require.Contains(t, byHelm, `helm -n infra upgrade net cilium/cilium --reuse-values --set-json 'affinity.nodeAffinity={"requiredDuring`)
	require.NotContains(t, byHelm, "kubectl", "what is edited by hand is gone with the next upgrade")
}

func TestNeighbourhood(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr
	four, six := []netip.Addr{ip("10.1.2.3"), ip("10.2.0.9")}, []netip.Addr{ip("fd00:1:2::3")}
	require.Equal(t, "IPv4", familyOf(four))
	require.Equal(t, "IPv6", familyOf(six))
	require.Empty(t, familyOf(append(six, four...)), "a cluster of both reaches both")
	require.Empty(t, familyOf(nil))
}

// In a cluster where very many pods wait, one request brings the first of them, and it is
// told that there are more.
func TestWaitingPodsAreReadOnce(t *testing.T) {
	t.Parallel()
	var asked []metav1.ListOptions
	core := fake.NewClientset()
	core.PrependReactor("list", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		asked = append(asked, a.(k8stesting.ListActionImpl).ListOptions)
		return true, &corev1.PodList{ListMeta: metav1.ListMeta{Continue: "more"}}, nil
	})
	waiting, err := readWaiting(t.Context(), &kube.Cluster{Core: core})
	require.NoError(t, err)
	require.Len(t, asked, 1)
	require.Equal(t, int64(mostWaiting), asked[0].Limit)
	require.Equal(t, "spec.nodeName=,status.phase=Pending", asked[0].FieldSelector)

	s := &sight{
		Case: &Case{}, waiting: func() (waitingPods, error) { return waiting, nil },
		namespaces: func() ([]corev1.Namespace, error) { return nil, nil },
		pods:       func() ([]corev1.Pod, error) { return nil, nil },
		configs:    func() ([]v1alpha1.ClusterConfig, error) { return nil, nil },
		uid:        func() (string, error) { return "", nil },
		node:       &v1alpha1.AINode{Status: v1alpha1.AINodeStatus{PublicKey: "key"}},
	}
	saw, flaws, err := pendingPods(t.Context(), s)
	require.NoError(t, err)
	require.Empty(t, flaws)
	require.Equal(t, "no waiting pod (of the first 500) would come at once", saw)
}
