package binding

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

func testStore(t *testing.T) Store {
	t.Helper()
	return Store{State: config.State(t.TempDir())}
}

func TestTheKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	first, err := s.Key(rand.Reader)
	require.NoError(t, err)
	second, err := s.Key(rand.Reader)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.NoError(t, os.WriteFile(s.State.Key(), []byte(`"junk"`), 0o600))
	_, err = s.Key(rand.Reader)
	require.ErrorContains(t, err, "damaged")
}

func TestTheCredentialIsPrivateAndWiped(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	none, err := s.Credential()
	require.NoError(t, err)
	require.Nil(t, none)

	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	want := Credential{
		Credential: handover.Credential{Node: "ai-1", Epoch: 3, Server: "https://t:6443", ServiceAccount: "a", Token: "short"},
		Token:      Token{Value: "long", Issued: now, Expires: now.Add(time.Hour)},
		NodeLabels: map[string]string{"zone": "a"},
	}
	require.NoError(t, s.SaveCredential(want))
	info, err := os.Stat(s.State.Credential())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	got, err := s.Credential()
	require.NoError(t, err)
	want.Credential.Token = ""
	require.Empty(t, cmp.Diff(&want, got), "the ten-minute token is not kept")

	require.NoError(t, os.WriteFile(filepath.Join(s.State.Target(), "else"), nil, 0o600))
	require.NoError(t, s.Wipe())
	require.NoDirExists(t, s.State.Target())
	require.NoError(t, s.Wipe(), "wiping twice is nothing")
}

func TestADamagedFileIsNamedNotQuoted(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	require.NoError(t, os.WriteFile(s.State.HubToken(), []byte(`{"token":"secret`), 0o600))
	_, err := s.HubToken()
	require.ErrorContains(t, err, "hub-token.json")
	require.NotContains(t, err.Error(), "secret")
}

func TestOneAgentAState(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "lock")
	unlock, err := Lock(path)
	require.NoError(t, err)
	_, err = Lock(path)
	require.ErrorIs(t, err, ErrInUse)
	unlock()
	again, err := Lock(path)
	require.NoError(t, err)
	again()
}

func TestACopiedDiskIsNotServedFrom(t *testing.T) {
	t.Parallel()
	s := testStore(t)
	here, there := machine.Hardware{ProductUUID: "here", GPUs: []string{"GPU-1"}}, machine.Hardware{ProductUUID: "there", GPUs: []string{"GPU-2"}}
	require.NoError(t, s.SameMachine("ai-1", here))
	require.NoError(t, s.SameMachine("ai-1", machine.Hardware{ProductUUID: "here"}), "its driver is silent")
	err := s.SameMachine("ai-1", there)
	require.ErrorContains(t, err, "here (GPUs: GPU-1), this one is there (GPUs: GPU-2)")
	require.ErrorContains(t, err, "rm "+s.State.Hardware())
	require.NoError(t, s.SameMachine("ai-1", here), "nothing was changed by that")

	// Whoever joins says which machine it is.
	h := newHub("ai-1")
	require.NoError(t, tryJoin(t, s, h, joinText(t, "ai-1"), false))
	require.NoError(t, s.SameMachine("ai-1", there))

	require.NoError(t, os.WriteFile(s.State.Hardware(), []byte("junk"), 0o600))
	require.ErrorContains(t, s.SameMachine("ai-1", there), "rm "+s.State.Hardware())
}
