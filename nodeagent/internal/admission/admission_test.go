package admission

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/podtest"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

var testPod, askingFor = podtest.Pod, podtest.AskingFor

func testNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1", Labels: map[string]string{contract.NodeLabel: contract.NodeLabelValue}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{contract.Taint()}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"),
			corev1.ResourcePods: resource.MustParse("3"), contract.GPUResource: resource.MustParse("2"),
		}},
	}
}

func needing(pod *corev1.Pod, name corev1.ResourceName, amount string) *corev1.Pod {
	c := &pod.Spec.Containers[0]
	if c.Resources.Requests == nil {
		c.Resources.Requests = corev1.ResourceList{}
	}
	c.Resources.Requests[name] = resource.MustParse(amount)
	return pod
}

func listening(pod *corev1.Pod, port int32) *corev1.Pod {
	pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: port})
	return pod
}

func changedPod(change func(*corev1.PodSpec)) *corev1.Pod {
	pod := testPod("", "a")
	change(&pod.Spec)
	return pod
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	other := func() *corev1.Pod {
		pod := testPod("", "a")
		pod.Name = "other"
		return pod
	}
	tests := []struct {
		name            string
		pod             *corev1.Pod
		others          []*corev1.Pod
		reason, message string
	}{
		{name: "a plain pod", pod: testPod("", "a")},
		{name: "all that is left", pod: needing(needing(testPod("", "a"), "cpu", "3"), contract.GPUResource, "1"),
			others: []*corev1.Pod{needing(needing(other(), "cpu", "1"), contract.GPUResource, "1")}},
		{name: "cpu", pod: needing(testPod("", "a"), "cpu", "3001m"), others: []*corev1.Pod{needing(other(), "cpu", "1")},
			reason: "OutOfcpu", message: "Node didn't have enough resource: cpu, requested: 3001, used: 1000, capacity: 4000"},
		{name: "memory", pod: needing(testPod("", "a"), "memory", "9Gi"), reason: "OutOfmemory", message: "memory, requested: 9663676416, used: 0, capacity: 8589934592"},
		{name: "gpu", pod: needing(testPod("", "a"), contract.GPUResource, "3"), reason: "OutOfnvidia.com/gpu", message: "requested: 3, used: 0, capacity: 2"},
		{name: "a resource the node has not", pod: needing(testPod("", "a"), "example.com/fpga", "1"), reason: "OutOfexample.com/fpga", message: "capacity: 0"},
		{name: "pods", pod: testPod("", "a"), others: []*corev1.Pod{other(), other(), other()}, reason: "OutOfpods", message: "pods, requested: 1, used: 3, capacity: 3"},
		{name: "port of another", pod: listening(testPod("", "a"), 80), others: []*corev1.Pod{listening(other(), 80)},
			reason: "NodePorts", message: "port 80/TCP is taken by pod default/other"},
		{name: "port of the machine", pod: listening(testPod("", "a"), 10250), reason: "NodePorts", message: "port 10250/TCP is reserved"},
		{name: "port free", pod: listening(testPod("", "a"), 81), others: []*corev1.Pod{listening(other(), 80)}},
		{name: "selector", pod: changedPod(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"zone": "b"} }), reason: "NodeAffinity", message: "didn't match"},
		{name: "selector matches", pod: changedPod(func(s *corev1.PodSpec) {
			s.NodeSelector = map[string]string{contract.NodeLabel: contract.NodeLabelValue}
		})},
		{name: "windows", pod: changedPod(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: corev1.Windows} }), reason: "PodOSNotSupported"},

		{name: "host network", pod: changedPod(func(s *corev1.PodSpec) { s.HostNetwork = true }), reason: "NotSupported", message: "spec.hostNetwork: "},
		{name: "host pid", pod: changedPod(func(s *corev1.PodSpec) { s.HostPID = true }), reason: "NotSupported", message: "spec.hostPID: "},
		{name: "host ipc", pod: changedPod(func(s *corev1.PodSpec) { s.HostIPC = true }), reason: "NotSupported", message: "spec.hostIPC: "},
		{name: "host path", pod: changedPod(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}), reason: "NotSupported", message: "spec.volumes[0].hostPath: "},
		{name: "host port", pod: changedPod(func(s *corev1.PodSpec) {
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		}), reason: "NotSupported", message: "spec.containers[0].ports[0].hostPort: "},
		{name: "privileged", pod: changedPod(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		}), reason: "NotSupported", message: "spec.containers[0].securityContext.privileged: "},
		{name: "capability", pod: changedPod(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", SecurityContext: &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE", "SYS_ADMIN"}}}}}
		}), reason: "NotSupported", message: "spec.initContainers[0].securityContext.capabilities.add[1]: "},
		{name: "resource claims", pod: changedPod(func(s *corev1.PodSpec) {
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
		}), reason: "NotSupported", message: "spec.resourceClaims: "},
		{name: "unconfined, as without a profile", pod: changedPod(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
		})},
		{name: "an SELinux type that owns the machine", pod: changedPod(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}
		}), reason: "NotSupported", message: "spec.containers[0].securityContext.seLinuxOptions: "},
		{name: "an SELinux level", pod: changedPod(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "container_t", Level: "s0:c1,c2"}}
		})},
		{name: "a debug container that may not run harms no pod", pod: changedPod(func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "d", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)},
			}}}
		})},
		{name: "nfs", pod: changedPod(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}}}}
		}), reason: "NotSupported", message: "spec.volumes[0]"},
		{name: "a runtime class of NVIDIA's", pod: changedPod(func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("nvidia") })},
		{name: "another runtime class", pod: changedPod(func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("kata") }), reason: "NotSupported", message: "spec.runtimeClassName"},
		{name: "an emptyDir on disk", pod: changedPod(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		})},
		{name: "less privilege is fine", pod: changedPod(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{
				RunAsUser: ptr.To[int64](0), Privileged: ptr.To(false),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE", "NET_RAW"}},
			}
		})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			verdict := Admit(test.pod, testNode(), test.others, true, []int32{10250})
			if test.reason == "" {
				require.Nil(t, verdict)
				return
			}
			require.NotNil(t, verdict)
			require.Equal(t, test.reason, verdict.Reason)
			require.Contains(t, verdict.Message, test.message)
			require.True(t, verdict.NotAdmitted)
		})
	}
}

