package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// agent does with one record what an agent does with its: it takes the credential,
// registers a Node, and gives everything back.
func (w *fakeWorld) agent(node string) error {
	events, err := w.records.Watch(w.ctx, &v1alpha1.AINodeList{})
	if err != nil {
		return err
	}
	w.busy.Go(func() {
		defer events.Stop()
		for {
			select {
			case <-w.ctx.Done():
				return
			case event, open := <-events.ResultChan():
				if !open {
					return
				}
				if record, ok := event.Object.(*v1alpha1.AINode); ok && record.Name == node {
					_ = w.obey(node) // the next event tries again
				}
			}
		}
	})
	_ = w.obey(node)
	// What is bound before the agent starts waits for its Secret.
	w.busy.Go(func() {
		secrets, err := w.hub.CoreV1().Secrets(contract.SystemNamespace).Watch(w.ctx, metav1.ListOptions{})
		if err != nil {
			return
		}
		defer secrets.Stop()
		for {
			select {
			case <-w.ctx.Done():
				return
			case <-secrets.ResultChan():
				_ = w.obey(node)
			}
		}
	})
	return nil
}

func (w *fakeWorld) obey(node string) error {
	var record v1alpha1.AINode
	if err := w.records.Get(w.ctx, client.ObjectKey{Name: node}, &record); err != nil {
		return err
	}
	if keepsEnd(&record) {
		return w.records.Status().Update(w.ctx, &record) // the next event goes on
	}
	before, epoch := record.Status.DeepCopy(), record.Spec.BindEpoch
	switch {
	case before.ObservedEpoch > epoch:
		return nil // a restored hub is no proof
	case record.Spec.ClusterConfigName == "":
		record.Status.BindStatus, record.Status.ObservedEpoch = v1alpha1.Unbound, epoch
		if len(record.Status.Addresses) > 0 {
			record.Status.Address = record.Status.Addresses[0]
		}
		record.Status.Conditions = nil
	case record.Spec.Draining:
		record.Status.BindStatus = v1alpha1.Draining
	default:
		secret, err := w.hub.CoreV1().Secrets(contract.SystemNamespace).Get(w.ctx, identity.HandoverSecret(node), metav1.GetOptions{})
		if err != nil || string(secret.Data[handover.EpochKey]) != strconv.FormatInt(epoch, 10) || len(secret.Data[handover.SealedKey]) == 0 {
			return err
		}
		if err := w.register(aNode(node, epoch)); err != nil {
			return err
		}
		record.Status.BindStatus, record.Status.ObservedEpoch = v1alpha1.Bound, epoch
		if record.Spec.Address != "" {
			record.Status.Address = record.Spec.Address
		}
		meta.SetStatusCondition(&record.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionCredentialValid, Status: metav1.ConditionTrue, Reason: "Accepted", LastTransitionTime: metav1.NewTime(today),
		})
		if record.Spec.PodCIDR != "" {
			meta.SetStatusCondition(&record.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionPodsAnswered, Status: map[bool]metav1.ConditionStatus{true: metav1.ConditionTrue, false: metav1.ConditionFalse}[w.silent == ""],
				Reason: "Tried", Message: w.silent, LastTransitionTime: metav1.NewTime(today),
			})
		}
	}
	if before.BindStatus == record.Status.BindStatus && before.ObservedEpoch == record.Status.ObservedEpoch {
		return nil
	}
	return w.records.Status().Update(w.ctx, &record)
}

// keepsEnd does with an end what an agent does: one that the record of a restored hub has
// again, which is the message of its condition here, is not taken over. It reports whether
// there is something to tell.
func keepsEnd(record *v1alpha1.AINode) bool {
	b, spec, ready := record.Status.Binding, record.Spec, meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionReady)
	if b == nil || spec.ClusterConfigName == "" || record.Status.ObservedEpoch > spec.BindEpoch {
		return false
	}
	same, outdated := when(spec.Until) == when(b.Until), ready != nil && ready.Reason == v1alpha1.ReasonRecordOutdated
	if same && !outdated || !same && outdated && when(spec.Until) == ready.Message {
		return false
	}
	if b.Until, b.DrainGrace = spec.Until, spec.DrainGrace; outdated {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, "AgentRunning", ""
	}
	return true
}

func when(end *metav1.Time) string {
	if end == nil {
		return "never"
	}
	return end.UTC().Format(time.RFC3339)
}

