package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/cgroup"
	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/network"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

func init() { runtime.LockOSThread() }

// TestMain lets the test's own program be what devcluster starts itself as.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == room.HoldCommand {
		if room.Hold(os.Args[2]) != nil {
			os.Exit(1)
		}
	}
	if len(os.Args) > 6 && os.Args[1] == room.EnterCommand {
		l, err := layout.New(os.Args[3])
		if err == nil {
			err = room.Enter(l, os.Args[4], os.Environ(), os.Args[6:])
		}
		room.Answer(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newRooms makes a node and a machine, cabled, without any program in them.
func newRooms(t *testing.T) (layout.Layout, []cgroup.Hierarchy, subnet.Plan) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("namespaces take root: run the tests as root (sudo make test)")
	}
	l, err := layout.New(filepath.Join(t.TempDir(), "dc"))
	if err != nil {
		t.Fatal(err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sweep(l, hierarchies, true) })
	if err := claim(l); err != nil {
		t.Fatal(err)
	}
	u := &up{l: l}
	if err := u.prepare(1, hierarchies); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.Bin(), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", l.Program("pause"), "../../cmd/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pause: %v\n%s", err, out)
	}
	if err := u.makeRooms(nil); err != nil {
		t.Fatal(err)
	}
	return l, hierarchies, u.state.Plan
}

func TestRoomsAreRoutedAndLeaveNothing(t *testing.T) {
	l, hierarchies, plan := newRooms(t)
	machine := layout.MachineName(1)

	out, err := daemon.Run(l, machine, "sh", "-c", "hostname; ip route get "+plan.NodePodGateway()+" | head -1; cat /etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{machine + "\n", "via " + plan.Gateway(1), "nameserver 127.0.0.1"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("in %s: no %q in\n%s", machine, want, out)
		}
	}
	// A mount in the room is seen by the next program in it, and not by the host.
	if _, err := daemon.Run(l, machine, "sh", "-c", "mount -t tmpfs here /mnt && touch /mnt/seen"); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Run(l, machine, "ls", "/mnt/seen"); err != nil {
		t.Errorf("programs of a room do not share mounts: %v", err)
	}
	if layout.Exists("/mnt/seen") {
		t.Error("a mount of the machine reached the host")
	}

	id, err := daemon.Start(l, daemon.Spec{Name: "sleeper", Room: machine, Argv: []string{"sleep", "1000"}, Env: daemon.Environment(l)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Start(l, daemon.Spec{Name: "nothing", Room: machine, Argv: []string{"no-such-program"}, Env: daemon.Environment(l)}); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("starting a program that is not there gave %v", err)
	}

	// All records are lost, as after a kill at a bad moment.
	for _, file := range []string{l.StateFile(), l.RunDir(), l.RoomDir(machine)} {
		_ = os.RemoveAll(file)
	}
	if err := sweep(l, hierarchies, true); err != nil {
		t.Fatal(err)
	}
	if !id.WaitGone(time.Minute) {
		t.Error("a daemon survived")
	}
	for _, left := range []string{"/sys/class/net/" + l.HostLink(), "/run/netns/" + l.Netns(machine), "/run/netns/" + l.Netns(layout.NodeName), l.Path("node")} {
		if layout.Exists(left) {
			t.Errorf("%s is left", left)
		}
	}
	for _, h := range hierarchies {
		if layout.Exists(filepath.Join(h.Mount, l.CgroupName())) {
			t.Errorf("a cgroup is left in %s", h.Mount)
		}
	}
	if err := sweep(l, hierarchies, true); err != nil {
		t.Errorf("a second sweep: %v", err)
	}
	_ = network.Remove(l, true)
}

func TestAForeignDirectoryIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "bin")
	if err := os.Mkdir(precious, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := layout.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := claim(l); err == nil {
		t.Error("up would use a directory with other things in it")
	}
	if os.Geteuid() == 0 {
		if err := Down(l, true, os.Stderr); err == nil {
			t.Error("down would delete it")
		}
	}
	if !layout.Exists(precious) {
		t.Error("it is gone")
	}
	// This program alone may lie there: it was built into the cluster's directory.
	if err := os.WriteFile(l.Program("devcluster"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := claim(l); err != nil {
		t.Error(err)
	}
}

func TestDestinations(t *testing.T) {
	state := State{Machines: 2}
	for to, want := range map[string]string{
		"all": "node-1 machine-1 machine-2 registry", "node": "node-1", "machine": "machine-1 machine-2",
		"machine-2": "machine-2", "registry": "registry", "machine-3": "error",
	} {
		rooms, push, err := destinations(state, to)
		got := strings.Join(rooms, " ")
		if push {
			got = strings.TrimSpace(got + " registry")
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("--to %s: got %q, want %q", to, got, want)
		}
	}
}
