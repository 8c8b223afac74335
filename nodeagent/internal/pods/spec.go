package pods

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/admission"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/images"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// logDirectory holds the logs of the pod's containers.
func (m *Manager) logDirectory(pod *corev1.Pod) string { return crispec.LogDirectory(m.o.LogDir, pod) }

// resolv is what the machine's resolv.conf says.
func (m *Manager) resolv() crispec.NodeResolv {
	dns := m.o.DNS()
	return crispec.NodeResolv{Nameservers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()}
}

// tellNames says what of the pod's names it does not get.
func (w *worker) tellNames(pod *corev1.Pod) {
	_, omitted := crispec.DNS(pod, w.m.resolv())
	for _, what := range omitted {
		w.tellOnce(pod, eventDNSConfig, what)
	}
	if ask := pod.Spec.SetHostnameAsFQDN; ask != nil && *ask && w.m.shared() {
		w.tellOnce(pod, admission.NotSupported, "setHostnameAsFQDN: pods on this node share the machine's address and host name; "+
			"the full name is in $HOSTNAME and /etc/hosts, the host name is the machine's")
	}
}

func (w *worker) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	resolv, _ := crispec.DNS(pod, w.m.resolv())
	hostname, err := crispec.FullHostname(pod, w.m.o.ClusterDomain)
	if err != nil {
		return nil, err
	}
	return crispec.Sandbox(pod, crispec.SandboxOptions{
		Epoch: w.m.o.Epoch, LogDirectory: w.m.logDirectory(pod), CgroupParent: w.m.o.CgroupParent,
		Hostname: hostname, DNS: resolv, Network: w.m.o.Network, Attempt: attempt,
	})
}

func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, attempt uint32, p prepared, mounts []*runtimeapi.Mount) (*runtimeapi.ContainerConfig, error) {
	cards := w.cards[c.Name]
	asked := 0
	for _, n := range gpuallocation.DevicesOf(c) {
		asked += n
	}
	if len(cards) != asked {
		return nil, fmt.Errorf("the container asks for %d GPUs and %d are known to be its own: delete the pod to have it placed anew", asked, len(cards))
	}
	devices, visible, err := w.inject(cards)
	if err != nil {
		return nil, err
	}
	memory := w.m.o.Node().Status.Capacity[corev1.ResourceMemory]
	o := crispec.ContainerOptions{
		ImageRef: p.imageRef, Env: p.env, Mounts: mounts, Target: p.target, GPUs: cards, CDIDevices: devices, VisibleDevices: visible,
		Attempt: attempt, CgroupParent: w.m.o.CgroupParent, Network: w.m.o.Network, NodeMemory: memory.Value(),
	}
	if crispec.NonRoot(pod, c, nil, "") != nil {
		// Only the image can tell whether this container is allowed: one more call,
		// which nobody else has to wait for.
		if o.ImageUID, o.ImageUsername, err = w.m.o.Images.User(ctx, p.imageRef); err != nil {
			return nil, err
		}
	}
	return crispec.Container(pod, c, o)
}

// imageFailed is why a container has no image; its event has been published.
func imageFailed(err error) error {
	var pull *images.PullError
	if errors.As(err, &pull) {
		step := &startError{waiting: podstatus.Waiting{Reason: pull.Reason, Message: pull.Message}, silent: true, err: err}
		if pull.Reason == images.ImagePullBackOff { // only then it has been said that there is one
			step.until = pull.Until
		}
		return step
	}
	return stepFailed(podstatus.ErrImagePull, err)
}

// epochOf is the binding that the pod belongs to, and whether it is this agent's
// at all.
func epochOf(pod *cri.Pod) (epoch int64, ours bool) {
	for _, s := range pod.Sandboxes {
		if _, recorded := s.Annotations[crispec.AnnotationEpoch]; !recorded {
			continue
		}
		if info, err := crispec.ParseSandbox(s.Labels, s.Annotations); err == nil {
			return info.Epoch, true
		}
	}
	return 0, false
}

// cardsOf are the cards recorded on a container.
func cardsOf(c *runtimeapi.ContainerStatus) []string {
	info, err := crispec.ParseContainer(c.Labels, c.Annotations)
	if err != nil {
		return nil
	}
	return info.GPUs
}
