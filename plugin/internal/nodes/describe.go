package nodes

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
)

// View is all that describe shows of one node. A part that could not be read holds
// the reason instead.
type View struct {
	Record  *v1alpha1.AINode
	Sign    Sign
	SignErr error
	// Node and Pods are the target's; Node is nil where the node is not bound.
	Node      *corev1.Node
	Pods      []corev1.Pod
	TargetErr error
	Now       time.Time
}

// Describe writes the view for a person.
func Describe(out io.Writer, v View) error {
	text := &strings.Builder{}
	w := printers.GetNewTabWriter(text)
	r := v.Record
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
	line("Name", "%s", r.Name)
	line("Status", "%s", since(r, v.Sign, v.Now))
	line("Cluster", "%s", or(r.Spec.ClusterConfigName))
	line("Epoch", "%d", r.Spec.BindEpoch)
	if end := Ending(r, v.Now); end != "" {
		line("Ends", "free at %s", end)
	}
	line("GPUs", "%s%s, %d in use", GPUs(r.Status), Slices(r.Status), r.Status.GPUsInUse)
	line("Address", "%s", address(r))
	if r.Spec.PodCIDR != "" {
		line("Pods' range", "%s", r.Spec.PodCIDR)
	}
	line("Machine", "%s", or(r.Status.Machine.ID))
	line("Boot", "%s", or(r.Status.Machine.BootID))
	line("Key", "%s", fingerprint(r.Status.PublicKey))
	line("Agent", "%s, %s", or(r.Status.AgentVersion), lastSeen(v))
	line("Created", "%s ago", Age(r.CreationTimestamp.Time, v.Now))
	if len(r.Status.GPUs) > 0 {
		fmt.Fprintf(w, "Cards:\n") // before longer words: a UUID takes half of 80 columns
	}
	for _, g := range r.Status.GPUs {
		line(fmt.Sprintf("  %d", g.Index), "%s  %s  %s", g.UUID, strings.TrimPrefix(g.Product, "NVIDIA "), g.Memory.String())
		for _, s := range g.Slices {
			line(fmt.Sprintf("  %d %s", g.Index, s.Profile), "%s", s.UUID)
		}
	}
	fmt.Fprintf(w, "Capacity:\n")
	for _, name := range slices.Sorted(maps.Keys(r.Status.Capacity)) {
		q := r.Status.Capacity[name]
		line("  "+name, "%s", q.String())
	}
	fmt.Fprintf(w, "Conditions:\n")
	for _, c := range r.Status.Conditions {
		line("  "+c.Type, "%s  %s  %s", c.Status, c.Reason, strings.ReplaceAll(c.Message, "\n", " "))
	}
	describeTarget(w, line, v)
	if err := w.Flush(); err != nil {
		return err
	}
	return printers.WriteEscaped(out, text.String())
}

func describeTarget(w io.Writer, line func(string, string, ...any), v View) {
	if v.TargetErr != nil {
		line("Node", "can't be read: %v", v.TargetErr)
		return
	}
	if v.Node == nil {
		line("Node", none)
		return
	}
	state := "NotReady"
	for _, c := range v.Node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			state = "Ready"
		}
	}
	if v.Node.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	line("Node", "%s, kubelet version %s, %s old", state, v.Node.Status.NodeInfo.KubeletVersion, Age(v.Node.CreationTimestamp.Time, v.Now))
	describeCards(w, line, v)
	fmt.Fprintf(w, "Pods:\n")
	for i := range v.Pods {
		p := &v.Pods[i]
		line("  "+p.Namespace+"/"+p.Name, "%s  %s  %s", p.Status.Phase, podGPUs(p), Age(p.CreationTimestamp.Time, v.Now))
	}
}

func podGPUs(p *corev1.Pod) string {
	cards, slices := asked(p)
	count := func(n int64, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	switch {
	case slices == 0:
		return count(cards, "GPU")
	case cards == 0:
		return count(slices, "MIG slice")
	default:
		return count(cards, "GPU") + ", " + count(slices, "MIG slice")
	}
}

func fingerprint(publicKey string) string {
	if publicKey == "" {
		return none
	}
	key, err := handover.ParsePublicKey(publicKey)
	if err != nil {
		return err.Error()
	}
	return key.Fingerprint()
}

func lastSeen(v View) string {
	switch {
	case v.SignErr != nil:
		return fmt.Sprintf("its lease can't be read: %v", v.SignErr)
	case v.Sign.Seen.IsZero():
		return "never seen"
	default:
		return "seen " + Age(v.Sign.Seen, v.Now) + " ago"
	}
}

// address is the one that the machine is reached at, of those that it has.
func address(r *v1alpha1.AINode) string {
	text := or(r.Status.Address)
	if len(r.Status.Addresses) > 1 {
		text += " (of " + strings.Join(r.Status.Addresses, ", ") + ")"
	}
	return text
}
