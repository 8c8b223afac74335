package story

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

var randomVolume = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)

// testJoin lets the machine join, and shows that a join file works once.
func (s *Story) testJoin(t *testing.T) {
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "join")
	s.must(t, "ainode", "add", Node, "--join-file", file)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "a join file is a secret")

	join := func(args ...string) error {
		_, err := s.devcluster(ctx, false, "exec", append([]string{machine, "--", s.bin("ainode-agent"), "join", "--file", file}, args...)...)
		return err
	}
	require.NoError(t, join())
	require.ErrorContains(t, join("--state-dir", filepath.Join(t.TempDir(), "second")), "kubectl ainode add "+Node, "a join file works once")

	expired := filepath.Join(t.TempDir(), "expired")
	s.must(t, "ainode", "add", "ai-late", "--join-file", expired, "--ttl", "10m")
	raw, err := os.ReadFile(expired)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "old")
	require.NoError(t, os.WriteFile(file, []byte(outdated(t, string(raw))), 0o600))
	require.ErrorContains(t, join("--state-dir", filepath.Join(t.TempDir(), "late")), "expired")
	s.must(t, "ainode", "remove", "ai-late")

	require.NoError(t, s.StartAgent(ctx))
	eventually(t, 2*time.Minute, "the agent reports", func() (bool, string) {
		out := s.must(t, "get", "ainode", Node, "-o", "jsonpath={.status.bindStatus} {.status.gpus[*].uuid}")
		return strings.HasPrefix(out, "Unbound GPU-"), out
	})
}

