package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// lease is an address that is taken, as the host-local plugin notes it: a file of
// the address' name that holds the sandbox and its interface, in a line each.
type lease struct{ address, sandbox, link string }

// leases are the addresses that are taken.
func (p Place) leases() ([]lease, error) {
	folder := filepath.Join(p.LeaseDir, Name)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the addresses that are taken: %w", err)
	}
	var all []lease
	for _, entry := range entries {
		if _, err := netip.ParseAddr(entry.Name()); err != nil {
			continue // the plugin's lock and its memory of the last address
		}
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the addresses that are taken: %w", err)
		}
		if fields := strings.Fields(string(text)); len(fields) == 2 {
			all = append(all, lease{entry.Name(), fields[0], fields[1]})
		}
	}
	return all, nil
}

// unbornFor is how long a sandbox may have an address before the runtime shows it:
// containerd takes the address first, then pulls the pause image and starts the
// shim. The call for a sandbox ends within CallTimeout; the runtime may be slow to
// notice that and to tidy up.
const unbornFor = 5 * cri.CallTimeout

// Sweep frees addresses whose sandbox the runtime has not known for ten minutes, as
// this agent has seen itself: a sandbox in the making is not known yet, and the
// files' own times leap with the machine's clock.
func (n *Network) Sweep(ctx context.Context) error {
	leases, err := n.o.leases()
	if err != nil {
		return err
	}
	sandboxes, err := n.o.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the runtime's sandboxes: %w", err)
	}
	known := map[string]bool{}
	for _, s := range sandboxes {
		known[s.Id] = true
	}
	before, now := n.orphans, n.o.Clock.Now()
	n.orphans = map[lease]time.Time{}
	var errs []error
	for _, l := range leases {
		if known[l.sandbox] {
			continue
		}
		since, seen := before[l]
		if !seen {
			since = now
		}
		n.orphans[l] = since
		if now.Sub(since) > unbornFor {
			errs = append(errs, n.free(ctx, l))
		}
	}
	return errors.Join(errs...)
}

// single is a configuration as one plugin gets it.
type single struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	IPAM       ipam   `json:"ipam"`
}

// free has the plugin itself forget the lease (CNI specification, section 2, DEL).
func (n *Network) free(ctx context.Context, l lease) error {
	config, err := json.Marshal(single{CNIVersion: cniVersion, Name: Name, IPAM: n.ipam()})
	if err != nil {
		return fmt.Errorf("free address %s: %w", l.address, err)
	}
	command := exec.CommandContext(ctx, filepath.Join(n.o.BinDir, "host-local")) // the folder is root's
	command.Env = []string{
		"CNI_COMMAND=DEL", "CNI_CONTAINERID=" + l.sandbox, "CNI_NETNS=", "CNI_IFNAME=" + l.link, "CNI_PATH=" + n.o.BinDir,
	}
	command.Stdin = bytes.NewReader(config)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("free address %s: %w: %s", l.address, err, bytes.TrimSpace(out))
	}
	return nil
}