func TestDebugContainersAreHeldDownToo(t *testing.T) {
	t.Parallel()
	adding := func(capabilities ...corev1.Capability) *corev1.SecurityContext {
		return &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: capabilities}}
	}
	pod := testPod("", "a")
	// What the profiles of kubectl debug ask for.
	for name, security := range map[string]*corev1.SecurityContext{
		"legacy": nil, "general": adding("SYS_PTRACE"), "netadmin": adding("NET_ADMIN", "NET_RAW"),
		"sysadmin": {Privileged: ptr.To(true)},
		"restricted": {
			RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	} {
		pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}, {EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, SecurityContext: security}}}
		field, _ := DebugAccess(pod, name)
		require.Equal(t, map[string]string{
			"netadmin": "spec.ephemeralContainers[1].securityContext.capabilities.add[0]",
			"sysadmin": "spec.ephemeralContainers[1].securityContext.privileged",
		}[name], field, name)
	}
	field, _ := DebugAccess(pod, "a")
	require.Empty(t, field)
}

func TestAdmitTaints(t *testing.T) {
	t.Parallel()
	node := testNode()
	require.Nil(t, Admit(testPod("", "a"), node, nil, true, nil), "NoSchedule is the scheduler's matter")
	node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "broken", Effect: corev1.TaintEffectNoExecute})
	verdict := Admit(testPod("", "a"), node, nil, true, nil)
	require.Equal(t, "TaintToleration", verdict.Reason)
	require.Contains(t, verdict.Message, "broken:NoExecute")
}

func TestOfDaemonSet(t *testing.T) {
	t.Parallel()
	pod := testPod("", "a")
	require.False(t, OfDaemonSet(pod))
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Controller: ptr.To(true)}}
	require.True(t, OfDaemonSet(pod))
}

// What is refused for its slices is told of those.
func TestOutOfCards(t *testing.T) {
	t.Parallel()
	const one = corev1.ResourceName("nvidia.com/mig-1g.10gb")
	slices := gpuallocation.New(podtest.Device)
	slices.Claim("p", gpuallocation.Assignment{"x": {"GPU-2_mig-1g.10gb_a", "GPU-2_mig-1g.10gb_b", "GPU-2_mig-1g.10gb_c"}})
	_, err := slices.Assign(askingFor(testPod("", "x"), "x", one, 1), podtest.Usable("GPU-2_mig-1g.10gb_a", "GPU-2_mig-1g.10gb_b", "GPU-2_mig-1g.10gb_c"), topology.Map{})
	require.Equal(t, "OutOfnvidia.com/mig-1g.10gb", OutOfCards(err).Reason)
	require.Equal(t, "Pod was rejected: Node didn't have enough resource: nvidia.com/mig-1g.10gb, requested: 1, free: 0, slices: 3", OutOfCards(err).Message)
}

func TestAmountsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, amount := range []string{"9000000000000000000", "5E18", "1e30"} {
		for _, name := range []corev1.ResourceName{contract.GPUResource, corev1.ResourceMemory, corev1.ResourceCPU} {
			pod := testPod("", "a", "b")
			for i := range pod.Spec.Containers {
				all := corev1.ResourceList{name: resource.MustParse(amount)}
				pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{Limits: all, Requests: all}
			}
			verdict := Admit(pod, testNode(), nil, true, nil)
			require.NotNil(t, verdict, "two containers of %s %s", amount, name)
			require.Equal(t, "OutOf"+string(name), verdict.Reason)
			asked := resource.MustParse(amount)
			asked.Add(resource.MustParse(amount))
			require.Contains(t, verdict.Message, "requested: "+asked.String()+",")
			if name == contract.GPUResource {
				_, err := gpuallocation.New(podtest.Device).Assign(pod, podtest.Usable("GPU-0"), topology.Map{})
				require.Error(t, err)
			}
		}
	}
}
