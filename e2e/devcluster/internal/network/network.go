// Package network cables the rooms. The node's room is the cluster's router:
// one cable leads to the host, one to each machine, every subnet is routed and
// none translated. On the host there is one link and one route; everything
// else lives in network namespaces and goes with them.
package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// netnsDir is where iproute2 keeps named network namespaces.
const netnsDir = "/run/netns"

// host runs a command on the host.
func host(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// batch runs ip commands in a room, one line each.
func batch(l layout.Layout, room string, lines ...string) error {
	file := filepath.Join(l.RoomDir(room), "tmp", "ip.batch")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	_, err := daemon.Run(l, room, "ip", "-batch", file)
	return err
}

// ConnectNode cables the node's room to the host and makes it answer for the
// cluster's addresses. holder is the pid that keeps the room.
func ConnectNode(l layout.Layout, plan subnet.Plan, holder int, apiPort string) error {
	link := l.HostLink()
	if layout.Exists("/sys/class/net/" + link) {
		return nil
	}
	if err := host("ip", "netns", "attach", l.Netns(layout.NodeName), strconv.Itoa(holder)); err != nil {
		return fmt.Errorf("naming the node's network: %w", err)
	}
	if err := host("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(holder)); err != nil {
		return fmt.Errorf("cabling the node: %w", err)
	}
	if err := batch(l, layout.NodeName,
		"link set lo up",
		"addr add "+plan.Node()+"/24 dev eth0",
		"link set eth0 up",
		// No default route: what is not in the cluster is refused at once.
		"addr add "+plan.APIService()+"/32 dev lo",
		"addr add "+plan.DNSService()+"/32 dev lo",
		"route add unreachable "+plan.Services(),
	); err != nil {
		return fmt.Errorf("addressing the node: %w", err)
	}
	// The `kubernetes` Service: no kube-proxy here to send it to the API server.
	for _, chain := range []string{"PREROUTING", "OUTPUT"} {
		if _, err := daemon.Run(l, layout.NodeName, "iptables", "-w", "-t", "nat", "-A", chain, "-d", plan.APIService()+"/32", "-p", "tcp", "--dport", "443", "-j", "DNAT", "--to-destination", plan.Node()+":"+apiPort); err != nil {
			return fmt.Errorf("directing the kubernetes Service to the API server: %w: is the kernel's nat table there (modprobe nf_nat)?", err)
		}
	}
	for _, args := range [][]string{
		{"ip", "addr", "add", plan.Host() + "/24", "dev", link},
		{"ip", "link", "set", link, "up"},
		{"ip", "route", "add", plan.All(), "via", plan.Node(), "dev", link},
	} {
		if err := host(args...); err != nil {
			return fmt.Errorf("routing to the cluster: %w: if another program took the range meanwhile, `devcluster down --dir %s` and `up` choose another", err, l.Dir)
		}
	}
	return nil
}

// ConnectMachine cables a machine to the node's room, which routes for it.
func ConnectMachine(l layout.Layout, plan subnet.Plan, index, nodeHolder, holder int) error {
	name := layout.MachineName(index)
	if layout.Exists(filepath.Join(netnsDir, l.Netns(name))) {
		return nil
	}
	link := "m" + strconv.Itoa(index)
	if err := host("ip", "link", "add", link, "netns", strconv.Itoa(nodeHolder), "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(holder)); err != nil {
		return fmt.Errorf("cabling %s: %w", name, err)
	}
	if err := batch(l, layout.NodeName,
		"addr add "+plan.Gateway(index)+"/24 dev "+link,
		"link set "+link+" up",
		"route add "+plan.MachinePods(index)+" via "+plan.Machine(index)+" dev "+link,
	); err != nil {
		return fmt.Errorf("routing to %s: %w", name, err)
	}
	if err := batch(l, name,
		"link set lo up",
		"addr add "+plan.Machine(index)+"/24 dev eth0",
		"link set eth0 up",
		"route add default via "+plan.Gateway(index),
	); err != nil {
		return fmt.Errorf("addressing %s: %w", name, err)
	}
	if err := host("ip", "netns", "attach", l.Netns(name), strconv.Itoa(holder)); err != nil {
		return fmt.Errorf("naming the network of %s: %w", name, err)
	}
	return nil
}

// Connect cables two clusters' nodes, each of which routes the other's addresses
// from then on: nodes, pods and machines of both see each other's real addresses, as
// in two clusters of one company. The cable goes with either node's room.
func Connect(a, b layout.Layout, planA, planB subnet.Plan, holderA, holderB int) error {
	link := func(to layout.Layout) string { return "to" + to.ID }
	if err := host("ip", "link", "add", link(b), "netns", strconv.Itoa(holderA), "type", "veth", "peer", "name", link(a), "netns", strconv.Itoa(holderB)); err != nil {
		return fmt.Errorf("cabling the nodes of %s and %s: %w", a.Dir, b.Dir, err)
	}
	for _, end := range []struct {
		at, to       layout.Layout
		plan, beyond subnet.Plan
	}{{a, b, planA, planB}, {b, a, planB, planA}} {
		if err := batch(end.at, layout.NodeName,
			"addr add "+end.plan.Node()+" peer "+end.beyond.Node()+" dev "+link(end.to),
			"link set "+link(end.to)+" up",
			"route add "+end.beyond.All()+" via "+end.beyond.Node()+" dev "+link(end.to),
		); err != nil {
			return fmt.Errorf("routing from %s to %s: %w", end.at.Dir, end.to.Dir, err)
		}
	}
	return nil
}

// NetnsDirMounted tells whether named network namespaces were in use before.
func NetnsDirMounted() bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && strings.Contains(string(data), " "+netnsDir+" ")
}

// Remove takes the host's link and the names away; the networks behind them go
// with the last process in them. It finds both by name, without any record.
// tidy also takes away iproute2's folder of names, when nothing is left in it.
func Remove(l layout.Layout, tidy bool) error {
	if layout.Exists("/sys/class/net/" + l.HostLink()) {
		if err := host("ip", "link", "delete", l.HostLink()); err != nil && layout.Exists("/sys/class/net/"+l.HostLink()) {
			return fmt.Errorf("removing the link to the cluster: %w", err)
		}
	}
	names, _ := filepath.Glob(filepath.Join(netnsDir, l.NetnsPrefix()+"*"))
	for _, name := range names {
		if err := host("ip", "netns", "delete", filepath.Base(name)); err != nil {
			// A name that was never mounted is a plain file.
			if os.Remove(name) != nil {
				return fmt.Errorf("removing a network name: %w", err)
			}
		}
	}
	if left, err := os.ReadDir(netnsDir); tidy && err == nil && len(left) == 0 {
		_ = exec.Command("umount", netnsDir).Run()
		_ = os.Remove(netnsDir)
	}
	return nil
}
