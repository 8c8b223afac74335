package approver

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

const (
	// reason stands in the approval condition.
	reason = "AINodeServingCertificate"
	// retry is the pause before a request is looked at again that the Node does not
	// match yet.
	retry = time.Second
	// grace is how long that is done without a word, patience how long at all; the
	// agent then asks anew.
	grace    = 30 * time.Second
	patience = 10 * time.Minute
)

// Approver approves serving certificates of AI nodes, and leaves all others alone.
type Approver struct {
	reader   client.Reader // cached: requests of our signer only
	client   kubernetes.Interface
	recorder events.EventRecorder
	clock    clock.PassiveClock
}

// Options of an Approver, all required.
type Options struct {
	Reader   client.Reader
	Client   kubernetes.Interface
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
}

// New makes an Approver.
func New(o Options) (*Approver, error) {
	if o.Reader == nil || o.Client == nil || o.Recorder == nil || o.Clock == nil {
		return nil, errors.New("make the approver: all options are required")
	}
	return &Approver{reader: o.Reader, client: o.Client, recorder: o.Recorder, clock: o.Clock}, nil
}

// Register runs the approver with the manager, on the leader.
func (a *Approver) Register(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("approver").
		For(&certificatesv1.CertificateSigningRequest{}).
		Complete(a)
}

// Reconcile looks at one request.
func (a *Approver) Reconcile(ctx context.Context, in reconcile.Request) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := a.reader.Get(ctx, in.NamespacedName, csr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	name, err := nodeOf(csr)
	if err != nil || decided(csr) {
		return reconcile.Result{}, nil
	}
	address, earlier, err := a.boundAt(ctx, name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if earlier {
		return a.leave(ctx, csr, notYet("node %q has accounts of several epochs, and nobody can tell which of them asks (finish with: kubectl ainode renew %s)", name, name))
	}
	if address == "" {
		return a.leave(ctx, csr, notYet("node %q is not bound here", name))
	}
	if err := judge(csr, name, address); err != nil {
		return a.leave(ctx, csr, err)
	}
	approved := csr.DeepCopy()
	approved.Status.Conditions = append(approved.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: reason,
		Message: "name and address are those that node " + name + " is bound with",
	})
	_, err = a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, approved, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("approve certificate signing request %q: %w", csr.Name, err)
	}
	log.FromContext(ctx).Info("Serving certificate approved", "csr", csr.Name, "node", name)
	return reconcile.Result{}, nil
}

// boundAt is the address that bind has recorded for the node's newest epoch, or "", and
// whether there are accounts of earlier ones: all ask in the node's name.
// Not the Node's own status: what a node says of itself would get a stolen one a
// certificate for any name.
func (a *Approver) boundAt(ctx context.Context, node string) (address string, earlier bool, err error) {
	roles, err := a.client.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeNameLabel + "=" + node})
	if err != nil {
		return "", false, fmt.Errorf("list the bindings of node %q: %w", node, err)
	}
	newest := int64(-1)
	for _, role := range roles.Items {
		epoch, ok := identity.TargetEpoch(&role, node)
		if !ok || role.DeletionTimestamp != nil {
			continue
		}
		earlier = earlier || newest >= 0
		if epoch > newest {
			newest, address = epoch, role.Annotations[contract.AddressAnnotation]
		}
	}
	return address, earlier, nil
}

// leave leaves the request alone and says why. What the Node may still come to
// match is looked at again for a while, and told only when it takes long.
func (a *Approver) leave(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, why error) (reconcile.Result, error) {
	var later *notYetError
	age := a.clock.Since(csr.CreationTimestamp.Time)
	if errors.As(why, &later) && age < grace {
		return reconcile.Result{RequeueAfter: retry}, nil
	}
	log.FromContext(ctx).Info("Serving certificate left alone", "csr", csr.Name, "reason", why.Error())
	a.recorder.Eventf(csr, nil, corev1.EventTypeWarning, "NotApproved", "Approve", "left alone: %v", why)
	if later != nil && age < patience {
		return reconcile.Result{RequeueAfter: grace}, nil
	}
	return reconcile.Result{}, nil
}

// decided reports whether somebody has approved, denied or signed already.
func decided(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || len(csr.Status.Conditions) > 0
}
