package contract_test

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

// FuzzEvaluate: whatever comes in, there is no panic, the patch fits, twice is
// once, warnings keep their limits, and a refusal brings no patch.
//
//	go test ./api/contract -run '^$' -fuzz FuzzEvaluate -fuzztime 1m
func FuzzEvaluate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte, optedIn, restricted, agent bool) {
		request := asked(optedIn, restricted, agent)
		before := judge(t, raw, request)
		if before == nil || len(before.Patch) == 0 {
			return
		}
		after := judge(t, applyRaw(t, raw, before), request)
		if after == nil {
			t.Fatalf("the patched pod can't be read any more: %s", raw)
		}
		if len(after.Patch) > 0 && !after.Denied() {
			t.Fatalf("the second pass changes something: %v\n%s", after.Patch, raw)
		}
	})
}

// FuzzStrip: the two halves of Evaluate find what it finds, and each half's patch
// fits and is enough.
func FuzzStrip(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte, optedIn, restricted, agent bool) {
		request := asked(optedIn, restricted, agent)
		whole := judge(t, raw, request)
		if whole == nil {
			return
		}
		found := 0
		for name, half := range map[string]func(contract.Request) (contract.Verdict, error){
			"place": contract.Request.Place, "strip": contract.Request.Strip,
		} {
			run := func(raw []byte) contract.Verdict {
				pod, err := contract.Decode(raw)
				if err != nil {
					t.Fatalf("%s: the patched pod can't be read any more: %v", name, err)
				}
				request := request
				request.Pod = pod
				v, err := half(request)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			v := run(raw)
			found += len(v.Findings)
			if len(v.Patch) == 0 {
				continue
			}
			if again := run(applyRaw(t, raw, &v)); len(again.Patch) > 0 {
				t.Fatalf("%s: the second pass changes something: %v\n%s", name, again.Patch, raw)
			}
		}
		if found != len(whole.Findings) {
			t.Fatalf("place and strip find %d things, evaluate %d: %s", found, len(whole.Findings), raw)
		}
	})
}

// FuzzDecode: what the API server's own types can hold is read, and read alike.
func FuzzDecode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte, _, _, _ bool) {
		typed := typedPod(raw)
		if typed == nil {
			_, _ = contract.Decode(raw)
			return
		}
		pod, err := contract.FromPod(typed)
		if err != nil {
			t.Fatalf("the API server reads this pod, we do not: %v\n%s", err, raw)
		}
		agree(t, typed, pod)
	})
}

// FuzzPatch: a pod of the API server's types is still one after the patch.
func FuzzPatch(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte, optedIn, restricted, agent bool) {
		typed := typedPod(raw)
		if typed == nil {
			return
		}
		typed.Spec.NodeName = "ai-a"
		raw, err := json.Marshal(typed)
		if err != nil {
			return // a quantity or a time that can't be written
		}
		v := judge(t, raw, asked(optedIn, restricted, agent))
		if v == nil || len(v.Patch) == 0 {
			return
		}
		var after corev1.Pod
		if err := utiljson.Unmarshal(applyRaw(t, raw, v), &after); err != nil {
			t.Fatalf("the patched pod is none: %v\n%s", err, raw)
		}
		if after.Spec.HostNetwork || after.Spec.HostPID || after.Spec.HostIPC {
			t.Fatalf("host access is left: %s", raw)
		}
		if len(after.Spec.Containers) != len(typed.Spec.Containers) || len(after.Spec.InitContainers) != len(typed.Spec.InitContainers) {
			t.Fatalf("a container is lost: %s", raw)
		}
		agree(t, &after, must(contract.FromPod(&after)))
	})
}

// farAway are exponents that Kubernetes' own decoder would work at for minutes, and
// JSON's escapes for their characters.
var farAway = regexp.MustCompile(`(?i)e[+-]?0*[1-9][0-9]{3}|\\u00[2346]`)

// typedPod is raw in the API server's own types; nil where they can't hold it.
func typedPod(raw []byte) *corev1.Pod {
	var typed corev1.Pod
	if farAway.Match(raw) || utiljson.Unmarshal(raw, &typed) != nil {
		return nil
	}
	return &typed
}

func must(pod *contract.Pod, err error) *contract.Pod {
	if err != nil {
		panic(err)
	}
	return pod
}

