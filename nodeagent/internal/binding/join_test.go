package binding

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// grantTokens makes the fake answer token requests with value.
func grantTokens(f *fake.Clientset, value string, expires time.Time) {
	f.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: value, ExpirationTimestamp: metav1.NewTime(expires),
		}}, nil
	})
}

type hub struct {
	*fake.Clientset
	refuse error
}

func newHub(node string) *hub {
	h := &hub{Clientset: fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: identity.Joiner(node), Namespace: contract.SystemNamespace},
	})}
	grantTokens(h.Clientset, "hub-token", start.Add(24*time.Hour))
	h.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
		_, err := h.Tracker().Get(corev1.SchemeGroupVersion.WithResource("secrets"), contract.SystemNamespace, identity.Joiner(node))
		if err != nil {
			return true, nil, apierrors.NewUnauthorized("the secret is gone")
		}
		return h.refuse != nil, nil, h.refuse
	})
	return h
}

func joinText(t *testing.T, node string) string {
	t.Helper()
	text, err := handover.Join{
		Node: node, Server: "https://hub:6443", CertificateAuthorityData: []byte("pem"), Token: "join-token", Expires: start.Add(time.Hour),
	}.Encode()
	require.NoError(t, err)
	return text
}

func tryJoin(t *testing.T, s Store, h *hub, text string, reset bool) error {
	t.Helper()
	_, _, err := Join(context.Background(), JoinOptions{
		Text: text, Store: s, Reset: reset, Clock: testclock.NewFakeClock(start),
		Client: func(Joined, string) (kubernetes.Interface, error) { return h, nil },
	})
	return err
}

// A disk is copied to another machine: that one becomes the node with a key of its own, or,
// while the disk has a binding that may run elsewhere, not at all.
func TestACopiedDiskJoins(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	here, there := machine.Hardware{ProductUUID: "here", GPUs: []string{"GPU-1"}}, machine.Hardware{ProductUUID: "there"}
	join := func(on machine.Hardware) (handover.PublicKey, error) {
		_, key, err := Join(t.Context(), JoinOptions{
			Text: joinText(t, "ai-1"), Store: s, Clock: testclock.NewFakeClock(start), Hardware: on,
			Client: func(Joined, string) (kubernetes.Interface, error) { return newHub("ai-1"), nil },
		})
		return key, err
	}
	first, err := join(here)
	require.NoError(t, err)
	require.NoError(t, s.SameMachine("ai-1", here)) // as the agent does when it starts
	require.NoError(t, s.SaveCredential(Credential{Credential: handover.Credential{Node: "ai-1", Epoch: 1}}))

	_, err = join(there)
	require.ErrorContains(t, err, "this disk is of another machine")
	again, err := join(machine.Hardware{ProductUUID: "here"})
	require.NoError(t, err)
	require.Equal(t, first, again)

	require.NoError(t, s.SameMachine("ai-1", here))
	require.NoError(t, s.Wipe())
	second, err := join(there)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NoError(t, s.SameMachine("ai-1", there))
}

func TestAJoinFileWorksOnce(t *testing.T) {
	t.Parallel()
	h, s := newHub("ai-1"), testStore(t)
	require.NoError(t, tryJoin(t, s, h, joinText(t, "ai-1"), false))
	joined, err := s.Joined()
	require.NoError(t, err)
	require.Equal(t, "ai-1", joined.Node)
	token, err := s.HubToken()
	require.NoError(t, err)
	require.Equal(t, "hub-token", token.Value)

	err = tryJoin(t, testStore(t), h, joinText(t, "ai-1"), false)
	require.ErrorContains(t, err, "used already")
	require.ErrorContains(t, err, "kubectl ainode add ai-1")
}

// API servers remember a token for some seconds after its Secret is gone.
func TestAReplayWithinTheTokenCacheChangesNothing(t *testing.T) {
	t.Parallel()
	h := &hub{Clientset: fake.NewClientset()} // no joiner Secret any more, yet the token works
	grantTokens(h.Clientset, "hub-token", start.Add(time.Hour))
	s := testStore(t)
	require.ErrorContains(t, tryJoin(t, s, h, joinText(t, "ai-1"), false), "used already")
	for _, path := range []string{s.State.Hub(), s.State.HubToken(), s.State.Key()} {
		require.NoFileExists(t, path)
	}
}

func TestAFailedJoinChangesNothing(t *testing.T) {
	t.Parallel()
	h, s := newHub("ai-1"), testStore(t)
	h.refuse = errors.New("dial tcp: no route to host")
	require.ErrorContains(t, tryJoin(t, s, h, joinText(t, "ai-1"), false), "https://hub:6443")
	_, err := s.Joined()
	require.ErrorIs(t, err, ErrNotJoined)
	require.NoFileExists(t, s.State.Key())
	h.refuse = nil
	require.NoError(t, tryJoin(t, s, h, joinText(t, "ai-1"), false))
}

func TestAFileThatCouldNotBeVoidedIsTriedAgain(t *testing.T) {
	t.Parallel()
	h, s := newHub("ai-1"), testStore(t)
	broken := true
	h.PrependReactor("delete", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return broken, nil, errors.New("connection reset")
	})
	require.ErrorContains(t, tryJoin(t, s, h, joinText(t, "ai-1"), false), "run the same command again")
	broken = false
	require.NoError(t, tryJoin(t, s, h, joinText(t, "ai-1"), false))
}

func TestAMachineIsOneNode(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	require.NoError(t, tryJoin(t, s, newHub("ai-1"), joinText(t, "ai-1"), false))
	before, err := os.ReadFile(s.State.Key())
	require.NoError(t, err)

	require.ErrorContains(t, tryJoin(t, s, newHub("ai-2"), joinText(t, "ai-2"), false), "--reset")
	require.NoError(t, tryJoin(t, s, newHub("ai-1"), joinText(t, "ai-1"), false), "the same node again only renews the token")
	after, err := os.ReadFile(s.State.Key())
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, s.SaveCredential(Credential{Credential: handover.Credential{Node: "ai-1", Epoch: 1}}))
	require.ErrorContains(t, tryJoin(t, s, newHub("ai-2"), joinText(t, "ai-2"), true), "kubectl ainode unbind ai-1")
	require.NoError(t, s.Wipe())
	require.NoError(t, tryJoin(t, s, newHub("ai-2"), joinText(t, "ai-2"), true))
	fresh, err := os.ReadFile(s.State.Key())
	require.NoError(t, err)
	require.NotEqual(t, before, fresh, "another node has another key")
}

func TestJoinWhileTheAgentRuns(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	unlock, err := Lock(s.State.Lock())
	require.NoError(t, err)
	defer unlock()
	require.ErrorContains(t, tryJoin(t, s, newHub("ai-1"), joinText(t, "ai-1"), false), "systemctl stop ainode-agent")
}
