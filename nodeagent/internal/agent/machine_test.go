package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/probes"
)

func TestTheKubeletVersionParses(t *testing.T) {
	t.Parallel()
	v, err := version.ParseSemantic(KubeletVersion())
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Major())
	require.NotEmpty(t, Version())
}

func TestMeasureClaimsWhatIsSimulated(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.StateDir = config.State(filepath.Join(t.TempDir(), "state"))
	cfg.SimulateGPUs, cfg.SimulateCPU, cfg.SimulateMemory = "dgxh200", "128", "1Ti"
	size, err := measure(cfg)
	require.NoError(t, err)
	gpus := with(size.allocatable, map[corev1.ResourceName]int{contract.GPUResource: 8})[contract.GPUResource]
	require.EqualValues(t, 8, gpus.Value())
	require.Equal(t, "128", size.capacity.Cpu().String())
	require.EqualValues(t, 100<<20, size.capacity.Memory().Value()-size.allocatable.Memory().Value())
	disk := size.capacity.StorageEphemeral().Value()
	require.Equal(t, disk-disk/10, size.allocatable.StorageEphemeral().Value())
}

// Else pods that keep to their requests are evicted, and others come in their place.
func TestPodsMayHaveWhatTheyAreNotEvictedFor(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.StateDir = config.State(filepath.Join(t.TempDir(), "state"))
	cfg.SimulateGPUs, cfg.SimulateMemory = "dgxh200", "64Gi"
	for thresholds, kept := range map[string]struct{ memory, diskPercent int64 }{
		"memory.available<8Gi,nodefs.available<20%":  {memory: 8 << 30, diskPercent: 20},
		"memory.available<25%,imagefs.available<15%": {memory: 16 << 30},
		"memory.available<1Ti":                       {memory: 64 << 30},
		"":                                           {},
	} {
		cfg.EvictionHard = thresholds
		size, err := measure(cfg)
		require.NoError(t, err, thresholds)
		require.Equal(t, 64<<30-kept.memory, size.allocatable.Memory().Value(), thresholds)
		disk := size.capacity.StorageEphemeral().Value()
		require.Equal(t, disk-disk*kept.diskPercent/100, size.allocatable.StorageEphemeral().Value(), thresholds)
	}
	cfg.EvictionHard = "memory.available"
	_, err := measure(cfg)
	require.ErrorContains(t, err, "--eviction-hard")
}

func TestNodeAddress(t *testing.T) {
	t.Parallel()
	got, err := nodeAddress("10.0.0.7", "https://hub:6443")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.7", got)
	_, err = nodeAddress("", "https://127.0.0.1:6443")
	require.ErrorContains(t, err, "--node-ip")
}

func TestMachineDNS(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	none, err := readDNS(path)
	require.NoError(t, err)
	require.Empty(t, none.Servers)
	require.NoError(t, os.WriteFile(path, []byte("# made by hand\nsearch a b\nnameserver 10.0.0.2\nnameserver 10.0.0.3\noptions ndots:2 edns0\n"), 0o600))
	got, err := readDNS(path)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff([]string{"10.0.0.2", "10.0.0.3"}, got.Servers))
	require.Equal(t, []string{"a", "b"}, got.Searches)
	require.Equal(t, &runtimeapi.DNSConfig{Servers: got.Servers, Searches: got.Searches, Options: []string{"ndots:2", "edns0"}}, got)
}

func TestTogetherEndsAllWithTheFirst(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	ended := false
	err := together(context.Background(),
		func(context.Context) error { return broken },
		func(ctx context.Context) error { <-ctx.Done(); ended = true; return nil },
	)
	require.ErrorIs(t, err, broken)
	require.True(t, ended)
}

func TestCommandsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	run := func(stdin string, args ...string) (int, string) {
		var out, errOut bytes.Buffer
		code := Main(args, strings.NewReader(stdin), &out, &errOut)
		return code, out.String() + errOut.String()
	}
	state := t.TempDir()
	for name, c := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"join without a file":   {args: []string{"join", "--state-dir", state}, want: "--file is missing"},
		"a token as argument":   {args: []string{"join", "ainode-join-v1.abc"}, want: "a join file is a secret"},
		"join with junk":        {stdin: "junk", args: []string{"join", "--file", "-", "--state-dir", state}, want: "kubectl ainode add"},
		"join with a lost file": {args: []string{"join", "--file", "/nowhere", "--state-dir", state}, want: "/nowhere"},
		"run without join":      {args: []string{"run", "--state-dir", state}, want: "ainode-agent join --file"},
		"run with a bad option": {args: []string{"run", "--simulate-gpus", "dgx1"}, want: "dgxh200"},
		"run with a bad format": {args: []string{"run", "--log-format", "xml"}, want: "--log-format"},
	} {
		code, text := run(c.stdin, c.args...)
		require.Equal(t, 1, code, name)
		require.Contains(t, text, c.want, name)
	}
	code, text := run("", "version")
	require.Zero(t, code)
	require.Contains(t, text, "v1.37.2-ainode")
}

// Probes and the Node name the same Kubernetes.
func TestProbesFollowTheKubeletThatTheNodeNames(t *testing.T) {
	t.Parallel()
	require.True(t, strings.HasPrefix(KubeletVersion(), "v"+probes.Version+"."), KubeletVersion())
}
