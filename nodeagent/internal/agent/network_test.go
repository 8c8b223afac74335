package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
)

func TestNoMorePodsThanAddresses(t *testing.T) {
	t.Parallel()
	list := func() corev1.ResourceList { return corev1.ResourceList{corev1.ResourcePods: resource.MustParse("110")} }
	m := measured{capacity: list(), allocatable: list()}
	for cidr, want := range map[string]int64{"": 110, "10.64.3.0/24": 110, "10.64.3.0/28": 12} {
		got := m.withRange(cidr)
		require.Equal(t, want, got.capacity.Pods().Value(), cidr)
		require.Equal(t, want, got.allocatable.Pods().Value(), cidr)
	}
	require.EqualValues(t, 110, m.capacity.Pods().Value(), "the machine stays as it was measured")
}

// A resolver on the machine's loopback answers pods that share its address alone.
func TestPodsAskServersThatTheyReach(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		servers string
		systemd bool
		mode    crispec.NetworkMode
		want    string
	}{
		"ordinary":                    {"10.0.0.2", true, crispec.CNI, "etc/resolv.conf"},
		"systemd's":                   {"127.0.0.53", true, crispec.CNI, "run/systemd/resolve/resolv.conf"},
		"shared address":              {"127.0.0.53", true, crispec.Host, "etc/resolv.conf"},
		"another one on the loopback": {"127.0.0.1", false, crispec.CNI, "etc/resolv.conf"},
	} {
		root := t.TempDir()
		files := map[string]string{"etc/resolv.conf": "nameserver " + c.servers + "\n"}
		if c.systemd {
			files["run/systemd/resolve/resolv.conf"] = "nameserver 10.0.0.2\n"
		}
		for file, text := range files {
			path := filepath.Join(root, file)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		require.Equal(t, filepath.Join(root, c.want), resolvConf(c.mode, root), name)
	}
}

func TestWithoutARangeThereIsNothingToDo(t *testing.T) {
	t.Parallel()
	var p podNetwork
	require.Equal(t, crispec.Host, p.mode())
	require.NoError(t, p.configure(t.Context()))
	require.Equal(t, nodestatus.Health{NotReady: "why"}, p.health(nodestatus.Health{NotReady: "why"}))
}
