package binding

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/drain"
)

// Foresee says which pods would go with a node, and changes nothing. With DryRun the
// API servers are asked of every step besides: disruption budgets too, which may
// answer otherwise once the first pods are gone.
func (w *Walk) Foresee(ctx context.Context, l *Leaving) error {
	if l.record.Spec.ClusterConfigName == "" || l.options.ClusterGone {
		return nil // no pod is asked for any more
	}
	if w.DryRun {
		if err := w.wantDrained(ctx, l); errors.Is(err, errReleased) {
			return nil
		} else if err != nil {
			return err
		}
		if err := w.cordon(ctx, l.Node, true); err != nil {
			return err
		}
	}
	helper := &drain.Helper{
		Ctx: ctx, Client: (&budgets{}).asked(w.Target.Core), Force: true, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		GracePeriodSeconds: l.options.GracePeriodSeconds, DryRunStrategy: cmdutil.DryRunServer,
		Out: io.Discard, ErrOut: w.Progress.Lines(l.Node),
	}
	list, errs := helper.GetPodsForDeletion(l.Node)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("list the pods of node %q: %w", l.Node, err)
	}
	pods := list.Pods()
	if len(pods) > 0 {
		w.Progress.Line(l.Node, "%d %s to go%s", len(pods), plural(len(pods), "pod"), unmanaged(pods))
	}
	for _, pod := range pods {
		if err := w.foreseePod(l, helper, pod); err != nil {
			return err
		}
	}
	if w.DryRun {
		return w.letGo(ctx, l, false)
	}
	return nil
}

// foreseePod tells what would become of one pod.
func (w *Walk) foreseePod(l *Leaving, helper *drain.Helper, pod corev1.Pod) error {
	deleted := l.options.DisableEviction || l.options.MachineGone
	var err error
	switch {
	case !w.DryRun:
	case deleted:
		err = helper.DeletePod(pod)
	default:
		err = helper.EvictPod(pod, policyv1.SchemeGroupVersion)
	}
	switch name := pod.Namespace + "/" + pod.Name; {
	case apierrors.IsTooManyRequests(err):
		w.Progress.Warn(l.Node, "pod %s would not go now: %v", name, err)
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("try to send pod %s away: %w", name, err)
	case deleted:
		w.Progress.Line(l.Node, "pod %s would be deleted", name)
	default:
		w.Progress.Line(l.Node, "pod %s would be evicted", name)
	}
	return nil
}
