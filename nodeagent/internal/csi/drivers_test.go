package csi

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

// The new pod of a driver registers before the old one goes, or goes again first.
func TestDriverIsUpdated(t *testing.T) {
	t.Parallel()
	f, _ := newDriver(t)
	endpoint := func() string {
		d, err := f.driver(name)
		require.NoError(t, err)
		return d.endpoint
	}
	old := endpoint()
	// Another path to the same server.
	next := pluginregistration.Plugin{
		Name: name, Endpoint: filepath.Join(f.dir, "plugins", ".", name) + "/./csi.sock", Versions: []string{"1.0.0"}, Socket: "/new",
	}
	require.NoError(t, f.Drivers().Register(t.Context(), next))
	require.Equal(t, next.Endpoint, endpoint())
	require.Len(t, f.Drivers().Registered(), 1)
	f.Drivers().Deregister(next)
	require.Equal(t, old, endpoint(), "the old one is there still")

	require.NoError(t, f.Drivers().Register(t.Context(), next))
	require.NoError(t, f.Drivers().Register(t.Context(), next), "again by the same socket")
	f.Drivers().Deregister(pluginregistration.Plugin{Name: name, Socket: filepath.Join(f.dir, "plugins_registry", name+"-reg.sock")})
	require.Equal(t, next.Endpoint, endpoint())
	f.Drivers().Deregister(next)
	require.Empty(t, f.Drivers().Registered())
}
