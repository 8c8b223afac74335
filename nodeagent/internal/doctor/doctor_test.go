package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/network"
)

// now is when these tests take place.
var now = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// bench is a machine under a test's hands: a state directory, a hub, a free port.
type bench struct {
	Case
	hub    *httptest.Server
	hubNow time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{hubNow: now}
	b.hub = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", b.hubNow.Format(http.TimeFormat))
		w.WriteHeader(http.StatusForbidden) // nobody is logged in, and need not be
	}))
	t.Cleanup(b.hub.Close)
	cfg := config.Default()
	cfg.StateDir = config.State(filepath.Join(t.TempDir(), "state"))
	cfg.ContainerRuntimeEndpoint = "unix://" + filepath.Join(t.TempDir(), "none.sock")
	cfg.NodeIP, cfg.Port = "127.0.0.1", 0 // which the kernel makes a free one, whatever others listen on meanwhile
	b.Case = Case{Config: cfg, Root: "/", Clock: clocktesting.NewFakePassiveClock(now)}
	return b
}

func (b *bench) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.hub.Certificate().Raw})
}

const secret = "s3cret-token"

// write stores what join and bind leave, readable by root alone.
func (b *bench) write(t *testing.T, path string, value any) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	raw, err := json.Marshal(value)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, raw, 0o600))
}

func (b *bench) join(t *testing.T) {
	t.Helper()
	b.write(t, b.Config.StateDir.Hub(), binding.Joined{Node: "ai-1", Server: b.hub.URL, CertificateAuthorityData: b.ca()})
	b.write(t, b.Config.StateDir.HubToken(), binding.Token{Value: secret, Issued: now, Expires: now.Add(time.Hour)})
	b.write(t, b.Config.StateDir.Key(), secret)
}

func (b *bench) bind(t *testing.T) {
	t.Helper()
	b.write(t, b.Config.StateDir.Credential(), binding.Credential{
		Credential: handover.Credential{Node: "ai-1", Epoch: 3, Server: b.hub.URL, CertificateAuthorityData: b.ca(), ServiceAccount: "ainode-ai-1-3"},
		Token:      binding.Token{Value: secret, Issued: now, Expires: now.Add(time.Hour)},
	})
}

// see is what one check says; it must say one thing.
func (b *bench) see(t *testing.T, id string) diagnosis.Finding {
	t.Helper()
	var all []diagnosis.Finding
	for _, f := range b.Examine(context.Background()) {
		if f.ID == id {
			all = append(all, f)
		}
	}
	require.Len(t, all, 1, id)
	return all[0]
}

func TestNotJoined(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.Equal(t, Warning, b.see(t, "joined").Severity)
	require.Equal(t, OK, b.see(t, "state").Severity)
	require.Equal(t, OK, b.see(t, "port").Severity)
	f := b.see(t, "runtime")
	require.Equal(t, Error, f.Severity)
	require.Contains(t, f.What, "none.sock")
	require.NoDirExists(t, string(b.Config.StateDir), "a look makes nothing")
}

func TestJoinedAndBound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join(t)
	require.Equal(t, "ai-1 of "+b.hub.URL, b.see(t, "joined").What)
	require.Equal(t, OK, b.see(t, "hub").Severity)
	require.Equal(t, "bound to nothing", b.see(t, "bound").What)
	require.Equal(t, Error, b.see(t, "agent").Severity, "none runs")

	b.bind(t)
	require.Equal(t, "to "+b.hub.URL+" as ai-1, epoch 3; its token is good for 1h0m0s", b.see(t, "bound").What)
	unlock, err := binding.Lock(b.Config.StateDir.Lock())
	require.NoError(t, err)
	require.Equal(t, OK, b.see(t, "agent").Severity)
	require.Equal(t, Warning, b.see(t, "port").Severity, "an agent that serves a binding listens")
	unlock()
	require.Contains(t, b.see(t, "agent").Why, "its pods run on")

	b.Clock = clocktesting.NewFakePassiveClock(now.Add(3 * time.Hour))
	b.hubNow = now.Add(3 * time.Hour)
	require.Contains(t, b.see(t, "bound").What, "its token ended 2h0m0s ago")
	require.Contains(t, b.see(t, "joined").What, "its token for the hub ended 2h0m0s ago")
}

func TestHubIsAskedForItsClockAndCertificate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join(t)
	b.hubNow = now.Add(time.Minute)
	require.Contains(t, b.see(t, "hub").What, "are 1m0s apart")
	b.hubNow = now
	b.write(t, b.Config.StateDir.Hub(), binding.Joined{Node: "ai-1", Server: "https://127.0.0.1:1", CertificateAuthorityData: b.ca()})
	require.Contains(t, b.see(t, "hub").What, "refused")
	b.write(t, b.Config.StateDir.Hub(), binding.Joined{Node: "ai-1", Server: b.hub.URL, CertificateAuthorityData: []byte("none")})
	require.Contains(t, b.see(t, "hub").What, "damaged")
}

func TestStateThatOthersRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join(t)
	require.Equal(t, OK, b.see(t, "state").Severity)
	require.NoError(t, os.Chmod(b.Config.StateDir.HubToken(), 0o644)) // that is the point
	f := b.see(t, "state")
	require.Equal(t, Error, f.Severity)
	require.Contains(t, f.What, b.Config.StateDir.HubToken())
}

func TestPortOfAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	l, err := net.Listen("tcp", net.JoinHostPort(b.Config.NodeIP, "0"))
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	b.Config.Port = l.Addr().(*net.TCPAddr).Port
	require.Equal(t, Error, b.see(t, "port").Severity)
}

func TestPressure(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Config.EvictionHard = ""
	require.Contains(t, b.see(t, "pressure").What, "memory.available ")
	require.Contains(t, b.see(t, "pressure").What, "nodefs.available ", "of what is to be made, the disk that it will be on")
	b.Config.EvictionHard = "pid.available<1, memory.available<1000Pi"
	f := b.see(t, "pressure")
	require.Equal(t, Error, f.Severity)
	require.Regexp(t, `^memory.available is \d+ of \d+: memory.available<1000Pi$`, f.What)
}

func TestCgroups(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Root = t.TempDir()
	mount := filepath.Join(b.Root, "sys/fs/cgroup")
	require.NoError(t, os.MkdirAll(filepath.Join(mount, "cpu"), 0o750))
	require.Equal(t, "cgroups version 1 lack: memory, pids", b.see(t, "cgroups").What)
	require.NoError(t, os.WriteFile(filepath.Join(mount, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o600))
	require.Equal(t, "version 2 with cpu, memory, pids", b.see(t, "cgroups").What)
}

// A real containerd, looked at with and without what its configuration lacks.
func TestContainerd(t *testing.T) {
	t.Parallel()
	c := critest.Start(t)
	b := newBench(t)
	b.Config.ContainerRuntimeEndpoint = "unix://" + c.Socket
	b.Config.CDIDir, b.Config.SimulateGPUs = c.CDIDir(), "dgxh200"
	require.Contains(t, b.see(t, "runtime").What, "containerd")
	require.Equal(t, OK, b.see(t, "runtime").Severity)
	require.Contains(t, b.see(t, "runc").What, "runc version")
	require.Contains(t, []string{"cgroupfs", "the runtime's cgroup driver is systemd"}, b.see(t, "cgroup-driver").What)
	b.Config.CNIBinDir = t.TempDir()
	require.Contains(t, b.see(t, "cni").What, "none is needed")
	b.write(t, b.Config.StateDir.Credential(), binding.Credential{PodCIDR: "10.64.3.0/24"})
	require.Equal(t, Error, b.see(t, "cni").Severity, "plugins are missing")
	for _, plugin := range network.Plugins {
		require.NoError(t, os.WriteFile(filepath.Join(b.Config.CNIBinDir, plugin), nil, 0o755))
	}
	require.Contains(t, b.see(t, "cni").What, "the runtime has no network for pods")
	require.Equal(t, "the agent writes the spec when it starts", b.see(t, "cdi").What)

	b.Config.CDIDir = t.TempDir()
	found := b.Examine(context.Background())
	var said []string
	for _, f := range found {
		if f.ID == "cdi" && f.Severity == Error {
			said = append(said, f.What)
		}
	}
	require.Len(t, said, 1)
	require.Contains(t, said[0], "containerd reads CDI specs from ["+c.CDIDir()+"]")
}

// No secret is printed, whatever is wrong; and each finding stays in 80 columns.
func TestWriteTellsNoSecret(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join(t)
	b.bind(t)
	require.NoError(t, os.WriteFile(b.Config.StateDir.Credential(), []byte(`{"nodeToken": "`+secret+`"`), 0o600))
	findings := b.Examine(context.Background())
	for _, format := range append([]string{""}, Formats...) {
		var out bytes.Buffer
		require.NoError(t, Write(&out, format, findings, false))
		require.NotContains(t, out.String(), secret)
		require.Contains(t, out.String(), "credential.json")
		if format != "" {
			continue
		}
		for line := range strings.Lines(out.String()) {
			if !strings.HasPrefix(line, "      ") { // a command is left whole
				require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 80, line)
			}
		}
	}
	text, bad := diagnosis.Sum(findings)
	require.True(t, bad)
	require.Regexp(t, `^\d+ findings: `, text)
}
