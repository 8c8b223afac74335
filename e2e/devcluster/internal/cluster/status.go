package cluster

import (
	"github.com/ainode/ainode/e2e/devcluster/internal/containerd"
	"github.com/ainode/ainode/e2e/devcluster/internal/controlplane"
	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/node"
	"github.com/ainode/ainode/e2e/devcluster/internal/registry"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
)

// Report is what `status -o json` prints; other programs read it.
type Report struct {
	Dir         string      `json:"dir"`
	Kubeconfig  string      `json:"kubeconfig"`
	Bin         string      `json:"bin"`
	Server      string      `json:"server"`
	CA          string      `json:"ca"`          // the cluster's authority
	HostAddress string      `json:"hostAddress"` // this host, seen from pods and machines
	AuditLog    string      `json:"auditLog"`
	Node        Node        `json:"node"`
	Machines    []Machine   `json:"machines"`
	Registry    Registry    `json:"registry"`
	Running     bool        `json:"running"` // complete, and every component runs
	Components  []Component `json:"components"`
}

// Node is the ordinary node.
type Node struct {
	Name       string `json:"name"`
	Address    string `json:"address"`
	PodCIDR    string `json:"podCIDR"`
	Containerd string `json:"containerd"` // socket
	Netns      string `json:"netns"`
	Pid        int    `json:"pid"` // holds the namespaces
}

// Machine is a place for the project's own agent.
type Machine struct {
	Name             string `json:"name"`
	Netns            string `json:"netns"`
	Address          string `json:"address"`
	Gateway          string `json:"gateway"`
	PodCIDR          string `json:"podCIDR"` // routed to the machine
	ContainerdSocket string `json:"containerdSocket"`
	CDIDir           string `json:"cdiDir"`
	CNIConfDir       string `json:"cniConfDir"`
	CNIBinDir        string `json:"cniBinDir"`
	Dir              string `json:"dir"`
	Pid              int    `json:"pid"` // holds the namespaces
}

// Registry is where images can be pulled from with a password.
type Registry struct {
	Host         string `json:"host"`
	Username     string `json:"username"`
	PasswordFile string `json:"passwordFile"`
}

// Component is one daemon. Own ones were started with `devcluster start`.
type Component struct {
	Name    string `json:"name"`
	Pid     int    `json:"pid"`
	Running bool   `json:"running"`
	Log     string `json:"log"`
	Own     bool   `json:"own,omitempty"`
}

// Status looks at the cluster; it asks no server.
func Status(l layout.Layout) (Report, error) {
	state, err := readState(l)
	if err != nil {
		return Report{}, err
	}
	plan := state.Plan
	report := Report{
		Dir: l.Dir, Kubeconfig: l.Kubeconfig(), Bin: l.Bin(), Server: controlplane.Server(plan),
		CA: controlplane.ClusterCA(l), HostAddress: plan.Host(), AuditLog: l.Path("log", "audit.log"),
		Node: Node{
			Name: layout.NodeName, Address: plan.Node(), PodCIDR: plan.NodePods(),
			Containerd: l.ContainerdSocket(layout.NodeName), Netns: l.Netns(layout.NodeName),
		},
		Machines: []Machine{},
		Registry: Registry{Host: registry.Host(plan), Username: registry.Username, PasswordFile: registry.PasswordFile(l)},
		Running:  state.Complete && roomsAlive(l, state),
	}
	report.Node.Pid, _ = room.Pid(l, layout.NodeName)
	expected := []string{controlplane.Etcd, controlplane.APIServer, controlplane.ControllerManager, controlplane.Scheduler, registry.Name, node.Kubelet}
	for _, name := range state.rooms() {
		expected = append(expected, containerd.Name(name))
	}
	seen := map[string]bool{}
	for _, name := range append(expected, daemon.Names(l)...) {
		if seen[name] {
			continue
		}
		seen[name] = true
		id, running := daemon.Find(l, name)
		own := len(seen) > len(expected)
		report.Components = append(report.Components, Component{Name: name, Pid: id.Number, Running: running, Log: daemon.Log(l, name), Own: own})
		report.Running = report.Running && (running || own)
	}
	for i := 1; i <= state.Machines; i++ {
		name := layout.MachineName(i)
		machine := Machine{
			Name: name, Netns: l.Netns(name), Address: plan.Machine(i), Gateway: plan.Gateway(i), PodCIDR: plan.MachinePods(i),
			ContainerdSocket: l.ContainerdSocket(name), CDIDir: containerd.CDI(l, name),
			CNIConfDir: containerd.CNIConf(l, name), CNIBinDir: l.CNIBin(), Dir: l.RoomDir(name),
		}
		machine.Pid, _ = room.Pid(l, name)
		report.Machines = append(report.Machines, machine)
	}
	return report, nil
}
