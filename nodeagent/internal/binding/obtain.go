package binding

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// errNotThere says that bind has not handed a credential over yet.
var errNotThere = errors.New("no credential of this epoch has been handed over yet")

// obtainer takes a sealed credential from the hub and makes it this machine's own.
type obtainer struct {
	hub   kubernetes.Interface
	node  string
	key   handover.KeyPair
	clock clock.Clock
	// target makes the client of the target that signs with the ten-minute token;
	// nil outside tests.
	target func(handover.Credential) (kubernetes.Interface, error)
}

// obtain opens the credential of the epoch that spec wants and exchanges its token at
// the target. Nothing is stored yet: see take.
func (o *obtainer) obtain(ctx context.Context, spec v1alpha1.AINodeSpec) (*Credential, error) {
	epoch := spec.BindEpoch
	secret, err := o.hub.CoreV1().Secrets(contract.SystemNamespace).Get(ctx, identity.HandoverSecret(o.node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, errNotThere
	}
	if err != nil {
		return nil, fmt.Errorf("read the handed-over credential: %w", err)
	}
	sealed := secret.Data[handover.SealedKey]
	if len(sealed) == 0 || string(secret.Data[handover.EpochKey]) != strconv.FormatInt(epoch, 10) {
		return nil, errNotThere
	}
	given, err := o.key.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("open the handed-over credential: %w (hand over a new one with: kubectl ainode renew %s)", err, o.node)
	}
	if given.Node != o.node || given.Epoch != epoch {
		return nil, fmt.Errorf("the handed-over credential is of %q, epoch %d, not of %q, epoch %d", given.Node, given.Epoch, o.node, epoch)
	}
	client, err := o.targetClient(given)
	if err != nil {
		return nil, err
	}
	token, err := requestToken(ctx, client, given.ServiceAccount, o.clock.Now())
	if apierrors.IsUnauthorized(err) {
		return nil, fmt.Errorf("the handed-over credential has expired or was withdrawn (hand over a new one with: kubectl ainode renew %s)", o.node)
	}
	if err != nil {
		return nil, fmt.Errorf("exchange the credential at %s: %w", given.Server, err)
	}
	return &Credential{
		Credential: given, Token: token, SinceEpoch: spec.FirstEpoch(), NodeLabels: spec.NodeLabels, PodCIDR: spec.PodCIDR,
	}, nil
}

// blank empties the sealed credential on the hub; it is good for nothing any more.
func (o *obtainer) blank(ctx context.Context) error {
	patch := fmt.Sprintf(`{"data":{%q:""}}`, handover.SealedKey)
	_, err := o.hub.CoreV1().Secrets(contract.SystemNamespace).Patch(ctx, identity.HandoverSecret(o.node),
		types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("blank the handed-over credential: %w", err)
	}
	return nil
}

// take makes a credential this machine's own: it is stored and the Secret blanked, in
// this order, so that a crash leaves either the Secret to be read again or the
// credential stored.
func (b *Binder) take(ctx context.Context, fresh *Credential) error {
	if err := b.o.Store.SaveCredential(*fresh); err != nil {
		return err
	}
	b.credential, b.clean = fresh, false
	return b.obtain.blank(ctx)
}

// refresh takes a new credential of the binding that is served, if there is one. Until
// then the old one is acted with, and pods run on throughout.
func (b *Binder) refresh(ctx context.Context, record *v1alpha1.AINode) error {
	fresh, err := b.obtain.obtain(ctx, record.Spec)
	if errors.Is(err, errNotThere) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fresh.sameWay(b.credential) {
		// First of all, or what renews the old token could store it over the new one. The
		// next step serves again.
		b.stopServing()
		return b.take(ctx, fresh)
	}
	err = b.take(ctx, fresh)
	if b.credential == fresh {
		b.serving.token.Set(fresh.Token)
	}
	return err
}

func (o *obtainer) targetClient(c handover.Credential) (kubernetes.Interface, error) {
	if o.target != nil {
		return o.target(c)
	}
	return clientFor(targetConfig(c, bearer(c.Token)))
}