// testBind binds, and shows what is refused before and that nothing changed by it.
func (s *Story) testBind(t *testing.T) {
	ctx := t.Context()
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", "nowhere"), "nowhere")
	require.NoError(t, s.Import(ctx))
	require.Contains(t, s.must(t, "ainode", "import", Config), "unchanged")
	require.Contains(t, s.refused(t, "ainode", "bind", "ai-nobody", "--to", Config), "ai-nobody")

	// A Node of that name that is not ours: nothing may be touched.
	s.apply(t, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"`+Node+`","labels":{"someone":"else"}}}`)
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", Config), Node)
	require.Equal(t, "else", s.must(t, "get", "node", Node, "-o", "jsonpath={.metadata.labels.someone}"))
	require.Empty(t, s.must(t, "get", "clusterconfig", Config, "-o", "jsonpath={.status.boundNodes}"))
	require.Equal(t, "", s.must(t, "get", "ainode", Node, "-o", "jsonpath={.spec.clusterConfigName}"))
	s.must(t, "delete", "node", Node)

	// Missing rights are listed all at once, and nothing is changed.
	told := s.refused(t, "ainode", "bind", Node, "--to", Config, "--as", "stranger")
	require.NotEmpty(t, told)

	require.NoError(t, s.Bind(ctx))
	require.Contains(t, s.must(t, "ainode", "bind", Node, "--to", Config), "unchanged")
}

// testPods looks at the four workloads as the API shows them.
func (s *Story) testPods(t *testing.T) {
	var node corev1.Node
	s.get(t, &node, "node", Node)
	cards := map[string]string{}
	for _, pod := range s.pods(t) {
		require.Equal(t, Node, pod.Spec.NodeName, pod.Name)
		require.Equal(t, corev1.PodRunning, pod.Status.Phase, pod.Name)
		require.Equal(t, node.Status.Addresses[0].Address, pod.Status.PodIP, pod.Name)
		require.NotNil(t, pod.Status.StartTime, pod.Name)
		require.NotEmpty(t, pod.Status.QOSClass, pod.Name)
		for _, want := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
			require.Contains(t, trueConditions(pod), want, pod.Name)
		}
		require.True(t, slices.ContainsFunc(pod.Spec.Tolerations, func(have corev1.Toleration) bool {
			return have.Key == contract.TaintKey && have.Value == contract.TaintValue
		}), pod.Name)
		require.False(t, *pod.Spec.AutomountServiceAccountToken, pod.Name)
		for _, v := range pod.Spec.Volumes {
			require.False(t, strings.HasPrefix(v.Name, "kube-api-access-"), pod.Name)
		}
		limit := pod.Spec.Containers[0].Resources.Limits[contract.GPUResource]
		listed := strings.Fields(s.must(t, "exec", pod.Name, "--", "sh", "-c", "nvidia-smi -L | grep -o 'GPU-[0-9a-f-]*'"))
		require.Len(t, listed, int(limit.Value()), "%s asked for %s", pod.Name, limit.String())
		for _, uuid := range listed {
			require.Empty(t, cards[uuid], "%s is given to %s too", uuid, pod.Name)
			cards[uuid] = pod.Name
		}
	}
	require.Len(t, cards, 6)
	s.must(t, "wait", "--for=jsonpath={.status.gpusInUse}=6", "ainode/"+Node, "--timeout=2m")
	require.Contains(t, s.must(t, "ainode", "list"), "6/8")
	if !exists("/dev/nvidiactl") {
		require.Contains(t, s.must(t, "exec", "plain", "--", "nvidia-smi"), "SIMULATED")
	}

	// The vendor's Pod: /dev/shm is the memory volume, limits are cgroup limits.
	require.Contains(t, s.must(t, "exec", "ray-gpu", "--", "sh", "-c", "grep ' /dev/shm ' /proc/mounts"), "tmpfs")
	limit := s.must(t, "exec", "ray-gpu", "--", "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true")
	require.Equal(t, fmt.Sprint(12<<30), strings.TrimSpace(limit))

	// Events are sent on their own way, and may come later than the status they explain.
	eventually(t, 2*time.Minute, "the events of a start", func() (bool, string) {
		out := s.must(t, "get", "events", "--field-selector", "involvedObject.name=ray-gpu")
		return !slices.ContainsFunc([]string{"Pulling", "Pulled", "Created", "Started"}, func(reason string) bool {
			return !strings.Contains(out, reason)
		}), out
	})
}

func trueConditions(pod corev1.Pod) []corev1.PodConditionType {
	var is []corev1.PodConditionType
	for _, c := range pod.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			is = append(is, c.Type)
		}
	}
	return is
}

// testKubectl does what people do with plain kubectl, and reaches a pod of the AI
// node as a Service's endpoint from the ordinary node.
func (s *Story) testKubectl(t *testing.T) {
	ctx := t.Context()
	require.Equal(t, "training\n", s.must(t, "logs", "plain"))
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\S+ training\n$`, s.must(t, "logs", "plain", "--tail=1", "--timestamps"))
	for _, websockets := range []string{"true", "false"} { // SPDY then
		kubectl := func(stdin string, args ...string) (string, error) {
			return s.run(ctx, stdin, false, "env", append([]string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=" + websockets, s.bin("kubectl")}, args...)...)
		}
		_, err := kubectl("", "exec", "plain", "--", "sh", "-c", "exit 7")
		var failed *Failed
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 7, failed.Code, "exec passes the exit code on")

		out, err := kubectl("typed in\n", "exec", "-i", "plain", "--", "cat")
		require.NoError(t, err)
		require.Equal(t, "typed in\n", out)
	}

	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("copied"), 0o600))
	s.must(t, "cp", file, "plain:/tmp/f")
	require.Equal(t, "copied", s.must(t, "exec", "plain", "--", "cat", "/tmp/f"))

	require.Contains(t, s.forwarded(t, "pod/inference-0", 8080), "hello from an AI node")

	address := s.cluster.Machines[0].Address + ":8080"
	eventually(t, 2*time.Minute, "the pod is the Service's endpoint", func() (bool, string) {
		out := s.must(t, "get", "endpointslices", "-l", "kubernetes.io/service-name=inference", "-o",
			"jsonpath={range .items[*]}{.endpoints[*].addresses[*]}:{.ports[*].port}{end}")
		return out == address, out
	})
	s.apply(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"caller"},"spec":{"restartPolicy":"Never","automountServiceAccountToken":false,
"containers":[{"name":"c","image":"`+toolsImage+`","imagePullPolicy":"Never","command":["sh","-c","wget -qO- http://`+address+`/"]}]}}`)
	s.must(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/caller", "--timeout=2m")
	require.Equal(t, "node-1", s.must(t, "get", "pod", "caller", "-o", "jsonpath={.spec.nodeName}"))
	require.Contains(t, s.must(t, "logs", "caller"), "hello from an AI node")
	s.must(t, "delete", "pod", "caller", "--wait=true")

	require.Contains(t, s.must(t, "get", "--raw", "/api/v1/nodes/"+Node+"/proxy/stats/summary"), `"workingSetBytes"`)
	require.Regexp(t, `(?m)^container_cpu_usage_seconds_total\{container="[^"]+",namespace="default",pod="[^"]+"\} [0-9.e+-]+ [0-9]{13}$`,
		s.must(t, "get", "--raw", "/api/v1/nodes/"+Node+"/proxy/metrics/resource"))
	eventually(t, time.Minute, "the node shows its images", func() (bool, string) {
		out := s.must(t, "get", "node", Node, "-o", "jsonpath={.status.images[*].names[0]}")
		return out != "", out
	})
}

// forwarded is what answers at a pod's port through kubectl port-forward.
func (s *Story) forwarded(t *testing.T, pod string, port int) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin("kubectl"), "port-forward", pod, fmt.Sprintf(":%d", port), "--address", "127.0.0.1")
	cmd.Env = s.environment()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }()
	line := make([]byte, 256)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	local := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(string(line[:n]))
	require.NotEmpty(t, local, string(line[:n]))
	response, err := http.Get("http://" + local + "/")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return string(body)
}

// aiPod is a small pod for the AI node; extra goes into its container, spec into
// its spec.
func aiPod(name, extra, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"terminationGracePeriodSeconds":1,
"nodeSelector":{"alibabacloud.com/virtual-node":"true"},%s"containers":[{"name":"c","image":%q,%s
"command":["sh","-c","trap 'exit 0' TERM; while true; do sleep 1; done"]}]}}`, name, spec, toolsImage, extra)
}

