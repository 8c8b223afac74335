package binding

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Leaving is a node on its way out of a binding.
type Leaving struct {
	Node string
	// Config is what it is, or was, bound to; empty if nothing lists it.
	Config string
	// Done is true if nothing is left to be done.
	Done bool

	record *v1alpha1.AINode
	config *v1alpha1.ClusterConfig
	epoch  int64
	// released: the machine has nothing of the binding any more.
	released bool
}

// CheckLeaving reads how far a node is out of its binding. It changes nothing and
// reads the hub only.
func (w *Walk) CheckLeaving(ctx context.Context, node string) (*Leaving, error) {
	record, err := w.record(ctx, node)
	if err != nil {
		return nil, err
	}
	configs, err := w.Hub.ClusterConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list configs: %w", err)
	}
	l := &Leaving{Node: node, Config: record.Spec.ClusterConfigName, record: record, epoch: record.Spec.BindEpoch, released: nodes.Released(record)}
	if listed := configsOf(configs.Items, node); l.Config == "" && len(listed) > 0 {
		l.Config = listed[0]
	}
	for i := range configs.Items {
		if configs.Items[i].Name == l.Config {
			l.config = &configs.Items[i]
		}
	}
	l.Done = l.Config == "" && l.released
	if l.Config != "" && l.config == nil {
		return nil, remedy.New("Import the cluster again under that name", "kubectl ainode import "+l.Config,
			"AI node %q is bound to %q, a config that is not there any more", node, l.Config)
	}
	return l, nil
}

// CheckUnbind fails if the target is another cluster, or if nobody is there who
// would stop the pods.
func (w *Walk) CheckUnbind(ctx context.Context, l *Leaving) error {
	if l.config != nil {
		if err := w.sameCluster(ctx, l.config); err != nil {
			return err
		}
	}
	if l.released {
		return nil
	}
	sign, err := w.sign(ctx, l.Node)
	if err != nil {
		return err
	}
	if now := w.Clock.Now(); !sign.Alive(now) {
		return &remedy.Error{
			Err: &remedy.Error{
				Err: fmt.Errorf("AI node %q is lost: its agent, which has to stop the pods, was seen last %s ago", l.Node, nodes.Age(sign.Seen, now)),
				Say: "Start it there", Command: "systemctl start ainode-agent",
			},
			Say: "Only if the machine is gone for good", Command: "kubectl ainode unbind " + l.Node + " --force",
		}
	}
	return nil
}

// UnbindOptions are how pods are sent away.
type UnbindOptions struct {
	// DisableEviction deletes pods rather than evicting them: disruption budgets are
	// not asked.
	DisableEviction bool
	// GracePeriodSeconds for each pod; negative leaves it to the pod.
	GracePeriodSeconds int
}

// Unbind walks a node out of its binding: no new pods, pods away, the machine lets
// go, and what stood for it on the target is removed.
func (w *Walk) Unbind(ctx context.Context, l *Leaving, o UnbindOptions) error {
	waiting, cancel := w.patience(ctx)
	defer cancel()
	if l.record.Spec.ClusterConfigName != "" {
		if _, err := w.edit(ctx, l.Node, func(r *v1alpha1.AINode) (bool, error) {
			change := r.Spec.ClusterConfigName != "" && !r.Spec.Draining
			r.Spec.Draining = r.Spec.ClusterConfigName != ""
			return change, nil
		}); err != nil {
			return err
		}
		if err := w.cordon(ctx, l.Node, true); err != nil {
			return err
		}
		w.Progress.Line(l.Node, "[1/4] cordoned")
		if serves(l.record, l.epoch) {
			if err := w.drain(waiting, l.Node, o); err != nil {
				return err
			}
			w.Progress.Line(l.Node, "[2/4] drained")
		} else {
			// Nobody there would notice an eviction: the release ends the pods, in their grace.
			w.Progress.Warn(l.Node, "its agent does not serve this binding; its pods are not evicted, they end with the release")
		}
		if err := w.letGo(ctx, l.Node); err != nil {
			return err
		}
	}
	if err := w.waitReleased(waiting, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[3/4] machine released")
	if err := w.cleanUp(ctx, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[4/4] node and identity removed from %q", l.Config)
	return nil
}

// serves reports whether the agent looks after the pods of this epoch.
func serves(record *v1alpha1.AINode, epoch int64) bool {
	at := record.Status.BindStatus == v1alpha1.Bound || record.Status.BindStatus == v1alpha1.Draining
	return at && record.Status.ObservedEpoch == epoch && !refused(record)
}

// letGo is the release: with it the agent stops every pod and wipes the credential.
func (w *Walk) letGo(ctx context.Context, node string) error {
	_, err := w.edit(ctx, node, func(r *v1alpha1.AINode) (bool, error) {
		change := r.Spec.ClusterConfigName != "" || r.Spec.Draining
		r.Spec.ClusterConfigName, r.Spec.Draining, r.Spec.NodeLabels = "", false, nil
		return change, nil
	})
	return err
}

func (w *Walk) waitReleased(ctx context.Context, l *Leaving) error {
	record, err := kube.Until(ctx, w.Hub.WatchedAINode(l.Node), func(r *v1alpha1.AINode) (bool, error) {
		switch {
		case r == nil:
			return false, fmt.Errorf("AI node %q was removed meanwhile", l.Node)
		case r.Spec.ClusterConfigName != "" || r.Spec.BindEpoch != l.epoch:
			return false, fmt.Errorf("AI node %q was bound again meanwhile", l.Node)
		}
		return nodes.Released(r), nil
	})
	if errors.Is(err, context.Canceled) {
		return remedy.New("It goes on by itself; finish with", "kubectl ainode unbind "+l.Node,
			"interrupted: the machine of AI node %q has not stopped everything yet", l.Node)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		fresh, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		text := fmt.Sprintf("timed out after %s: the machine of AI node %q has not stopped everything yet", w.Timeout, l.Node)
		if record != nil {
			text += w.says(fresh, record)
		}
		return remedy.New("It goes on by itself; finish with", "kubectl ainode unbind "+l.Node, "%s", text)
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
func (w *Walk) drain(ctx context.Context, node string, o UnbindOptions) error {
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Second)
	}
	helper := &drain.Helper{
		Ctx: ctx, Client: w.Target.Core, Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		GracePeriodSeconds: o.GracePeriodSeconds, DisableEviction: o.DisableEviction,
		Timeout: timeout, EvictErrorRetryDelay: 2 * time.Second,
		Out: io.Discard, ErrOut: w.Progress.Lines(node),
		OnPodDeletionOrEvictionFinished: func(pod *corev1.Pod, evicted bool, err error) {
			if err == nil {
				w.Progress.Line(node, "pod %s/%s %s", pod.Namespace, pod.Name, map[bool]string{true: "evicted", false: "deleted"}[evicted])
			}
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
		return &remedy.Error{
			Err: &remedy.Error{
				Err: fmt.Errorf("drain node %q: %w", node, err),
				Say: "Go on", Command: "kubectl ainode unbind " + node,
			},
			Say: "Go on without asking disruption budgets", Command: "kubectl ainode unbind " + node + " --disable-eviction",
		}
	}
	return nil
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
