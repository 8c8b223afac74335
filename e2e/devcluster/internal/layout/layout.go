// Package layout says where everything of one cluster lies and how the things
// outside its directory are called. All of it follows from the directory, so
// leftovers can be found without any record of them.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// NodeName is the ordinary node, run by the real kubelet.
const NodeName = "node-1"

// Layout is a cluster's directory and the names derived from it.
type Layout struct {
	Dir string // absolute, symbolic links resolved
	ID  string // eight hex digits of the directory's hash
}

// New resolves dir, which need not exist yet.
func New(dir string) (Layout, error) {
	if dir == "" {
		return Layout{}, fmt.Errorf("no directory given: add --dir DIR")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Layout{}, fmt.Errorf("resolving %s: %w", dir, err)
	}
	abs = resolve(abs)
	if strings.ContainsAny(abs, " \t\n\"'\\:,") {
		return Layout{}, fmt.Errorf("the directory %q has a space, quote, colon or comma in its name, which mount options cannot carry: choose another --dir", abs)
	}
	if filepath.Dir(abs) == abs {
		return Layout{}, fmt.Errorf("refusing %s as the cluster's directory: choose one of its own, for example --dir /tmp/devcluster", abs)
	}
	for _, hidden := range []string{"/run", "/var/run", "/var/lib", "/var/log", "/sys", "/proc", "/dev"} {
		if abs == hidden || strings.HasPrefix(abs, hidden+"/") {
			return Layout{}, fmt.Errorf("the node and the machines have a %s of their own, so a cluster cannot lie in %s: choose another --dir, for example /tmp/devcluster", hidden, abs)
		}
	}
	sum := sha256.Sum256([]byte(abs))
	return Layout{Dir: abs, ID: hex.EncodeToString(sum[:4])}, nil
}

// resolve follows symbolic links in the part of path that exists.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// Path joins names to the cluster's directory.
func (l Layout) Path(names ...string) string {
	return filepath.Join(append([]string{l.Dir}, names...)...)
}

// Bin is the folder of built programs; Program is one of them.
func (l Layout) Bin() string                { return l.Path("bin") }
func (l Layout) Program(name string) string { return l.Path("bin", name) }

// CNIBin holds the network plugins, apart from the rest so that a runtime
// which lists the folder sees nothing else.
func (l Layout) CNIBin() string { return l.Path("bin", "cni") }

func (l Layout) Kubeconfig() string { return l.Path("kubeconfig") }
func (l Layout) StateFile() string  { return l.Path("state.json") }
func (l Layout) LogDir() string     { return l.Path("log") }
func (l Layout) RunDir() string     { return l.Path("run") }
func (l Layout) CertDir() string    { return l.Path("certs") }

// RoomDir is the folder of the node or of one machine.
func (l Layout) RoomDir(room string) string {
	if room == NodeName {
		return l.Path("node")
	}
	return l.Path("machines", room)
}

// HostLink is the host's end of the cable to the cluster.
func (l Layout) HostLink() string { return "dc" + l.ID }

// NetnsPrefix starts the name of every network namespace of this cluster.
func (l Layout) NetnsPrefix() string { return "dc" + l.ID + "-" }

// Netns is the name under which `ip netns` knows a room's network.
func (l Layout) Netns(room string) string { return l.NetnsPrefix() + room }

// CgroupName is the one cgroup, in every hierarchy, that all processes are in.
func (l Layout) CgroupName() string { return "devcluster-" + l.ID }

// ShortDir holds the sockets where Dir is too long for a socket address.
func (l Layout) ShortDir() string { return "/run/devcluster-" + l.ID }

// SocketDir is where sockets go: under Dir when the 108 bytes of a socket
// address allow it.
func (l Layout) SocketDir() string {
	inside := l.Path("run", "sock")
	if len(inside) <= 70 {
		return inside
	}
	return l.ShortDir()
}

// ContainerdSocket is the runtime's address in a room, seen alike from the
// host and from inside.
func (l Layout) ContainerdSocket(room string) string {
	return filepath.Join(l.SocketDir(), room+".sock")
}

// MachineName is the name of the i-th machine, counted from 1.
func MachineName(i int) string { return fmt.Sprintf("machine-%d", i) }

// Exists tells whether path is there.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