// machineEnds waits until a machine goes by an end ("never" is none).
func (w *fakeWorld) machineEnds(node, at string) error {
	var record v1alpha1.AINode
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err := w.records.Get(w.ctx, client.ObjectKey{Name: node}, &record); err != nil {
			return err
		}
		if b := record.Status.Binding; b != nil && when(b.Until) == at {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the machine of %s goes by %+v, not by %s", node, record.Status.Binding, at)
}

// register creates a Node, or dates one that is there anew.
func (w *fakeWorld) register(node *corev1.Node) error {
	_, err := w.target.CoreV1().Nodes().Create(w.ctx, node, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, err := w.target.CoreV1().Nodes().Get(w.ctx, node.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	have.Annotations = node.Annotations
	_, err = w.target.CoreV1().Nodes().Update(w.ctx, have, metav1.UpdateOptions{})
	return err
}

func aNode(name string, epoch int64) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{contract.NodeLabel: contract.NodeLabelValue},
			Annotations: map[string]string{contract.BindEpochAnnotation: strconv.FormatInt(epoch, 10)},
		},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

// guard refuses to read records as an API server does.
func (w *fakeWorld) guard() interceptor.Funcs {
	refused := func(verb, resource, name string) error {
		if w.allowed(&authorizationv1.ResourceAttributes{Verb: verb, Group: contract.Group, Resource: resource, Name: name}) {
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{Group: contract.Group, Resource: resource}, name,
			fmt.Errorf("User %q cannot %s resource %q in API group %q at the cluster scope", "kim", verb, resource, contract.Group))
	}
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			resource := map[bool]string{true: "ainodes", false: "clusterconfigs"}[isA[*v1alpha1.AINode](o)]
			if err := refused("get", resource, key.Name); err != nil {
				return err
			}
			return c.Get(ctx, key, o, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			resource := map[bool]string{true: "ainodes", false: "clusterconfigs"}[isA[*v1alpha1.AINodeList](list)]
			if err := refused("list", resource, ""); err != nil {
				return err
			}
			return c.List(ctx, list, options...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			if record, ok := o.(*v1alpha1.AINode); ok && w.chart == "older" {
				record.Spec.SinceEpoch, record.Spec.Until, record.Spec.DrainGrace, record.Spec.Address = 0, nil, nil, ""
			}
			if record, ok := o.(*v1alpha1.AINode); ok && record.Spec.PodCIDR != "" && w.rival != "" && w.rival != record.Name {
				if err := w.claimFirst(ctx, c, record.Spec); err != nil {
					return err
				}
			}
			return c.Update(ctx, o, options...)
		},
	}
}

// claimFirst has the rival bound like another, in the last moment.
func (w *fakeWorld) claimFirst(ctx context.Context, c client.Client, spec v1alpha1.AINodeSpec) error {
	var rival v1alpha1.AINode
	if err := c.Get(ctx, client.ObjectKey{Name: w.rival}, &rival); err != nil {
		return err
	}
	w.rival = ""
	rival.Spec.ClusterConfigName, rival.Spec.PodCIDR = spec.ClusterConfigName, spec.PodCIDR
	rival.Spec.BindEpoch++
	return c.Update(ctx, &rival)
}

func isA[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

func (w *fakeWorld) lease(node, age string) error {
	leases := w.hub.CoordinationV1().Leases(contract.SystemNamespace)
	err := leases.Delete(w.ctx, identity.HubLease(node), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) || age == "never" {
		return client.IgnoreNotFound(err)
	}
	ago, err := time.ParseDuration(age)
	if err != nil {
		return err
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: identity.HubLease(node), Labels: map[string]string{contract.NodeNameLabel: node}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("m1"), LeaseDurationSeconds: ptr.To(int32(1)),
			RenewTime: &metav1.MicroTime{Time: today.Add(-ago)},
		},
	}
	identity.SayRenews(lease)
	_, err = leases.Create(w.ctx, lease, metav1.CreateOptions{})
	return err
}

// older has an agent of before there were renewals renew the Lease.
func (w *fakeWorld) older(node string) error {
	leases := w.hub.CoordinationV1().Leases(contract.SystemNamespace)
	lease, err := leases.Get(w.ctx, identity.HubLease(node), metav1.GetOptions{})
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: lease.Spec.RenewTime.Add(time.Millisecond)}
	_, err = leases.Update(w.ctx, lease, metav1.UpdateOptions{})
	return err
}

func (w *fakeWorld) setVersion(text string) {
	for _, c := range []*fake.Clientset{w.hub, w.target} {
		c.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: text}
	}
}

