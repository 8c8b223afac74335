//go:build gpu

package gpu_test

import (
	"bufio"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpu/cudatest"
)

// smi is what nvidia-smi says.
func smi(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nvidia-smi", args...).CombinedOutput()
	require.NoError(t, err, "nvidia-smi %v: %s", args, out)
	return string(out)
}

// rows is what nvidia-smi says of fields of all cards.
func rows(t *testing.T, fields string) []map[string]string {
	t.Helper()
	all, err := gpu.ParseSMI(smi(t, "--query-gpu="+fields, "--format=csv,nounits"))
	require.NoError(t, err)
	return all
}

// openReal is the machine's own cards, and the folder of their CDI spec.
func openReal(t *testing.T) *gpu.Machine {
	t.Helper()
	m, err := gpu.Open(gpu.Options{CDIDir: t.TempDir(), CDIHook: cudatest.Hook(t)})
	require.NoError(t, err)
	return m
}

// What we find is what nvidia-smi shows, field by field.
func TestRealCards(t *testing.T) {
	found := openReal(t).Found()
	for _, c := range found.Cards {
		t.Logf("card %d: %s, %s, driver %s, CUDA %s", c.Index, c.Product, c.UUID, found.DriverVersion, found.CUDAVersion)
	}
	require.Empty(t, gpu.Differences(found, rows(t, gpu.SMICards)))
	t.Logf("nvidia-smi shows the same: %s", gpu.SMICards)
	banner := gpu.SMICUDA.FindStringSubmatch(smi(t))
	require.NotNil(t, banner, "nvidia-smi names a CUDA version")
	require.Equal(t, banner[1], found.CUDAVersion)
	list := smi(t, "-L")
	for _, d := range found.Devices() {
		require.Contains(t, list, d.UUID, "cards and slices")
	}
	if len(found.Cards) > 1 {
		require.Empty(t, gpu.LinkDifferences(found, smi(t, "topo", "-m")))
	}
}

// What we measure of a card that computes is what nvidia-smi does just before or after.
func TestRealTelemetry(t *testing.T) {
	m := openReal(t)
	busy := exec.CommandContext(t.Context(), cudatest.Program(t), "work")
	said, err := busy.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, busy.Start())
	defer func() { _ = busy.Process.Kill(); _ = busy.Wait() }()
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "busy\n", line)

	const looks = 9 // a reading may fall on a change; most may not
	agreed, last := map[string]int{}, map[string]string{}
	uuids := m.Found().UUIDs()
	for range looks {
		before, ours := rows(t, gpu.SMITelemetry()), map[string]gpu.Reading{}
		for _, uuid := range uuids {
			ours[uuid], err = m.Read(t.Context(), uuid)
			require.NoError(t, err)
		}
		after := rows(t, gpu.SMITelemetry())
		for i, row := range before {
			for name := range row {
				if name == "uuid" {
					continue
				}
				ok, text := gpu.Agrees(name, ours[row["uuid"]], row, after[i])
				if ok {
					agreed[row["uuid"]+name]++
				}
				last[row["uuid"]+name] = text
			}
		}
	}
	for key, text := range last {
		t.Logf("%d of %d times  %s", agreed[key], looks, text)
	}
	for key, text := range last {
		require.Greater(t, agreed[key], looks/2, text)
	}
}

// An error of an application reaches whoever follows events, with its card.
func TestRealEvents(t *testing.T) {
	m := openReal(t)
	ctx, cancel := context.WithCancel(t.Context())
	began, events, ended := make(chan struct{}), make(chan gpu.Event, 100), make(chan error, 1)
	go func() { ended <- m.Watch(ctx, func() { close(began) }, func(e gpu.Event) { events <- e }) }()
	select {
	case <-began:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Log("events are followed")
	out, err := exec.CommandContext(t.Context(), cudatest.Program(t), "fault").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("an illegal access of an application: CUDA says %s", out)
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case e := <-events:
			t.Logf("event: %+v", e)
			if e.Kind == gpu.XIDError && (e.XID == 31 || e.XID == 13) {
				require.Contains(t, m.Found().UUIDs(), e.UUID)
				cancel()
				require.NoError(t, <-ended)
				return
			}
		case err := <-ended:
			t.Fatalf("events broke off: %v", err)
		case <-deadline:
			t.Fatal("no event of the illegal access (XID 31 or 13)")
		}
	}
}
