package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// cniVersion is what the plugins of the oldest distributions understand.
const cniVersion = "1.0.0"

// Name of the network, in the runtime and in the leases' folder.
const Name = "ainode"

// conflistName sorts before what others put beside it: the runtime takes the first.
const conflistName = "00-ainode.conflist"

// conflist is a CNI network configuration list (CNI specification 1.0, section 1).
type conflist struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Plugins    []plugin `json:"plugins"`
}

// plugin is a configuration of the bridge plugin.
type plugin struct {
	Type      string `json:"type"`
	Bridge    string `json:"bridge"`
	IsGateway bool   `json:"isGateway"`
	MTU       int    `json:"mtu"`
	IPAM      ipam   `json:"ipam"`
}

// ipam is a configuration of the host-local plugin.
type ipam struct {
	Type    string   `json:"type"`
	DataDir string   `json:"dataDir"`
	Ranges  [][]pool `json:"ranges"`
	Routes  []route  `json:"routes"`
}

type pool struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
}

type route struct {
	Destination string `json:"dst"`
}

func (n *Network) ipam() ipam {
	return ipam{
		Type: "host-local", DataDir: n.o.LeaseDir,
		Ranges: [][]pool{{{Subnet: n.o.Range.String(), Gateway: n.o.Range.Gateway().String()}}},
		Routes: []route{{"0.0.0.0/0"}},
	}
}

// conflist is the configuration for the range.
func (n *Network) conflist(mtu int) ([]byte, error) {
	text, err := json.MarshalIndent(conflist{
		CNIVersion: cniVersion, Name: Name,
		Plugins: []plugin{{
			Type: "bridge", Bridge: n.o.Bridge, IsGateway: true, MTU: mtu,
			IPAM: n.ipam(),
		}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the CNI configuration: %w", err)
	}
	return append(text, '\n'), nil
}

func (p Place) conflistPath() string { return filepath.Join(p.ConfDir, conflistName) }

// writeConflist writes the configuration unless it stands: each write has the
// runtime read it again. The new file comes by its name in one step, and by a
// rename in the same folder, which is what containerd looks for.
func (n *Network) writeConflist(mtu int) error {
	text, err := n.conflist(mtu)
	if err != nil {
		return err
	}
	path := n.o.conflistPath()
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := os.MkdirAll(n.o.ConfDir, 0o755); err != nil { // as the runtime makes it
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	if err := statefile.Write(path, text, 0o644); err != nil { // as other CNI configurations
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

func (p Place) removeConflist() error {
	if err := os.Remove(p.conflistPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the CNI configuration: %w", err)
	}
	return nil
}

// loaded is what containerd says of its CNI configuration (go-cni, ConfigResult).
type loaded struct {
	PluginDirs    []string
	PluginConfDir string
	Networks      []struct{ Config struct{ Name, Source string } }
}

// network is the one that pods get, none if there is none: the runtime's own
// loopback is not counted.
func (l loaded) network() (name, source string) {
	for _, network := range l.Networks {
		if network.Config.Name != "cni-loopback" {
			return network.Config.Name, network.Config.Source
		}
	}
	return "", ""
}

// awaitLoaded returns when the runtime's network is the one that was written, or
// says which other it has taken, and from where. A runtime that does not tell is
// believed.
func (n *Network) awaitLoaded(ctx context.Context) error {
	want, err := os.ReadFile(n.o.conflistPath())
	if err != nil {
		return fmt.Errorf("read the CNI configuration: %w", err)
	}
	deadline := n.o.Clock.Now().Add(loadPatience)
	for {
		answer, err := n.o.Runtime.Status(ctx, true)
		if err != nil {
			return fmt.Errorf("ask the container runtime for its network: %w", err)
		}
		text, tells := answer.GetInfo()["cniconfig"]
		var now loaded
		if !tells || json.Unmarshal([]byte(text), &now) != nil {
			return nil
		}
		if filepath.Clean(now.PluginConfDir) != filepath.Clean(n.o.ConfDir) {
			return fmt.Errorf("the container runtime reads CNI configurations in %s, and the agent writes its own into %s (name the runtime's folder with --cni-conf-dir)",
				now.PluginConfDir, n.o.ConfDir)
		}
		name, source := now.network()
		if name == Name && sameJSON([]byte(source), want) {
			return n.samePlaces(now)
		}
		if n.o.Clock.Now().After(deadline) {
			return n.notLoaded(name, answer.GetInfo()["lastCNILoadStatus"])
		}
		timer := n.o.Clock.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C():
		}
	}
}

func (n *Network) notLoaded(name, status string) error {
	if name != "" && name != Name {
		return fmt.Errorf("the container runtime gives pods the network %q, since its file in %s comes before %s by name (take that file away, or move it behind)",
			name, n.o.ConfDir, conflistName)
	}
	return fmt.Errorf("the container runtime has not taken over the network in %s: %s", n.o.conflistPath(), status)
}

// samePlaces tells a runtime that looks for plugins elsewhere.
func (n *Network) samePlaces(now loaded) error {
	if len(now.PluginDirs) == 0 || slices.ContainsFunc(now.PluginDirs, func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(n.o.BinDir) }) {
		return nil
	}
	return fmt.Errorf("the container runtime looks for CNI plugins in %s, and the agent was told %s (name the runtime's folder with --cni-bin-dir)",
		strings.Join(now.PluginDirs, ", "), n.o.BinDir)
}

func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
