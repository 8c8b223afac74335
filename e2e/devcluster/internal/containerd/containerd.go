// Package containerd runs one containerd in each room. The node and a machine
// need one each: a kubelet ends every sandbox in its runtime that it does not know.
package containerd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
)

// PauseImage is made here and never looked for anywhere.
const PauseImage = "localhost/devcluster/pause:1"

// Options is what differs from room to room.
type Options struct {
	Room        string
	Pods        string // pod range of the bridge
	Gateway     string // the bridge's address
	Registry    string // host:port that speaks plain HTTP
	RestrictOOM bool   // this process may not lower an oom_score_adj
}

// Paths of a room's runtime.
func home(l layout.Layout, room string) string { return filepath.Join(l.RoomDir(room), "containerd") }
func CNIConf(l layout.Layout, room string) string {
	return filepath.Join(l.RoomDir(room), "cni", "net.d")
}
func CDI(l layout.Layout, room string) string { return filepath.Join(l.RoomDir(room), "cdi") }

// Name is the daemon's.
func Name(room string) string { return "containerd-" + room }

// Start writes the configuration and runs the daemon.
func Start(l layout.Layout, o Options) error {
	base := home(l, o.Room)
	hosts := filepath.Join(base, "certs.d", o.Registry)
	for _, folder := range []string{CNIConf(l, o.Room), CDI(l, o.Room), hosts} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("preparing containerd of %s: %w", o.Room, err)
		}
	}
	for file, text := range map[string]string{
		filepath.Join(base, "config.toml"):                          config(l, o),
		filepath.Join(hosts, "hosts.toml"):                          hostsFile(o.Registry),
		filepath.Join(CNIConf(l, o.Room), "90-devcluster.conflist"): network(o),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("preparing containerd of %s: %w", o.Room, err)
		}
	}
	_, err := daemon.Start(l, daemon.Spec{
		Name: Name(o.Room), Room: o.Room,
		Argv: []string{l.Program("containerd"), "--config", filepath.Join(base, "config.toml")},
		Env:  daemon.Environment(l),
	})
	return err
}

func config(l layout.Layout, o Options) string {
	base := home(l, o.Room)
	socket := l.ContainerdSocket(o.Room)
	return fmt.Sprintf(`version = 4
root = '%[1]s/root'
state = '/run/containerd' # the room's own /run
imports = []
disabled_plugins = ['io.containerd.nri.v1.nri']

[plugins.'io.containerd.server.v1.grpc']
  address = '%[2]s'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '%[2]s.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '%[1]s/opt'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '%[3]s'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '%[1]s/certs.d'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = %[4]t
  cdi_spec_dirs = ['%[5]s']
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['%[6]s']
  conf_dir = '%[7]s'

[plugins.'io.containerd.transfer.v1.local']
  config_path = '%[1]s/certs.d'
`, base, socket, PauseImage, o.RestrictOOM, CDI(l, o.Room), l.CNIBin(), CNIConf(l, o.Room))
}

// hostsFile lets the runtime talk plain HTTP to the cluster's own registry.
func hostsFile(registry string) string {
	return fmt.Sprintf("server = \"http://%[1]s\"\n\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry)
}

// network is the pod network of a room: a bridge whose range the rest of the
// cluster has a route to, so nothing is translated. A program with a network
// configuration of its own puts a file that sorts before this one beside it.
func network(o Options) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "devcluster",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "/run/cni",
        "ranges": [[{"subnet": %q, "gateway": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, o.Pods, o.Gateway)
}

// WaitReady waits until the runtime takes connections.
func WaitReady(ctx context.Context, l layout.Layout, room string) error {
	for {
		conn, err := net.Dial("unix", l.ContainerdSocket(room))
		if err == nil {
			_ = conn.Close()
			return nil
		}
		if err := daemon.Check(l, Name(room)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd of %s: %w; %s", room, ctx.Err(), daemon.Tail(l, Name(room)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Import loads an image archive into a room's runtime, where its CRI side finds it.
func Import(l layout.Layout, room, archive string) error {
	out, err := daemon.Run(l, room, l.Program("ctr"), "--address", l.ContainerdSocket(room), "--namespace", "k8s.io", "images", "import", archive)
	if err != nil {
		return fmt.Errorf("importing %s into %s: %w", filepath.Base(archive), room, err)
	}
	if strings.Contains(string(out), "level=error") {
		return fmt.Errorf("importing %s into %s: %s", filepath.Base(archive), room, strings.TrimSpace(string(out)))
	}
	return nil
}