func gpus(limits, requests string) string {
	return fmt.Sprintf(`"resources":{"limits":{%s},"requests":{%s}},`, limits, requests)
}

// testRefusals: what does not fit is refused by the API with a sentence, or by the
// node with a status, never left hanging.
func (s *Story) testRefusals(t *testing.T) {
	for name, extra := range map[string]string{
		"half":     gpus(`"nvidia.com/gpu":"0.5"`, ""),
		"negative": gpus(`"nvidia.com/gpu":"-1"`, ""),
		"unequal":  gpus(`"nvidia.com/gpu":"2"`, `"nvidia.com/gpu":"1"`),
	} {
		told := s.applyRefused(t, aiPod(name, extra, ""))
		require.Contains(t, told, "nvidia.com/gpu", name)
		require.Contains(t, told, "gpu", name)
	}
	told := s.applyRefused(t, aiPod("host-path", "", `"volumes":[{"name":"h","hostPath":{"path":"/etc"}}],`))
	require.Contains(t, told, "host-path")

	// nodeName skips the scheduler: the node itself refuses.
	s.apply(t, aiPod("too-many", gpus(`"nvidia.com/gpu":"9"`, ""), `"nodeName":"`+Node+`",`))
	s.waitFailed(t, "too-many", "OutOfnvidia.com/gpu")
	s.apply(t, aiPod("same-port", `"ports":[{"containerPort":8080}],`, `"nodeName":"`+Node+`",`))
	message := s.waitFailed(t, "same-port", "NodePorts")
	require.Contains(t, message, "inference-0", "the refusal names the pod that has the port")

	s.apply(t, strings.Replace(aiPod("no-image", "", ""), toolsImage, s.cluster.Registry.Host+"/no/such:v1", 1))
	eventually(t, 2*time.Minute, "no-image waits", func() (bool, string) {
		reason := s.must(t, "get", "pod", "no-image", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
		return reason == "ErrImagePull" || reason == "ImagePullBackOff", reason
	})

	// Host namespaces are stripped with a warning, and the pod runs.
	out, err := s.run(t.Context(), aiPod("host-net", "", `"hostNetwork":true,`), false, "sh", "-c", s.bin("kubectl")+" apply -f - 2>&1")
	require.NoError(t, err)
	require.Contains(t, out, "Warning: ")
	require.Contains(t, out, "host-network")
	s.must(t, "wait", "--for=condition=Ready", "pod/host-net", "--timeout=2m")
	require.Contains(t, s.must(t, "get", "pod", "host-net", "-o", "yaml"), contract.AdmissionAnnotation)

	s.must(t, "delete", "pod", "too-many", "same-port", "no-image", "host-net", "--wait=true", "--timeout=2m")
}

func (s *Story) waitFailed(t *testing.T, pod, reason string) (message string) {
	t.Helper()
	eventually(t, 2*time.Minute, pod+" is refused", func() (bool, string) {
		out := s.must(t, "get", "pod", pod, "-o", "jsonpath={.status.phase} {.status.reason} {.status.message}")
		message = out
		return strings.HasPrefix(out, "Failed "+reason), out
	})
	return message
}

// testLateConfigMap: a pod whose ConfigMap is missing waits and says so, and
// starts when it comes.
func (s *Story) testLateConfigMap(t *testing.T) {
	s.apply(t, aiPod("late", `"volumeMounts":[{"name":"v","mountPath":"/v"}],"env":[{"name":"K","valueFrom":{"configMapKeyRef":{"name":"late-env","key":"k"}}}],`,
		`"volumes":[{"name":"v","configMap":{"name":"late"}}],`))
	eventually(t, 2*time.Minute, "the missing configmap is told", func() (bool, string) {
		out := s.must(t, "get", "events", "--field-selector", "involvedObject.name=late")
		return strings.Contains(out, "FailedMount") && strings.Contains(out, `"late"`), out
	})
	s.must(t, "create", "configmap", "late", "--from-literal=k=v")
	eventually(t, 2*time.Minute, "the missing env configmap is told", func() (bool, string) {
		out := s.must(t, "get", "pod", "late", "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
		return strings.Contains(out, "CreateContainerConfigError") && strings.Contains(out, "late-env"), out
	})
	s.must(t, "create", "configmap", "late-env", "--from-literal=k=v")
	s.must(t, "wait", "--for=condition=Ready", "pod/late", "--timeout=2m")
	require.Equal(t, "v", s.must(t, "exec", "late", "--", "cat", "/v/k"))
	s.must(t, "patch", "configmap", "late", "--type=merge", "-p", `{"data":{"k":"changed"}}`)
	eventually(t, 90*time.Second, "the mounted configmap follows", func() (bool, string) {
		out := s.must(t, "exec", "late", "--", "cat", "/v/k")
		return out == "changed", out
	})
	s.must(t, "delete", "pod", "late", "--wait=true", "--timeout=2m")
	s.must(t, "delete", "configmap", "late", "late-env")
}

// testRefusedToken: a pod that the webhook was told to leave alone keeps its token
// volume; the node is given no token for it, and the pod says how that is allowed.
func (s *Story) testRefusedToken(t *testing.T) {
	pod := aiPod("token", "", `"nodeName":"`+Node+`",`)
	s.apply(t, strings.Replace(pod, `"metadata":{`, `"metadata":{"labels":{"`+contract.ScheduleLabel+`":"false"},`, 1))
	eventually(t, 2*time.Minute, "the refused token is told", func() (bool, string) {
		out := s.must(t, "get", "events", "--field-selector", "involvedObject.name=token")
		return strings.Contains(out, "FailedMount") && strings.Contains(out, "admission.profile=agent and admission.tokenNamespaces"), out
	})
	s.must(t, "delete", "pod", "token", "--wait=true", "--timeout=2m")
}

// seen is one run of one pod's container.
type seen struct {
	UID, ContainerID string
	Restarts         int32
	Started          time.Time
}

// running is what runs of every pod, which must.
func (s *Story) running(t *testing.T) map[string]seen {
	t.Helper()
	all := map[string]seen{}
	for _, pod := range s.pods(t) {
		c := pod.Status.ContainerStatuses[0]
		require.NotNil(t, c.State.Running, pod.Name)
		all[pod.Name] = seen{string(pod.UID), c.ContainerID, c.RestartCount, c.State.Running.StartedAt.Time}
	}
	return all
}

// testKilledAgent: kill -9 and a new start: the same containers, no restart, no
// status lost; what crashes is restarted; what ends is told.
func (s *Story) testKilledAgent(t *testing.T) {
	ctx := t.Context()
	s.apply(t, strings.Replace(aiPod("crash", "", ""), "trap 'exit 0' TERM; while true; do sleep 1; done", "exit 3", 1))
	eventually(t, 2*time.Minute, "crash backs off", func() (bool, string) {
		out := s.must(t, "get", "pod", "crash", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode}")
		return strings.HasPrefix(out, "CrashLoopBackOff") && strings.HasSuffix(out, " 3"), out
	})
	s.must(t, "delete", "pod", "crash", "--wait=true", "--timeout=2m")

	before := s.running(t)
	require.NoError(t, s.KillAgent(ctx))
	require.NoError(t, s.StartAgent(ctx))
	eventually(t, 2*time.Minute, "the agent answers again", func() (bool, string) {
		out, err := s.Kubectl(ctx, "exec", "plain", "--", "true")
		return err == nil, fmt.Sprint(out, err)
	})
	require.Empty(t, cmp.Diff(before, s.running(t)))

	// It still does its work: a pod starts, another goes, the cards are still theirs.
	s.apply(t, aiPod("after", gpus(`"nvidia.com/gpu":"2"`, ""), ""))
	s.must(t, "wait", "--for=condition=Ready", "pod/after", "--timeout=2m")
	s.must(t, "wait", "--for=jsonpath={.status.gpusInUse}=8", "ainode/"+Node, "--timeout=2m")
	require.Contains(t, s.must(t, "ainode", "list"), "8/8")
	s.must(t, "delete", "pod", "after", "--wait=true", "--timeout=2m")
	eventually(t, 2*time.Minute, "the cards are free", func() (bool, string) {
		out := s.must(t, "ainode", "list")
		return strings.Contains(out, "6/8"), out
	})
}

// testBadInput: one clear sentence, exit code 1, nothing changed.
func (s *Story) testBadInput(t *testing.T) {
	spec := func() string {
		return s.must(t, "get", "ainodes,clusterconfigs", "-o", "jsonpath={range .items[*]}{.metadata.name} {.spec} {.status.boundNodes}{end}")
	}
	before := spec()
	require.Contains(t, s.refused(t, "ainode", "delete-config", Config), Node)
	require.Contains(t, s.refused(t, "ainode", "delete-config", Config), "kubectl ainode unbind "+Node)
	require.Contains(t, s.refused(t, "delete", "clusterconfig", Config), Node, "the API server refuses it too")
	require.Contains(t, s.refused(t, "ainode", "remove", Node), "unbind")
	require.Contains(t, s.refused(t, "ainode", "unbind", "ai-nobody"), "ai-nobody")
	require.Contains(t, s.refused(t, "ainode", "add", "gpu-box"), "ai-")

	// Another config of the same cluster: bound is bound.
	s.must(t, "ainode", "import", "other")
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", "other"), "kubectl ainode unbind "+Node)
	s.must(t, "ainode", "delete-config", "other")

	// A config whose cluster does not answer, and one that is another cluster.
	s.apply(t, `{"apiVersion":"ainode.dev/v1alpha1","kind":"ClusterConfig","metadata":{"name":"foreign"},"spec":{"server":"https://192.0.2.1:6443",
"certificateAuthorityData":"eA==","clusterUID":"00000000-0000-0000-0000-000000000000"}}`)
	s.must(t, "ainode", "add", "ai-idle", "--join-file", filepath.Join(t.TempDir(), "j"))
	require.NotEmpty(t, s.refused(t, "ainode", "bind", "ai-idle", "--to", "foreign"))
	s.must(t, "ainode", "remove", "ai-idle")
	s.must(t, "delete", "clusterconfig", "foreign")
	require.Equal(t, before, spec())
}

// testUnbind gives the machine back: pods go, the node goes, nothing is left on
// the target or the machine, and the config can be deleted.
func (s *Story) testUnbind(t *testing.T) {
	s.must(t, "delete", "deployment", "workers", "--wait=false")
	s.must(t, "ainode", "unbind", Node, "--timeout", "2m")
	require.Contains(t, s.must(t, "ainode", "unbind", Node), "unchanged")
	require.Contains(t, s.refused(t, "get", "node", Node), "not found")
	left := s.must(t, "get", "clusterroles,clusterrolebindings,csr", "-l", contract.NodeNameLabel+"="+Node, "-o", "name")
	for _, line := range strings.Fields(left) {
		require.Contains(t, line, "ainode-agent-", "only the hub's part of the identity stays")
	}
	eventually(t, 2*time.Minute, "the epoch's account is gone", func() (bool, string) {
		out := s.must(t, "get", "serviceaccounts,roles,rolebindings", "-n", contract.SystemNamespace, "-o", "name")
		return !strings.Contains(out, "/ainode-"+Node+"-"), out
	})
	ctr, err := s.quiet(t.Context(), s.bin("ctr"), "--address", s.cluster.Machines[0].ContainerdSocket, "--namespace", "k8s.io", "tasks", "ls", "-q")
	require.NoError(t, err)
	require.Empty(t, strings.TrimSpace(ctr), "a process outlived the unbinding")
	cgroups, err := s.devcluster(t.Context(), false, "exec", machine, "--", "find", "/sys/fs/cgroup/", "-path", "*/ainode/pod*")
	require.NoError(t, err)
	require.Empty(t, cgroups, "a pod's cgroup outlived it")
}

// testRemove takes the config and the machine out of the pool.
func (s *Story) testRemove(t *testing.T) {
	s.must(t, "ainode", "delete-config", Config)
	s.must(t, "ainode", "remove", Node)
	require.Empty(t, s.must(t, "get", "ainodes,clusterconfigs", "-o", "name"))
}