// admit answers a dry run of a pod as an API server with our webhook does.
func (w *fakeWorld) admit(a k8stesting.CreateActionImpl) (bool, runtime.Object, error) {
	pod := a.GetObject().(*corev1.Pod).DeepCopy()
	if len(a.CreateOptions.DryRun) == 0 {
		return false, nil, nil
	}
	switch w.webhook {
	case "down":
		return true, nil, apierrors.NewInternalError(errors.New(`failed calling webhook "pods.webhook": no endpoints available for service "ainode-webhook"`))
	case "fits":
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, contract.Toleration())
	}
	return true, pod, nil
}

func (w *fakeWorld) probe(_ context.Context, node string) error {
	if node == w.dark {
		return apierrors.NewServiceUnavailable("error trying to reach service: dial tcp 10.0.0.7:10250: i/o timeout")
	}
	return nil
}

// leases answers as a hub does: what it writes of an object it dates by its own
// clock, which the fake takes from the machine that runs this test.
func (w *fakeWorld) leases(a k8stesting.Action) (bool, runtime.Object, error) {
	list, err := w.hub.Tracker().List(coordinationv1.SchemeGroupVersion.WithResource("leases"), coordinationv1.SchemeGroupVersion.WithKind("Lease"), a.GetNamespace())
	if err != nil {
		return true, nil, err
	}
	leases := list.DeepCopyObject().(*coordinationv1.LeaseList)
	for i := range leases.Items {
		if renewed := leases.Items[i].Spec.RenewTime; renewed != nil {
			leases.Items[i].ManagedFields = []metav1.ManagedFieldsEntry{{
				Time: ptr.To(metav1.NewTime(renewed.Add(-w.skew))), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:renewTime":{}}}`),
			}}
		}
	}
	return true, leases, nil
}

func (w *fakeWorld) printRecords(out io.Writer) error {
	var records v1alpha1.AINodeList
	if err := w.records.List(w.ctx, &records); err != nil {
		return err
	}
	for _, r := range records.Items {
		draining := ""
		if r.Spec.Draining {
			draining = " draining"
		}
		if r.Spec.FirstEpoch() != r.Spec.BindEpoch {
			draining += fmt.Sprintf(" since=%d", r.Spec.SinceEpoch)
		}
		if r.Spec.PodCIDR != "" {
			draining += " pods=" + r.Spec.PodCIDR
		}
		if r.Spec.Address != "" {
			draining += " address=" + r.Spec.Address
		}
		if r.Spec.Until != nil {
			draining += " until=" + r.Spec.Until.UTC().Format(time.RFC3339) + " grace=" + r.Spec.DrainGrace.Duration.String()
		}
		fmt.Fprintf(out, "%s to=%q epoch=%d%s status=%s observed=%d\n", r.Name, r.Spec.ClusterConfigName, r.Spec.BindEpoch, draining, r.Status.BindStatus, r.Status.ObservedEpoch)
	}
	var configs v1alpha1.ClusterConfigList
	if err := w.records.List(w.ctx, &configs); err != nil {
		return err
	}
	for _, c := range configs.Items {
		fmt.Fprintf(out, "%s bound=%v\n", c.Name, c.Status.BoundNodes)
	}
	return nil
}

func (w *fakeWorld) printTarget(out io.Writer) error {
	var lines []string
	add := func(kind string, objects ...string) {
		for _, o := range objects {
			lines = append(lines, kind+"/"+o)
		}
	}
	all := metav1.ListOptions{}
	nodes, err := w.target.CoreV1().Nodes().List(w.ctx, all)
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		add("node", n.Name)
	}
	pods, err := w.target.CoreV1().Pods("").List(w.ctx, all)
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		add("pod", p.Name)
	}
	accounts, err := w.target.CoreV1().ServiceAccounts("").List(w.ctx, all)
	if err != nil {
		return err
	}
	for _, a := range accounts.Items {
		add("serviceaccount", a.Name)
	}
	roles, err := w.target.RbacV1().ClusterRoles().List(w.ctx, all)
	if err != nil {
		return err
	}
	for _, r := range roles.Items {
		at := r.Annotations[contract.AddressAnnotation]
		add("clusterrole", strings.TrimSuffix(r.Name+"@"+at, "@"))
	}
	slices.Sort(lines)
	fmt.Fprintln(out, strings.Join(lines, "\n"))
	return nil
}
