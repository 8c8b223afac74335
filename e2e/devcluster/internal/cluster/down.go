package cluster

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/cgroup"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/network"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
)

// Down takes everything away but the built programs; all takes those too. It
// relies on names alone, so it works after an `up` that was killed anywhere.
func Down(l layout.Layout, all bool, out io.Writer) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("taking a cluster down takes root, as making it did: run the same command with sudo")
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if layout.Exists(l.Dir) {
		if !ours(l) {
			return fmt.Errorf("%s is not a cluster's directory, so it is left alone: check --dir", l.Dir)
		}
		// A command that is at work holds the lock: it is ended, not waited for,
		// once its name in the cgroup is known.
		if release, err := lock(l); err == nil {
			defer release()
		} else if len(cgroup.Pids(hierarchies, l.CgroupName()+"/up")) == 0 {
			return err
		}
	}
	if err := sweep(l, hierarchies, all); err != nil {
		return err
	}
	but := " but the built programs"
	if all || !layout.Exists(l.Bin()) {
		but = ""
		for _, name := range []string{"lock", marker, ""} {
			_ = os.Remove(l.Path(name)) // the directory stays when a person put something into it
		}
	}
	fmt.Fprintf(out, "down: nothing of the cluster in %s is left%s\n", l.Dir, but)
	return nil
}

// entries is everything that this program ever puts into a cluster's directory.
var entries = []string{
	"audit-policy.yaml", "bin", "certs", "etcd", "kubeconfig", "lock", "log", "machines", "node",
	"registry", "run", "src", "state.json", "state.json.new", "tmp",
}

// marker tells a cluster's directory from any other, so that `down` never
// deletes from a directory that somebody named by mistake.
const marker = ".devcluster"

// claim makes dir a cluster's, unless it holds something else already.
func claim(l layout.Layout) error {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("making the cluster's directory: %w", err)
	}
	if !ours(l) {
		return fmt.Errorf("%s is not empty and not a cluster's: choose a --dir that does not exist yet", l.Dir)
	}
	if err := os.WriteFile(l.Path(marker), []byte("made by devcluster; remove with: devcluster down --all --dir "+l.Dir+"\n"), 0o644); err != nil {
		return fmt.Errorf("making the cluster's directory: %w", err)
	}
	return nil
}

func ours(l layout.Layout) bool {
	found, err := os.ReadDir(l.Dir)
	if err != nil || len(found) == 0 || layout.Exists(l.Path(marker)) {
		return true
	}
	// This program may have been laid into bin before the first `up`, with others
	// that are to run in the cluster.
	for _, entry := range found {
		if entry.Name() != "bin" && entry.Name() != "lock" {
			return false
		}
	}
	return layout.Exists(l.Program("devcluster"))
}

// sweep ends every process of the cluster and removes what they leave.
func sweep(l layout.Layout, hierarchies []cgroup.Hierarchy, all bool) error {
	state, err := readState(l)
	known := err == nil
	if err := cgroup.Kill(hierarchies, l.CgroupName(), 20*time.Second); err != nil {
		return err
	}
	for _, stray := range room.Inhabitants(l) {
		// Came in by other means than `devcluster exec`, for example `ip netns exec`.
		_ = syscall.Kill(stray, syscall.SIGKILL)
	}
	if err := network.Remove(l, known && !state.NetnsDir); err != nil {
		return err
	}
	if err := cgroup.Remove(hierarchies, l.CgroupName(), 10*time.Second); err != nil {
		return err
	}
	if err := os.RemoveAll(l.ShortDir()); err != nil {
		return fmt.Errorf("removing %s: %w", l.ShortDir(), err)
	}
	if mounts := mountsBelow(l.Dir); len(mounts) > 0 {
		return fmt.Errorf("%s is mounted below %s and not by this program, so nothing there is deleted: umount it, then run down again", mounts[0], l.Dir)
	}
	for _, name := range entries {
		if name == "bin" && !all || name == "lock" {
			continue
		}
		if err := os.RemoveAll(l.Path(name)); err != nil {
			return fmt.Errorf("removing the cluster's files: %w", err)
		}
	}
	return nil
}

// mountsBelow lists mounts of the host inside dir. The rooms' own mounts are in
// namespaces that are gone by now; what is left here is somebody else's, and
// deleting through it would delete their files.
func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var mounts []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			mounts = append(mounts, fields[4])
		}
	}
	return mounts
}
