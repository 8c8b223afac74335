package crispec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares message with testdata/NAME.yaml.
func golden(t *testing.T, name string, message proto.Message) {
	t.Helper()
	raw, err := protojson.Marshal(message)
	require.NoError(t, err)
	var parsed any
	require.NoError(t, json.Unmarshal(raw, &parsed))
	got, err := yaml.Marshal(parsed)
	require.NoError(t, err)
	path := filepath.Join("testdata", name+".yaml")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(string(want), string(got)), "golden file %s (write it anew with -update, and read the difference)", path)
}

func fixturePod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".pod.yaml"))
	require.NoError(t, err)
	pod := &corev1.Pod{}
	require.NoError(t, yaml.UnmarshalStrict(raw, pod))
	return pod
}

func TestPodsAsTheRuntimeTakesThem(t *testing.T) {
	t.Parallel()
	for name, network := range map[string]NetworkMode{"vendor": Host, "restricted": CNI} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := fixturePod(t, name)
			sandbox, err := Sandbox(pod, SandboxOptions{
				Epoch: 7, LogDirectory: LogDirectory("/var/log/pods", pod), CgroupParent: "/ainode", Network: network, Attempt: 1,
				DNS: &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}},
			})
			require.NoError(t, err)
			golden(t, name+".sandbox", sandbox)

			c := &pod.Spec.Containers[0]
			env, err := Env(t.Context(), pod, c, store(), facts)
			require.NoError(t, err)
			container, err := Container(pod, c, ContainerOptions{
				ImageRef: "sha256:1234", Env: env, Attempt: 2, Network: network, NodeMemory: 64 << 30,
				GPUs: []string{"GPU-a", "GPU-b"}, CDIDevices: []string{"ainode.dev/gpu=GPU-a", "ainode.dev/gpu=GPU-b"},
				Mounts: []*runtimeapi.Mount{{ContainerPath: "/dev/shm", HostPath: "/x"}},
			})
			require.NoError(t, err)
			golden(t, name+".container", container)

			s, err := ParseSandbox(sandbox.Labels, sandbox.Annotations)
			require.NoError(t, err)
			require.Equal(t, SandboxInfo{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Epoch: 7, Grace: ptr.To(30 * time.Second)}, s)
			got, err := ParseContainer(container.Labels, container.Annotations)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(ContainerInfo{
				Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Container: c.Name, GPUs: []string{"GPU-a", "GPU-b"}, RestartCount: 2,
				SpecHash: SpecHash(c), MessagePath: "/dev/termination-log", MessagePolicy: corev1.TerminationMessageReadFile,
				Grace: ptr.To(30 * time.Second), Ports: c.Ports,
			}, got))
		})
	}
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	of := func(name string, network NetworkMode) (map[string]string, error) {
		pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}}}
		got, err := Sysctls(pod, network)
		if err == nil {
			_, err = Sandbox(pod, SandboxOptions{Network: network})
			require.NoError(t, err)
		}
		return got, err
	}
	got, err := of("kernel/shm_rmid_forced", Host)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"kernel.shm_rmid_forced": "1"}, got)
	got, err = of("net.ipv4.tcp_syncookies", CNI)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"net.ipv4.tcp_syncookies": "1"}, got)
	_, err = of("net/ipv4/tcp_syncookies", Host)
	require.ErrorContains(t, err, `"net/ipv4/tcp_syncookies" is the machine's`)
	for _, name := range []string{"kernel.msgmax", "net.ipv4.conf.eth0/1.forwarding", "", "/", "kernel"} {
		_, err = of(name, CNI)
		require.EqualError(t, err, `forbidden sysctl: "`+name+`" not allowlisted`)
	}
}

func TestForeignLabels(t *testing.T) {
	t.Parallel()
	_, err := ParseSandbox(map[string]string{"a": "b"}, nil)
	require.ErrorIs(t, err, ErrForeign)
	_, err = ParseContainer(map[string]string{LabelPodUID: "u"}, nil)
	require.ErrorIs(t, err, ErrForeign)
	_, err = ParseSandbox(map[string]string{LabelPodUID: "u"}, map[string]string{AnnotationEpoch: "x"})
	require.ErrorContains(t, err, AnnotationEpoch)
}

func TestTheMachineIsDefended(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*corev1.Pod){
		"hostNetwork": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"hostPID":     func(p *corev1.Pod) { p.Spec.HostPID = true },
		"hostIPC":     func(p *corev1.Pod) { p.Spec.HostIPC = true },
		"hostUsers":   func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(false) },
		"privileged": func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		},
		`procMount "Unmasked"`: func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)}
		},
		"seccomp profile type": func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost}}
		},
		"its image is not on it": nil,
	} {
		pod := examplePod()
		ref := "sha256:1"
		if change == nil {
			ref, want = "", "its image is not on the machine"
		} else {
			change(pod)
		}
		_, err := Container(pod, &pod.Spec.Containers[0], ContainerOptions{ImageRef: ref})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, `container "main" of pod "ns/web-0"`)
	}
}

