package binding

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

func TestObtain(t *testing.T) {
	t.Parallel()
	key, err := handover.GenerateKeyPair(rand.Reader)
	require.NoError(t, err)
	stranger, err := handover.GenerateKeyPair(rand.Reader)
	require.NoError(t, err)
	given := handover.Credential{Node: "ai-1", Epoch: 3, Server: "https://target:6443", ServiceAccount: identity.Target("ai-1", 3), Token: "ten-minutes"}
	sealed, err := given.Seal(key.Public)
	require.NoError(t, err)
	other, err := given.Seal(stranger.Public)
	require.NoError(t, err)
	wrong := given
	wrong.Node = "ai-2"
	wrongNode, err := wrong.Seal(key.Public)
	require.NoError(t, err)

	for name, c := range map[string]struct {
		data map[string][]byte
		want string
	}{
		"handed over":      {data: map[string][]byte{handover.SealedKey: sealed, handover.EpochKey: []byte("3")}},
		"not yet":          {data: nil, want: errNotThere.Error()},
		"blanked":          {data: map[string][]byte{handover.SealedKey: {}, handover.EpochKey: []byte("3")}, want: errNotThere.Error()},
		"an older epoch":   {data: map[string][]byte{handover.SealedKey: sealed, handover.EpochKey: []byte("2")}, want: errNotThere.Error()},
		"another's key":    {data: map[string][]byte{handover.SealedKey: other, handover.EpochKey: []byte("3")}, want: "not sealed to this machine's key"},
		"another's secret": {data: map[string][]byte{handover.SealedKey: wrongNode, handover.EpochKey: []byte("3")}, want: `"ai-2"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := fake.NewClientset(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: identity.HandoverSecret("ai-1"), Namespace: contract.SystemNamespace}, Data: c.data,
			})
			target := fake.NewClientset()
			grantTokens(target, "a-day", start.Add(24*time.Hour))
			o := &obtainer{
				hub: hub, node: "ai-1", key: key, clock: testclock.NewFakeClock(start),
				target: func(c handover.Credential) (kubernetes.Interface, error) {
					require.Equal(t, "ten-minutes", c.Token)
					return target, nil
				},
			}
			got, err := o.obtain(context.Background(), v1alpha1.AINodeSpec{BindEpoch: 3, SinceEpoch: 2, NodeLabels: map[string]string{"zone": "a"}, PodCIDR: "10.64.3.0/24", Address: "10.9.0.7"})
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			clock := testclock.NewFakeClock(start)
			b := &Binder{o: Options{Store: testStore(t), Clock: clock}, obtain: o}
			require.NoError(t, b.take(got))
			stored, err := b.o.Store.Credential()
			require.NoError(t, err)
			require.Same(t, got, b.credential)
			require.Equal(t, "a-day", got.Token.Value)
			require.Equal(t, "a-day", stored.Token.Value)
			require.EqualValues(t, 2, stored.since())
			require.Equal(t, "a", stored.NodeLabels["zone"])
			require.Equal(t, "10.64.3.0/24", stored.PodCIDR)
			require.Equal(t, "10.9.0.7", stored.Address)
			// The hub is away at first: it is tried again, but not with each step.
			refused := 0
			hub.PrependReactor("patch", "secrets", func(k8stesting.Action) (bool, runtime.Object, error) {
				refused++
				return refused == 1, nil, errors.New("no route to host")
			})
			b.blankTaken(context.Background(), Situation{})
			b.blankTaken(context.Background(), Situation{})
			require.Equal(t, 1, refused)
			clock.Step(blankEvery)
			b.blankTaken(context.Background(), Situation{})
			b.blankTaken(context.Background(), Situation{})
			require.Equal(t, 2, refused, "blank for good")
			secret, err := hub.CoreV1().Secrets(contract.SystemNamespace).Get(context.Background(), identity.HandoverSecret("ai-1"), metav1.GetOptions{})
			require.NoError(t, err)
			require.Empty(t, secret.Data[handover.SealedKey], "the sealed credential is blanked")
		})
	}
}

// A start with a credential of before leaves the one alone that has been laid there since.
func TestTheNextCredentialIsNotBlanked(t *testing.T) {
	t.Parallel()
	hub := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: identity.HandoverSecret("ai-1"), Namespace: contract.SystemNamespace},
		Data:       map[string][]byte{handover.SealedKey: []byte("sealed"), handover.EpochKey: []byte("4")},
	})
	o := &obtainer{hub: hub, node: "ai-1"}
	b := &Binder{o: Options{Clock: testclock.NewFakeClock(start)}, obtain: o, credential: &Credential{Credential: handover.Credential{Epoch: 3}}}
	b.blankTaken(t.Context(), Situation{})
	require.Zero(t, b.blanked, "after a start, only what the target takes is known to be what lies there")
	b.registered = true
	b.blankTaken(t.Context(), Situation{Refused: true})
	b.blankTaken(t.Context(), Situation{Claim: Elsewhere})
	require.Zero(t, b.blanked)
	b.blankTaken(t.Context(), Situation{})
	require.EqualValues(t, 3, b.blanked)
	secret, err := hub.CoreV1().Secrets(contract.SystemNamespace).Get(t.Context(), identity.HandoverSecret("ai-1"), metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "sealed", string(secret.Data[handover.SealedKey]))
}

func TestATokenIsRenewedAtFourFifthsOfItsLife(t *testing.T) {
	t.Parallel()
	clock := testclock.NewFakeClock(start)
	renewed := make(chan Token)
	k := &Keeper{
		Clock: clock,
		Renew: func(context.Context) (Token, error) {
			return Token{Value: "next", Issued: clock.Now(), Expires: clock.Now().Add(10 * time.Hour)}, nil
		},
		Save: func(t Token) error { renewed <- t; return nil },
	}
	k.Set(Token{Value: "first", Issued: start, Expires: start.Add(10 * time.Hour)})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go k.Run(ctx)
	require.Eventually(t, clock.HasWaiters, time.Minute, time.Millisecond)
	clock.Step(8*time.Hour - time.Second)
	select {
	case <-renewed:
		t.Fatal("renewed too early")
	default:
	}
	clock.Step(time.Second)
	require.Equal(t, "next", (<-renewed).Value)
}

func TestAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	token := func(skew time.Duration) Token { // got when our clock was that far ahead of the target's
		return Token{Issued: start.Add(skew), Expires: start.Add(tokenLife)}
	}
	require.Less(t, token(-10*24*time.Hour).due(start.Add(-10*24*time.Hour)), tokenLife, "behind: renewed before it has run out")
	require.Zero(t, token(time.Hour).due(start), "set back since")
	require.LessOrEqual(t, token(48*time.Hour).due(start.Add(48*time.Hour)), time.Duration(0), "ahead: looks expired")

	clock := testclock.NewFakeClock(start.Add(48 * time.Hour))
	renewals := make(chan struct{}, 100)
	k := &Keeper{
		Clock: clock, Save: func(Token) error { return nil },
		Renew: func(context.Context) (Token, error) { renewals <- struct{}{}; return token(48 * time.Hour), nil },
	}
	k.Set(token(48 * time.Hour))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go k.Run(ctx)
	require.Eventually(t, clock.HasWaiters, time.Minute, time.Millisecond)
	require.Len(t, renewals, 1, "no storm of requests")
}

func TestTheKeeperNoticesA401(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	changes := 0
	k := &Keeper{Changed: func() { changes++ }}
	client := &http.Client{Transport: k.Wrap(http.DefaultTransport)}
	get := func() {
		answer, err := client.Get(server.URL)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, answer.Body)
		require.NoError(t, answer.Body.Close())
	}
	k.Set(Token{Value: "bad"})
	get()
	get()
	require.True(t, k.Refused())
	require.Equal(t, 1, changes)
	k.Set(Token{Value: "good"})
	require.False(t, k.Refused(), "a new token has not been refused yet")
	get()
	require.False(t, k.Refused())
}
