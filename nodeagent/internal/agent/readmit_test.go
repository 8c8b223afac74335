package agent

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// A person at the machine takes a verdict back, and the running agent hears of it.
func TestReadmit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := Main(append([]string{"readmit", "--state-dir", dir}, args...), strings.NewReader(""), &out, &out)
		return code, out.String()
	}
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	cards, err := gpu.Open(gpu.Options{Simulate: "dgxh200", MachineID: "m", CDIDir: filepath.Join(dir, "cdi"), NvidiaSMI: smi})
	require.NoError(t, err)
	tn := &tenant{cfg: config.Run{StateDir: config.State(dir)}, node: "ai-1", clock: clock.RealClock{}, machine: machine.Identity{BootID: "b1"}}
	require.NoError(t, tn.followCards(cards))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tn.tracker.Run(ctx) })
	defer func() { cancel(); running.Wait() }()
	await := func(text string) {
		for !strings.Contains(tn.cardHealth().Message, text) {
			select {
			case <-tn.cardNews:
			case <-time.After(2 * time.Minute):
				t.Fatalf("no news of %q: %s", text, tn.cardHealth().Message)
			}
		}
	}

	ill := cards.Found().UUIDs()[5]
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cdi", "simulated", "faults"), []byte(ill+" 54\n"), 0o600))
	await("ainode-agent readmit " + ill)
	code, said := run("GPU-no")
	require.Equal(t, 1, code)
	require.Contains(t, said, "\"GPU-no\" is no GPU or MIG slice that is kept from pods; these are:\n  "+ill)
	code, said = run(ill)
	require.Zero(t, code, said)
	require.Contains(t, said, ill+" is on probation")
	require.Contains(t, said, "no agent runs", "none holds the state directory of this test")
	await("out until it was quiet for 10m0s")
	require.Equal(t, 7, tn.cardHealth().Usable[contract.GPUResource])
	code, said = run(ill)
	require.Equal(t, 1, code)
	require.Contains(t, said, "comes back by itself")
}
