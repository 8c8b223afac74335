package binding

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// JoinOptions are the arguments of Join.
type JoinOptions struct {
	// Text is the join file. It is a secret.
	Text  string
	Store Store
	// Reset lets a machine that is another AI node become this one, if it is bound
	// to nothing.
	Reset bool
	// Hardware is this machine's, as far as it is known.
	Hardware machine.Hardware
	Clock    clock.Clock
	// Client makes the client of the hub that signs with the token; nil outside tests.
	Client func(j Joined, token string) (kubernetes.Interface, error)
}

// Join exchanges the join file's token for one of the node's hub account, writes
// the state, and makes the join file void. A second try after any failure is safe:
// the file is spent only once everything is written.
func Join(ctx context.Context, o JoinOptions) (Joined, handover.PublicKey, error) {
	var key handover.PublicKey
	file, err := handover.DecodeJoin(o.Text, o.Clock.Now())
	if err != nil {
		return Joined{}, key, err
	}
	joined := Joined{Node: file.Node, Server: file.Server, CertificateAuthorityData: file.CertificateAuthorityData}
	unlock, err := Lock(o.Store.State.Lock())
	if err != nil {
		if errors.Is(err, ErrInUse) {
			err = fmt.Errorf("%w (stop it first: systemctl stop ainode-agent)", err)
		}
		return joined, key, err
	}
	defer unlock()
	again, err := o.Store.mayBecome(joined, o.Reset)
	if err != nil {
		return joined, key, err
	}
	var copied error
	if again {
		copied = o.Store.SameMachine(joined.Node, o.Hardware)
	}
	if copied != nil && !errors.Is(copied, ErrOtherMachine) {
		return joined, key, copied
	}
	if copied != nil {
		// A join file in hand says which machine this is, but not that the one whose disk
		// this was has stopped its pods.
		if bound, err := o.Store.Credential(); err != nil || bound != nil {
			return joined, key, errors.Join(err, copied)
		}
	}
	restore, err := o.Store.remember()
	if err != nil {
		return joined, key, err
	}

	makeClient := o.Client
	if makeClient == nil {
		makeClient = func(j Joined, token string) (kubernetes.Interface, error) {
			return clientFor(hubConfig(j, bearer(token)))
		}
	}
	joiner, err := makeClient(joined, file.Token)
	if err != nil {
		return joined, key, err
	}
	token, err := requestToken(ctx, joiner, identity.HubAccount(file.Node), o.Clock.Now())
	if err != nil {
		return joined, key, joinError(joined, err)
	}
	hub, err := makeClient(joined, token.Value)
	if err != nil {
		return joined, key, err
	}

	if o.Reset && !again || copied != nil {
		if err := os.Remove(o.Store.State.Key()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return joined, key, fmt.Errorf("reset the key: %w", err)
		}
	}
	if err := os.Remove(o.Store.State.Hardware()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return joined, key, fmt.Errorf("forget the earlier machine: %w", err)
	}
	pair, err := o.Store.Key(rand.Reader)
	if err != nil {
		return joined, key, err
	}
	if err := o.Store.SaveHubToken(token); err != nil {
		return joined, key, err
	}
	// hub.json last: a machine has joined when it is there.
	if err := writeJSON(o.Store.State.Hub(), joined); err != nil {
		return joined, key, err
	}
	switch err := spend(ctx, file.Node, joiner, hub); {
	case apierrors.IsNotFound(err) && !again:
		// Its token still worked, since API servers remember tokens for some seconds,
		// but somebody was here before.
		return joined, key, errors.Join(errUsed(joined), restore())
	case err != nil && !apierrors.IsNotFound(err):
		return joined, key, fmt.Errorf("this machine has joined, but the join file still works (run the same command again to void it): %w", err)
	}
	return joined, pair.Public, nil
}

// mayBecome refuses to make one machine two AI nodes. again is true on a machine
// that is this node already.
func (s Store) mayBecome(want Joined, reset bool) (again bool, err error) {
	have, err := s.Joined()
	if errors.Is(err, ErrNotJoined) {
		return false, nil
	}
	if err != nil && !reset {
		return false, fmt.Errorf("%w (start over with: ainode-agent join --reset)", err)
	}
	if have.Node == want.Node && string(have.CertificateAuthorityData) == string(want.CertificateAuthorityData) {
		return true, nil
	}
	bound, err := s.Credential()
	if err != nil {
		return false, err
	}
	if bound != nil {
		return false, fmt.Errorf("this machine is AI node %q of %s and is bound to a cluster (give it back first: kubectl ainode unbind %s)",
			have.Node, have.Server, have.Node)
	}
	if !reset {
		return false, fmt.Errorf("this machine is AI node %q of %s already (to make it %q of %s: ainode-agent join --reset)",
			have.Node, have.Server, want.Node, want.Server)
	}
	return false, nil
}

// remember returns what puts the joined state back as it is now.
func (s Store) remember() (func() error, error) {
	before := map[string][]byte{}
	for _, path := range []string{s.State.Hub(), s.State.HubToken(), s.State.Key()} {
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read state: %w", err)
		}
		before[path] = raw
	}
	return func() error {
		var errs []error
		for path, raw := range before {
			if raw != nil {
				errs = append(errs, writeFile(path, raw))
			} else if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("put the state back: %w", err))
			}
		}
		return errors.Join(errs...)
	}, nil
}

// spend deletes the Secret that the joiner's token is bound to: of several machines
// with one join file, the one whose deletion succeeds has joined. Which of the two
// accounts may is the hub's matter.
func spend(ctx context.Context, node string, clients ...kubernetes.Interface) error {
	var last error
	for _, client := range clients {
		err := client.CoreV1().Secrets(contract.SystemNamespace).Delete(ctx, identity.Joiner(node), metav1.DeleteOptions{})
		if err == nil {
			return nil
		}
		last = fmt.Errorf("delete the joiner's secret: %w", err)
		if apierrors.IsNotFound(err) {
			return last
		}
	}
	return last
}

func errUsed(j Joined) error {
	return fmt.Errorf("this join file was used already or has been withdrawn (print a new one with: kubectl ainode add %s)", j.Node)
}

// joinError says what an API error means for somebody with a join file in hand.
func joinError(j Joined, err error) error {
	switch {
	case apierrors.IsUnauthorized(err):
		return errUsed(j)
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return fmt.Errorf("the hub knows no AI node %q that this join file is for (print a new one with: kubectl ainode add %s): %w", j.Node, j.Node, err)
	default:
		return fmt.Errorf("the hub at %s, which the join file names, can't be reached or is not the one that wrote it: %w", j.Server, err)
	}
}
