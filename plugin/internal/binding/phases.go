package binding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// errTold ends a phase of which all has been told.
var errTold = errors.New("told")

// phase is one thing that bind waits for.
type phase struct {
	// done is what is told when it has come to pass, waiting what was not seen.
	done, waiting string
	wait          func(context.Context) error
	// hint is what is made of the answer that was seen last, if any, and what to look at.
	hint func(ctx context.Context, record *v1alpha1.AINode, last error) (why string, next []step)
}

// step is what to do next, and the command for it.
type step struct{ say, command string }

// lookAt is a hint that does not depend on what was seen.
func lookAt(say, command string) func(context.Context, *v1alpha1.AINode, error) (string, []step) {
	return func(context.Context, *v1alpha1.AINode, error) (string, []step) { return "", []step{{say, command}} }
}

// Wait waits until the node serves: its machine has the credential, the Node
// stands, is Ready, and answers through the API server.
func (w *Walk) Wait(ctx context.Context, p *Plan, epoch int64) error {
	ctx, cancel := w.patience(ctx)
	defer cancel()
	onMachine := lookAt("Look at it on the machine", "journalctl -u ainode-agent -n 50")
	phases := []phase{
		{"credential taken over", "its agent has not taken over the credential", func(ctx context.Context) error { return w.waitTaken(ctx, p, epoch) }, onMachine},
	}
	if p.renewal {
		// As soon as nobody acts with them: a renewal may be the answer to a theft.
		phases = append(phases, phase{"accounts of earlier epochs removed: their tokens are good for ten seconds at most", "the accounts of earlier epochs are not removed",
			func(ctx context.Context) error { return w.removeIdentities(ctx, p.Node, epoch-1) }, nil})
	}
	phases = append(phases, []phase{
		{"node registered", "the node is not registered", func(ctx context.Context) error {
			return w.waitNode(ctx, p.Node, func(n *corev1.Node) bool {
				return n.Annotations[contract.BindEpochAnnotation] == strconv.FormatInt(epoch, 10)
			}, func() error { return w.restore(ctx, p.Node) })
		}, onMachine},
		{"node Ready", "the node is not Ready", func(ctx context.Context) error { return w.waitNode(ctx, p.Node, ready, nil) },
			lookAt("See why", "kubectl describe node "+p.Node)},
		{"logs and exec answer through the API server", "the node does not answer the API server on port 10250",
			func(ctx context.Context) error { return w.waitHealthz(ctx, p.Node) },
			func(ctx context.Context, record *v1alpha1.AINode, last error) (string, []step) {
				return w.unanswered(ctx, p, record, last)
			}},
	}...)
	if !p.Pods.IsZero() {
		phases = append(phases, phase{"an address of its pods is answered by the API server", "the machine has not tried its pods' network",
			func(ctx context.Context) error { return w.waitAnswered(ctx, p, epoch) }, onMachine})
	}
	for i, ph := range phases {
		err := ph.wait(ctx)
		if errors.Is(err, errTold) {
			continue
		}
		if err != nil {
			return w.late(p, ph, fmt.Sprintf("[%d/%d]", i+1, len(phases)), err)
		}
		w.Progress.Line(p.Node, "[%d/%d] %s", i+1, len(phases), ph.done)
	}
	return nil
}

// late says in which phase the time was up, what the agent says, and what to do.
func (w *Walk) late(p *Plan, ph phase, at string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return remedy.New(p.onward(), p.command(), "interrupted in phase %s: %s", at, ph.waiting)
	case !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %w", at, ph.waiting, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	text := fmt.Sprintf("timed out after %s in phase %s: %s", w.Timeout, at, ph.waiting)
	var last error
	if late := (&notYet{}); errors.As(err, &late) {
		last = late.last
	}
	record, err := w.Hub.AINode(ctx, p.Node)
	if err != nil {
		record = nil
	}
	if last != nil && !errors.Is(last, context.DeadlineExceeded) {
		text += ": " + last.Error()
	}
	var next []step
	if ph.hint != nil {
		var why string
		if why, next = ph.hint(ctx, record, last); why != "" {
			text += "\n  " + why
		}
	}
	if record != nil {
		text += w.says(ctx, record)
	}
	told := errors.New(text)
	for _, n := range append(next, step{p.onward(), p.command()}) {
		told = &remedy.Error{Err: told, Say: n.say, Command: n.command}
	}
	return told
}

