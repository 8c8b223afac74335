package images

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const private = "registry.example/private:1"

// keeper is a fixture that remembers.
type keeper struct {
	*fixture
	t   *testing.T
	dir string
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{fixture: newFixture(t), t: t, dir: t.TempDir()}
	k.secrets["good"].UID = "good"
	k.restart()
	return k
}

func (k *keeper) restart() { k.start(k.t, k.dir) }

func (k *keeper) pastBackOff() { k.clock.SetTime(k.clock.Now().Add(time.Hour)) }

// gets checks that a pod with these pull secrets may use the image, and what is
// pulled for it.
func (k *keeper) gets(image string, pulls int, pullSecrets ...string) {
	k.t.Helper()
	k.pastBackOff()
	before := len(k.service.pulled())
	_, err := k.ensure(image, corev1.PullIfNotPresent, pullSecrets...)
	require.NoError(k.t, err)
	require.Len(k.t, k.service.pulled(), before+pulls)
}

// refuses checks that no such pod may use the image, which is on the machine.
func (k *keeper) refuses(image string, pullSecrets ...string) {
	k.t.Helper()
	k.pastBackOff()
	for policy, reason := range map[corev1.PullPolicy]string{corev1.PullIfNotPresent: ErrImagePull, corev1.PullNever: ErrImageNeverPull} {
		_, err := k.ensure(image, policy, pullSecrets...)
		var pull *PullError
		require.ErrorAs(k.t, err, &pull, policy)
		require.Equal(k.t, reason, pull.Reason)
	}
}

func TestAnImageIsNotEverybodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.gets(private, 1, "good")
	for range 2 {
		k.refuses(private)
		k.refuses(private, "bad")
		k.gets(private, 0, "good")
		k.restart()
	}
	// The same credential in another secret, here in another namespace.
	twin := pullSecret("twin", user, password, "registry.example")
	twin.Namespace, twin.UID = "elsewhere", "twin"
	k.secrets["twin"] = twin
	k.gets(private, 0, "bad", "twin")
	// A secret that could open it once, with another password now.
	delete(k.secrets, "good")
	k.secrets["twin"] = pullSecret("twin", user, "changed", "registry.example")
	k.secrets["twin"].Namespace, k.secrets["twin"].UID = "elsewhere", "twin"
	k.gets(private, 0, "twin")
	k.restart()
	k.gets(private, 0, "twin")
	// Another secret under its name.
	k.secrets["twin"].UID, k.secrets["twin"].Data = "another", pullSecret("", user, "unknown", "registry.example").Data
	k.refuses(private, "twin")
	for _, e := range k.files(recordSuffix) {
		raw, err := os.ReadFile(e)
		require.NoError(t, err)
		require.NotContains(t, string(raw), password)
	}
}

func (k *keeper) files(suffix string) []string {
	found, err := filepath.Glob(filepath.Join(k.dir, "*"+suffix))
	require.NoError(k.t, err)
	return found
}

func TestAnImageThatOpensForAnyoneIsEverybodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.secrets["hub"] = pullSecret("hub", user, password, "docker.io")
	k.gets("public:1", 1, "hub")
	k.gets("public:1", 1) // it takes one who asks without a credential to know
	k.restart()
	k.gets("public:1", 0)
	k.gets("here:1", 0) // not pulled by the agent at all
	require.Empty(t, k.files(pullingSuffix))
}

func TestAnInterruptedPullIsNobodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	// The agent is killed when the image has come, before it is written whose it is.
	require.NoError(t, k.records.begin(private))
	require.NoError(t, k.records.begin("registry.example/gone:1"))
	k.service.present[private] = &runtimeapi.Image{Id: "sha256:" + private}
	k.restart()
	k.refuses(private)
	require.Empty(t, k.files(pullingSuffix))
	k.restart()
	k.refuses(private)
	k.gets(private, 1, "good")
	k.gets(private, 0, "good")
}

func TestANameThatWasThereBeforeStaysEverybodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	// The same content came by three names: one was there, one is being pulled.
	k.service.names = []string{private, "loaded.example/tools:1", "registry.example/other:1"}
	k.service.present["loaded.example/tools:1"] = &runtimeapi.Image{Id: "sha256:" + private}
	k.service.present["registry.example/other:1"] = &runtimeapi.Image{Id: "sha256:" + private}
	require.NoError(t, k.records.begin("registry.example/other:1"))
	k.gets(private, 1, "good")
	require.NoError(t, k.records.end("registry.example/other:1"))
	for range 2 {
		k.gets("loaded.example/tools:1", 0)
		k.refuses(private)
		k.refuses("registry.example/other:1")
		k.restart()
	}
}

func TestAPullUnderWayIsNobodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	require.NoError(t, k.records.begin(private))
	k.service.present[private] = &runtimeapi.Image{Id: "sha256:" + private}
	k.refuses(private)
	require.NoError(t, k.records.end(private))
}

func TestWhatCannotBeReadIsNobodys(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.gets(private, 1, "good")
	require.NoError(t, os.WriteFile(k.files(recordSuffix)[0], []byte(`{"image":`), 0o600))
	k.restart()
	k.refuses(private)
	k.gets(private, 1, "good")
	k.restart()
	k.gets(private, 0, "good")
}

func TestARemovedImageIsForgotten(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.gets(private, 1, "good")
	k.Forget(t.Context(), map[string]bool{}, k.clock.Now())
	k.refuses(private) // it came after the list was begun
	k.Forget(t.Context(), map[string]bool{"sha256:" + private: true}, k.clock.Now())
	k.refuses(private)
	k.Forget(t.Context(), map[string]bool{}, k.clock.Now())
	require.Empty(t, k.files(recordSuffix))
	k.gets(private, 0) // whoever brings it now is not the agent
}