// agree compares what the rules see of a pod with the pod's own types.
func agree(t *testing.T, typed *corev1.Pod, pod *contract.Pod) {
	t.Helper()
	same := func(what string, want, got any) {
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s differs (-typed +read):\n%s", what, diff)
		}
	}
	spec := &typed.Spec
	same("labels", typed.Labels, pod.Metadata.Labels)
	same("annotations", typed.Annotations, pod.Metadata.Annotations)
	same("nodeName", spec.NodeName, pod.Spec.NodeName)
	same("nodeSelector", spec.NodeSelector, pod.Spec.NodeSelector)
	same("tolerations", spec.Tolerations, pod.Spec.Tolerations)
	same("host access", [3]bool{spec.HostNetwork, spec.HostPID, spec.HostIPC}, [3]bool{pod.Spec.HostNetwork, pod.Spec.HostPID, pod.Spec.HostIPC})
	same("automount", spec.AutomountServiceAccountToken, pod.Spec.AutomountServiceAccountToken)
	same("runtimeClassName", spec.RuntimeClassName, pod.Spec.RuntimeClassName)
	same("dnsPolicy", string(spec.DNSPolicy), pod.Spec.DNSPolicy)
	same("volumes", len(spec.Volumes), len(pod.Spec.Volumes))
	for i, v := range spec.Volumes {
		read := pod.Spec.Volumes[i]
		same("volume's name", v.Name, read.Name)
		same("volume's sources", []bool{v.EmptyDir != nil || v.HostPath != nil || v.Projected != nil || v.Secret != nil || read.Source != "",
			v.EmptyDir != nil && read.Source == "secret"}, []bool{read.Source != "", false})
		if v.Projected != nil && read.Source == "projected" {
			same("projected sources", len(v.Projected.Sources), len(read.Projected))
		}
	}
	same("containers", [2]int{len(spec.InitContainers), len(spec.Containers)}, [2]int{len(pod.Spec.InitContainers), len(pod.Spec.Containers)})
	for i := range spec.Containers {
		c, read := &spec.Containers[i], pod.Spec.Containers[i]
		same("container's name", c.Name, read.Name)
		same("command", c.Command, read.Command)
		same("args", c.Args, read.Args)
		same("mounts", len(c.VolumeMounts), len(read.VolumeMounts))
		for m := range c.VolumeMounts {
			same("mount", c.VolumeMounts[m].Name+c.VolumeMounts[m].MountPath, read.VolumeMounts[m].Name+read.VolumeMounts[m].MountPath)
		}
		for p := range c.Ports {
			same("hostPort", c.Ports[p].HostPort, read.Ports[p].HostPort)
		}
		for name := range c.Resources.Limits {
			_, kept := read.Resources.Limits[string(name)]
			same("limit "+string(name), contract.IsGPUResource(name), kept)
		}
	}
}

func asked(optedIn, restricted, agent bool) contract.Request {
	request := contract.Request{Namespace: contract.Namespace{OptedIn: optedIn, Restricted: restricted}}
	if agent {
		request.Policy.Profile = contract.ProfileAgent
	}
	return request
}

// seed adds every fixture; what a fuzzer once found stands below testdata/fuzz.
func seed(f *testing.F) {
	f.Helper()
	all, err := contracttest.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, fixture := range all {
		f.Add(fixture.JSON, false, false, false)
		f.Add(fixture.JSON, true, true, true)
	}
	f.Add([]byte(`{"metadata":null,"spec":{"containers":[null],"volumes":[null,{"name":"a"},{"name":"a"}],"nodeName":"ai-a"}}`), false, false, false)
}

func judge(t *testing.T, raw []byte, request contract.Request) *contract.Verdict {
	pod, err := contract.Decode(raw)
	if err != nil || !contract.Targets(pod, request.Namespace) {
		return nil
	}
	request.Pod = pod
	v, err := request.Evaluate()
	if err != nil {
		t.Fatal(err)
	}
	if v.Denied() && (len(v.Patch) > 0 || v.Refusal() == "") {
		t.Fatalf("refused with a patch or without a word: %s", raw)
	}
	total := 0
	for _, w := range v.Warnings() {
		n := len([]rune(w))
		if total += n; n > 256 {
			t.Fatalf("a warning of %d runes: %s", n, w)
		}
	}
	if total > 4096 {
		t.Fatalf("warnings of %d runes", total)
	}
	return &v
}

func applyRaw(t *testing.T, raw []byte, v *contract.Verdict) []byte {
	ops, err := json.Marshal(v.Patch)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply(raw)
	if err != nil {
		t.Fatalf("the patch %s does not fit %s: %v", ops, raw, err)
	}
	return after
}
