package csi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

// A driver that repeats a token alone, and not the attribute that holds it.
func TestTokensAreHidden(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.api.drivers[name].Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}}
	d.Fail(csitest.Publish, status.Error(codes.Internal, "login refused for token-of-sa"))
	_, err := f.Mount(t.Context(), f.request("one"))
	require.ErrorContains(t, err, "login refused for …")
	require.NotContains(t, err.Error(), "token-of-sa")
	require.NoError(t, f.Unmount(t.Context(), "one"))
}

// The call was given up, the driver mounted all the same, and refuses the next one.
func TestWhatWasMountedAfterAllIsUndone(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.mount(f.request("one"))
	records, err := f.ofPods("one")
	require.NoError(t, err)
	require.NoError(t, records[0].note(tried, f.boot))
	d.Fail(csitest.Publish, status.Error(codes.Internal, "already mounted"))
	_, err = f.Mount(t.Context(), f.request("one"))
	require.ErrorContains(t, err, "already mounted")
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.Len(t, d.Calls(csitest.Unpublish), 1)
}

func TestSomebodysFileIsNoVolume(t *testing.T) {
	t.Parallel()
	f, _ := newDriver(t)
	folder := filepath.Join(f.stagingsDir(), "x")
	require.NoError(t, os.MkdirAll(folder, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "file"), nil, 0o600))
	_, err := f.InUse()
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(folder))
}
