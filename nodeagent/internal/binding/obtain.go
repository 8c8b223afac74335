package binding

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

const (
	// blankEvery is the pause between two tries to blank what was taken over.
	blankEvery = 30 * time.Second
	// blankTime is how long one may take: it holds a step up.
	blankTime = 5 * time.Second
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
		Credential: given, Token: token, SinceEpoch: spec.FirstEpoch(), NodeLabels: spec.NodeLabels, PodCIDR: spec.PodCIDR, Address: spec.Address,
	}, nil
}

// blank empties the sealed credential of an epoch on the hub: it is good for nothing any
// more. One of another epoch is left alone.
func (o *obtainer) blank(ctx context.Context, epoch int64) error {
	secrets, name := o.hub.CoreV1().Secrets(contract.SystemNamespace), identity.HandoverSecret(o.node)
	secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (len(secret.Data[handover.SealedKey]) == 0 || string(secret.Data[handover.EpochKey]) != strconv.FormatInt(epoch, 10)) {
		return nil
	}
	if err == nil {
		patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"data":{%q:""}}`, secret.ResourceVersion, handover.SealedKey)
		_, err = secrets.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("blank the handed-over credential: %w", err)
	}
	return nil
}

// take makes a credential this machine's own. The Secret is blanked after that, so that a
// crash leaves either the Secret to be read again or the credential stored.
func (b *Binder) take(fresh *Credential) error {
	if err := b.o.Store.SaveCredential(*fresh); err != nil {
		return err
	}
	b.credential, b.clean, b.blanked, b.taken = fresh, false, 0, fresh.Epoch
	return nil
}

// blankTaken blanks the Secret of the credential that this machine has, if it is not
// known to be blank. What it can't do now it does with a later step. After a start, the
// one that lies there may be another of the same epoch: it is let alone until the target
// has taken the stored one.
func (b *Binder) blankTaken(ctx context.Context, s Situation) {
	epoch := b.servedEpoch()
	b.mu.Lock()
	accepted := b.registered && !s.Refused
	b.mu.Unlock()
	if epoch == b.blanked || s.Claim == Elsewhere || b.taken != epoch && !accepted {
		return
	}
	now := b.o.Clock.Now()
	if now.Before(b.blankNext) {
		return
	}
	b.blankNext = now.Add(blankEvery)
	ctx, cancel := context.WithTimeout(ctx, blankTime)
	defer cancel()
	if err := b.obtain.blank(ctx, epoch); err != nil {
		klog.FromContext(ctx).Info("The credential that was taken over still lies sealed on the hub, trying again", "cause", err.Error())
		return
	}
	b.blanked, b.blankNext = epoch, time.Time{}
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
	// What runs is labelled with the epoch and has addresses of the range: they are the
	// binding's own, and a hub that was restored may have lost them.
	fresh.SinceEpoch, fresh.NodeLabels, fresh.PodCIDR = b.credential.since(), b.credential.NodeLabels, b.credential.PodCIDR
	fresh.Address = b.credential.Address
	if !fresh.sameWay(b.credential) {
		// First of all, or what renews the old token could store it over the new one. The
		// next step serves again.
		b.stopServing()
		return b.take(fresh)
	}
	err = b.take(fresh)
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