// onward says what becomes of a binding that nobody waits for.
func (p *Plan) onward() string {
	if p.renewal {
		return "Its pods run on; go on with" // the earlier accounts are removed by nobody else
	}
	return "The binding goes on by itself; wait for it again"
}

// says are the agent's own words about what is wrong.
func (w *Walk) says(ctx context.Context, record *v1alpha1.AINode) string {
	var lines []string
	if sign, err := w.sign(ctx, record.Name); err == nil && !sign.Alive(w.Clock.Now()) {
		lines = append(lines, "its agent shows no sign of life")
	}
	lines = append(lines, "its agent reports "+string(record.Status.BindStatus))
	for _, c := range record.Status.Conditions {
		bad := c.Status == metav1.ConditionFalse
		if c.Type == v1alpha1.ConditionConflict {
			bad = c.Status == metav1.ConditionTrue
		}
		if bad {
			lines = append(lines, fmt.Sprintf("%s=%s (%s): %s", c.Type, c.Status, c.Reason, c.Message))
		}
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

func (w *Walk) waitTaken(ctx context.Context, p *Plan, epoch int64) error {
	_, err := kube.Until(ctx, w.Hub.WatchedAINode(p.Node), func(r *v1alpha1.AINode) (bool, error) {
		switch {
		case r == nil:
			return false, fmt.Errorf("AI node %q was removed meanwhile", p.Node)
		case r.Spec.ClusterConfigName != p.Config || r.Spec.BindEpoch != epoch:
			return false, fmt.Errorf("AI node %q was unbound or renewed meanwhile", p.Node)
		}
		return taken(r) && !refused(r), nil
	})
	return err
}

func (w *Walk) waitNode(ctx context.Context, name string, done func(*corev1.Node) bool, then func() error) error {
	_, err := kube.Until(ctx, kube.WatchedNode(w.Target.Core, name), func(n *corev1.Node) (bool, error) {
		return n != nil && done(n), nil
	})
	if err == nil && then != nil {
		err = then()
	}
	return err
}

// restore puts back the contract's label and taint where somebody has taken them
// away: ordinary pods would come, and the node itself may change neither.
func (w *Walk) restore(ctx context.Context, name string) error {
	nodes := w.Target.Core.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read node %q: %w", name, err)
		}
		labels := map[string]string{contract.NodeLabel: contract.NodeLabelValue, contract.TypeLabel: contract.TypeLabelValue}
		tainted := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { taint := contract.Taint(); return t.MatchTaint(&taint) })
		labelled := true
		for key, value := range labels {
			labelled = labelled && node.Labels[key] == value
		}
		if tainted && labelled {
			return nil
		}
		patch := map[string]any{"metadata": map[string]any{"labels": labels, "resourceVersion": node.ResourceVersion}}
		if !tainted {
			patch["spec"] = map[string]any{"taints": append(node.Spec.Taints, contract.Taint())}
		}
		raw, err := json.Marshal(patch)
		if err != nil {
			return fmt.Errorf("encode a patch: %w", err)
		}
		w.Progress.Warn(name, "its label or taint was gone and is put back")
		_, err = nodes.Patch(ctx, name, types.MergePatchType, raw, metav1.PatchOptions{})
		return err
	})
}

// silence is how long a node must have said nothing for that to be an answer: the time is
// up mostly in the middle of asking.
const silence = 5 * time.Second

// waitHealthz asks the node through the API server, as kubectl logs does. There is
// nothing to watch: the certificate comes, and then the door opens.
func (w *Walk) waitHealthz(ctx context.Context, node string) error {
	pause := 100 * time.Millisecond
	last := errors.New("there was no time left to ask it")
	for heard := false; ; {
		began := w.Clock.Now()
		err := w.Target.Healthz(ctx, node)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			last, heard = err, true
		case !heard && w.Clock.Since(began) >= silence:
			last = context.DeadlineExceeded
		}
		timer := w.Clock.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return &notYet{ended: ctx.Err(), last: last}
		case <-timer.C():
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// notYet is the end of a waiting, with the answer that was seen last.
type notYet struct{ ended, last error }

func (n *notYet) Error() string { return n.last.Error() }
func (n *notYet) Unwrap() error { return n.ended }