func TestNonRoot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pod, container *int64
		uid            *int64
		username       string
		want           string
	}{
		"the pod's user":             {pod: ptr.To[int64](1000)},
		"root by the pod":            {pod: ptr.To[int64](0), want: "breaks non-root policy"},
		"the container's user wins":  {pod: ptr.To[int64](0), container: ptr.To[int64](7)},
		"the image's number":         {uid: ptr.To[int64](65534)},
		"the image's root":           {uid: ptr.To[int64](0), want: "image will run as root"},
		"the image names nobody":     {want: "image will run as root"},
		"the image's name says less": {username: "app", want: "non-numeric user (app)"},
	} {
		pod := examplePod()
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: test.pod}
		c := &pod.Spec.Containers[0]
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: test.container}
		err := NonRoot(pod, c, test.uid, test.username)
		if test.want == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, test.want, name)
		}
		c.SecurityContext.RunAsNonRoot = ptr.To(false)
		require.NoError(t, NonRoot(pod, c, test.uid, test.username), "the container's own word wins")
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	for name, test := range map[string]struct {
		qos              corev1.PodQOSClass
		limits, requests corev1.ResourceList
		sidecar          bool
		want             *runtimeapi.LinuxContainerResources
	}{
		"nothing":               {qos: corev1.PodQOSBestEffort, want: &runtimeapi.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000}},
		"the vendor's":          {qos: corev1.PodQOSGuaranteed, limits: list("4", "12Gi"), requests: list("4", "12Gi"), want: &runtimeapi.LinuxContainerResources{CpuShares: 4096, CpuPeriod: 100000, CpuQuota: 400000, MemoryLimitInBytes: 12 << 30, OomScoreAdj: -997}},
		"a request alone":       {qos: corev1.PodQOSBurstable, requests: list("250m", "16Gi"), want: &runtimeapi.LinuxContainerResources{CpuShares: 256, OomScoreAdj: 750}},
		"a limit alone":         {qos: corev1.PodQOSBurstable, limits: list("500m", ""), want: &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuPeriod: 100000, CpuQuota: 50000, OomScoreAdj: 999}},
		"tiny":                  {qos: corev1.PodQOSBurstable, limits: list("1m", ""), requests: list("1m", ""), want: &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuPeriod: 100000, CpuQuota: 1000, OomScoreAdj: 999}},
		"more than the machine": {qos: corev1.PodQOSBurstable, requests: list("", "512Gi"), want: &runtimeapi.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 3}},
		"very wide":             {qos: corev1.PodQOSBurstable, requests: list("1000", ""), want: &runtimeapi.LinuxContainerResources{CpuShares: 262144, OomScoreAdj: 999}},
		"without end":           {qos: corev1.PodQOSBurstable, limits: list("5E", ""), requests: list("1", ""), want: &runtimeapi.LinuxContainerResources{CpuShares: 1024, OomScoreAdj: 999}},
		"a sidecar lives as long as the container it serves": {qos: corev1.PodQOSBurstable, sidecar: true, want: &runtimeapi.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 500}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{Status: corev1.PodStatus{QOSClass: test.qos}, Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "a", Resources: corev1.ResourceRequirements{Requests: list("", "32Gi")}},
			}}}
			c := &corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: test.limits, Requests: test.requests}}
			if test.sidecar {
				c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			}
			got := Resources(pod, c, 64<<30)
			require.Truef(t, proto.Equal(test.want, got), "want %v, got %v", test.want, got)
		})
	}
}

func TestNamesOfPods(t *testing.T) {
	t.Parallel()
	pod := examplePod()
	require.Equal(t, "/var/log/pods/ns_web-0_0d9a6b6e-1111-4222-8333-444455556666", LogDirectory("/var/log/pods", pod))
	require.Equal(t, "main/3.log", LogPath("main", 3))
	require.Equal(t, "/ainode/pod0d9a6b6e-1111-4222-8333-444455556666", PodCgroup("/ainode", pod.UID))
	require.Equal(t, "/ainode.slice/ainode-pod0d9a6b6e_1111_4222_8333_444455556666.slice", PodCgroup("/ainode.slice", pod.UID))
	require.Empty(t, PodCgroup("", pod.UID))

	require.Equal(t, "web-0", Hostname(pod))
	pod.Spec.Hostname = "db"
	require.Equal(t, "db", Hostname(pod))
	pod.Spec.Hostname = ""
	pod.Name = strings.Repeat("a", 62) + ".b"
	require.Equal(t, strings.Repeat("a", 62), Hostname(pod), "cut, and not ending in a dot")
}

func TestSpecHashFollowsTheImage(t *testing.T) {
	t.Parallel()
	a := &corev1.Container{Name: "c", Image: "x:1"}
	b := &corev1.Container{Name: "c", Image: "x:1", TerminationMessagePath: "/dev/termination-log"}
	require.Equal(t, SpecHash(a), SpecHash(b), "defaults of a newer API server restart nothing")
	b.Image = "x:2"
	require.NotEqual(t, SpecHash(a), SpecHash(b))
}

func TestLimitsOfAPod(t *testing.T) {
	t.Parallel()
	container := func(requests, limits corev1.ResourceList) corev1.Container {
		return corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	for name, test := range map[string]struct {
		spec corev1.PodSpec
		want PodLimits
	}{
		"nothing": {spec: corev1.PodSpec{Containers: []corev1.Container{container(nil, nil)}}, want: PodLimits{2, -1, 100000, -1}},
		"the sum, of what all limit": {
			spec: corev1.PodSpec{Containers: []corev1.Container{
				container(list("1", "1Gi"), list("2", "1Gi")), container(list("1", "1Gi"), corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}),
			}},
			want: PodLimits{2048, -1, 100000, 3 << 30},
		},
		"init containers run alone": {
			spec: corev1.PodSpec{
				InitContainers: []corev1.Container{container(list("4", "4Gi"), list("4", "4Gi"))},
				Containers:     []corev1.Container{container(list("1", "1Gi"), list("1", "1Gi"))},
			},
			want: PodLimits{4096, 400000, 100000, 4 << 30},
		},
		"of the pod itself": {
			spec: corev1.PodSpec{
				Resources:  &corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("3", "3Gi")},
				Containers: []corev1.Container{container(nil, nil)},
			},
			want: PodLimits{1024, 300000, 100000, 3 << 30},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, LimitsOf(&corev1.Pod{Spec: test.spec}))
		})
	}
}
