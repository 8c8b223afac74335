package binding

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/drain"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// unbind walks a node out of its binding: no new pods, pods away, the machine lets
// go, and what stood for it on the target is removed.
func (w *Walk) unbind(ctx context.Context, l *Leaving, reached func(string)) error {
	waiting, cancel := w.patience(ctx)
	defer cancel()
	if l.record.Spec.ClusterConfigName != "" {
		err := w.empty(ctx, waiting, l, reached)
		if errors.Is(err, errReleased) {
			w.Progress.Line(l.Node, "its binding was ended meanwhile, by another unbind or because its end has come")
			err = nil
		}
		if err != nil {
			return err
		}
	} else if nodes.Outdated(l.record) && l.config == nil {
		w.Progress.Warn(l.Node, "its record does not know which cluster it serves, and what stands for it there stays. "+
			"To have it removed too, stop this and let the record learn it:  kubectl ainode bind %s --to CONFIG", l.Node)
	}
	if l.record.Spec.ClusterConfigName != "" || nodes.Outdated(l.record) {
		if err := w.letGo(ctx, l, true); err != nil {
			return err
		}
	}
	reached("in phase [3/4]; its machine stops everything by itself")
	if l.options.NoWait {
		return nil
	}
	if err := w.waitReleased(waiting, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[3/4] machine released")
	reached("in phase [4/4]; its machine has let go, what stands for it on the target is not all removed")
	if err := w.cleanUp(ctx, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[4/4] node and identity removed from %q", l.Config)
	return nil
}

// empty keeps new pods off a bound node, and sends those there away.
func (w *Walk) empty(ctx, waiting context.Context, l *Leaving, reached func(string)) error {
	if err := w.wantDrained(ctx, l); err != nil {
		return err
	}
	reached(fmt.Sprintf("in phase [1/4]; it is still bound to %q, and perhaps cordoned", l.Config))
	if err := w.cordon(ctx, l.Node, true); err != nil {
		return err
	}
	// Who calls it off takes the cordon away: where that came first, it is done once more.
	if err := w.look(ctx, l); errors.Is(err, errCalledOff) {
		return errors.Join(err, w.cordon(ctx, l.Node, false))
	} else if err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[1/4] cordoned")
	reached(fmt.Sprintf("in phase [2/4]; it is still bound to %q, cordoned, and some of its pods may be evicted", l.Config))
	if !serves(l.record) {
		// Nobody there would notice an eviction: the release ends the pods, in their grace.
		w.Progress.Warn(l.Node, "its agent does not serve this binding; its pods are not evicted, they end with the release")
		return nil
	}
	if err := w.drain(waiting, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[2/4] drained")
	return nil
}

// wantDrained writes into the record that its node is to be drained. Where somebody else
// has let go of it already, it says so and writes nothing.
func (w *Walk) wantDrained(ctx context.Context, l *Leaving) error {
	var over error
	record, err := w.edit(ctx, l.Node, func(r *v1alpha1.AINode) (bool, error) {
		if over = l.same(r); over == nil && r.Spec.ClusterConfigName == "" {
			over = errReleased
		}
		if over != nil {
			return false, nil
		}
		change := !r.Spec.Draining
		r.Spec.Draining = true
		return change, nil
	})
	if err == nil {
		err = over
	}
	if err != nil {
		return err
	}
	l.epoch = max(l.epoch, record.Spec.BindEpoch) // renewed since it was looked at
	return nil
}

// serves reports whether the agent looks after the pods of this binding.
func serves(record *v1alpha1.AINode) bool {
	return holds(record) && record.Status.BindStatus != v1alpha1.Binding && !refused(record)
}

// letGo is the release: with it the agent stops every pod and wipes the credential. It
// is of the epoch that the machine serves, also where a restored hub has lost it. It is
// refused where another binding stands in the record by now and, if drained says that the
// pods had to go first, where somebody has called that off.
func (w *Walk) letGo(ctx context.Context, l *Leaving, drained bool) error {
	var over error
	record, err := w.edit(ctx, l.Node, func(r *v1alpha1.AINode) (bool, error) {
		over = l.same(r)
		if drained && over == nil && r.Spec.ClusterConfigName != "" {
			over = l.drains(r)
		}
		if over != nil {
			return false, nil
		}
		change := r.Spec.ClusterConfigName != "" || r.Spec.Draining || nodes.Outdated(r)
		r.Spec.BindEpoch = max(r.Spec.BindEpoch, r.Status.ObservedEpoch)
		release(&r.Spec)
		return change, nil
	})
	if err == nil {
		err = over
	}
	if err != nil {
		return err
	}
	l.epoch = max(l.epoch, record.Spec.BindEpoch)
	return nil
}

// release takes out of a record all that was wanted of a binding. The epoch stays: no
// later binding has it again.
func release(spec *v1alpha1.AINodeSpec) {
	*spec = v1alpha1.AINodeSpec{BindEpoch: spec.BindEpoch}
}

func (w *Walk) waitReleased(ctx context.Context, l *Leaving) error {
	record, err := kube.Until(ctx, w.Hub.WatchedAINode(l.Node), func(r *v1alpha1.AINode) (bool, error) {
		switch {
		case r == nil:
			return false, fmt.Errorf("AI node %q was removed meanwhile", l.Node)
		case r.Spec.ClusterConfigName != "" || r.Spec.BindEpoch != l.epoch:
			return false, fmt.Errorf("AI node %q was bound again meanwhile", l.Node)
		}
		return r.Released(), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		fresh, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		text := fmt.Sprintf("timed out after %s: the machine of AI node %q has not stopped everything yet", w.Timeout, l.Node)
		if record != nil {
			text += w.says(fresh, record)
		}
		return remedy.New("It goes on by itself; finish with", l.again(), "%s", text)
	}
	return err
}

// cordon keeps new pods off the node, or lets them come again.
func (w *Walk) cordon(ctx context.Context, name string, on bool) error {
	node, err := w.Target.Core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node %q: %w", name, err)
	}
	helper := drain.NewCordonHelper(node)
	if !helper.UpdateIfRequired(on) {
		return nil
	}
	err, patchErr := helper.PatchOrReplaceWithContext(ctx, w.Target.Core, w.DryRun)
	if err = errors.Join(err, patchErr); err != nil {
		return fmt.Errorf("cordon node %q: %w", name, err)
	}
	return nil
}

// drain sends the pods away, by eviction unless told otherwise. What a pod keeps on
// the machine goes with the binding in any case, and a pod that nobody manages is
// not made again: both are told, and stop nothing.
func (w *Walk) drain(ctx context.Context, l *Leaving) error {
	attended, look, stop := w.attend(ctx, l)
	defer stop()
	err := w.sendAway(attended, l, look)
	if over := context.Cause(attended); err != nil && over != nil && ctx.Err() == nil {
		return over
	}
	return err
}

// sendAway does it; look is called before each eviction.
func (w *Walk) sendAway(ctx context.Context, l *Leaving, look func()) error {
	node := l.Node
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Second)
	}
	firm := l.options
	firm.DisableEviction = true
	off := "kubectl ainode bind " + node + " --to " + l.Config
	held := &budgets{first: func() {
		w.Progress.Line(node, "disruption budgets hold pods up. To ask them no more, interrupt this and type:  %s", l.command(firm))
		w.Progress.Line(node, "Or call it off:  %s", off)
	}}
	helper := &drain.Helper{
		Ctx: ctx, Client: held.asked(w.Target.Core), Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		GracePeriodSeconds: l.options.GracePeriodSeconds, DisableEviction: l.options.DisableEviction,
		Timeout: timeout, EvictErrorRetryDelay: 2 * time.Second,
		Out: io.Discard, ErrOut: w.Progress.Lines(node),
		OnPodDeletionOrEvictionStarted: func(*corev1.Pod, bool) { look() },
		OnPodDeletionOrEvictionFinished: func(pod *corev1.Pod, evicted bool, err error) {
			if err != nil {
				return
			}
			what := "deleted"
			if evicted {
				what = "evicted"
			}
			w.Progress.Line(node, "pod %s/%s %s", pod.Namespace, pod.Name, what)
		},
	}
	list, errs := helper.GetPodsForDeletion(node)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("list the pods of node %q: %w", node, err)
	}
	pods := list.Pods()
	if len(pods) == 0 {
		return nil
	}
	w.Progress.Line(node, "%d %s to go%s", len(pods), plural(len(pods), "pod"), unmanaged(pods))
	if err := helper.DeleteOrEvictPods(pods); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("timed out after %s; not gone yet: %s", w.Timeout, remaining(helper, held, node))
		}
		err = &remedy.Error{
			Err: remedy.New("Go on", l.again(), "drain node %q: %w", node, err),
			Say: "Go on without asking disruption budgets", Command: l.command(firm),
		}
		return &remedy.Error{Err: err, Say: "Or call it off", Command: off}
	}
	return nil
}

// remaining names the pods that are still there, some of them, and what holds them.
func remaining(helper *drain.Helper, held *budgets, node string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	helper.Ctx = ctx
	list, errs := helper.GetPodsForDeletion(node)
	if len(errs) > 0 {
		return errors.Join(errs...).Error()
	}
	var names []string
	for _, pod := range list.Pods() {
		name := pod.Namespace + "/" + pod.Name
		text := "pod " + name
		if by := held.holding(name); by != "" {
			text += " (" + by + ")"
		}
		names = append(names, text)
	}
	if more := len(names) - 5; more > 0 {
		names = append(names[:5], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// unmanaged tells how many pods nobody makes again.
func unmanaged(pods []corev1.Pod) string {
	alone := 0
	for i := range pods {
		if metav1.GetControllerOf(&pods[i]) == nil {
			alone++
		}
	}
	if alone == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d of them managed by nobody, not made again elsewhere)", alone)
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
