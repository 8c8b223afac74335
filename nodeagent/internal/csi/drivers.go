package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/util/validation"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

// Info is what a driver says of this machine.
type Info struct {
	// Name of the driver, NodeID the machine's in its own terms.
	Name, NodeID string
	// Topology are the labels of where the machine is.
	Topology map[string]string
	// MaxVolumes is how many of its volumes the machine takes; 0: it does not say.
	MaxVolumes int64
}

// Drivers are the drivers that are registered on this machine.
type Drivers struct {
	// Reserved are names that no driver gets: the agent serves them itself.
	Reserved []string

	mu sync.Mutex
	// byName holds the drivers of a name, the last that registered last: that one serves.
	byName  map[string][]registered
	changed chan struct{}
}

type registered struct {
	plugin pluginregistration.Plugin
	info   Info
}

var _ pluginregistration.Handler = (*Drivers)(nil)

// NewDrivers returns an empty registry.
func NewDrivers(reserved ...string) *Drivers {
	return &Drivers{Reserved: reserved, byName: map[string][]registered{}, changed: make(chan struct{}, 1)}
}

// Register takes a driver that serves CSI 1.x and knows this machine. It takes the place
// of one of the same name, as on a kubelet: that is how a driver is updated without a
// gap. The other serves again if this one goes first.
func (d *Drivers) Register(ctx context.Context, p pluginregistration.Plugin) error {
	if err := d.acceptable(p); err != nil {
		return fmt.Errorf("register CSI driver %q: %w", p.Name, err)
	}
	info, err := nodeInfo(ctx, driver{name: p.Name, endpoint: p.Endpoint})
	if err != nil {
		return fmt.Errorf("register CSI driver %q: %w", p.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byName[p.Name] = append(d.without(p), registered{plugin: p, info: info})
	d.tell()
	return nil
}

func (d *Drivers) acceptable(p pluginregistration.Plugin) error {
	if slices.Contains(d.Reserved, p.Name) {
		return errors.New("the agent mounts the volumes of this driver itself")
	}
	// The name becomes part of paths.
	if wrong := validation.IsDNS1123Subdomain(strings.ToLower(p.Name)); len(wrong) > 0 {
		return fmt.Errorf("its name is none: %s", strings.Join(wrong, "; "))
	}
	if _, err := utilversion.HighestSupportedVersion(p.Versions); err != nil {
		return fmt.Errorf("it serves no CSI 1.x, but %q", p.Versions)
	}
	return nil
}

// nodeInfo asks the driver what this machine is to it.
func nodeInfo(ctx context.Context, d driver) (Info, error) {
	var answer *csipb.NodeGetInfoResponse
	err := d.call(ctx, "NodeGetInfo", nil, func(ctx context.Context, node csipb.NodeClient) (err error) {
		answer, err = node.NodeGetInfo(ctx, &csipb.NodeGetInfoRequest{})
		return err
	})
	if err != nil {
		return Info{}, err
	}
	if answer.GetNodeId() == "" {
		return Info{}, errors.New("it has no id for this machine")
	}
	return Info{
		Name: d.name, NodeID: answer.GetNodeId(), MaxVolumes: max(answer.GetMaxVolumesPerNode(), 0),
		Topology: answer.GetAccessibleTopology().GetSegments(),
	}, nil
}

// Deregister drops the driver that registered at this socket.
func (d *Drivers) Deregister(p pluginregistration.Plugin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName[p.Name] = d.without(p); len(d.byName[p.Name]) == 0 {
		delete(d.byName, p.Name)
	}
	d.tell()
}

// without are the drivers of the plugin's name that registered elsewhere. Callers hold mu.
func (d *Drivers) without(p pluginregistration.Plugin) []registered {
	return slices.DeleteFunc(slices.Clone(d.byName[p.Name]), func(r registered) bool { return r.plugin.Socket == p.Socket })
}

// serving is the driver of a name that is called. Callers hold mu.
func (d *Drivers) serving(name string) (registered, bool) {
	all := d.byName[name]
	if len(all) == 0 {
		return registered{}, false
	}
	return all[len(all)-1], true
}

// tell says that the drivers have changed. Callers hold mu.
func (d *Drivers) tell() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Changed has a value when Registered is to be looked at again. It is for one reader.
func (d *Drivers) Changed() <-chan struct{} { return d.changed }

// Registered are the drivers, by name.
func (d *Drivers) Registered() []Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Info, 0, len(d.byName))
	for _, name := range slices.Sorted(maps.Keys(d.byName)) {
		serving, _ := d.serving(name)
		all = append(all, serving.info)
	}
	return all
}

// get is the driver of this name. That it is missing is told in the kubelet's words,
// with what there is.
func (d *Drivers) get(name string) (driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if found, ok := d.serving(name); ok {
		return driver{name: name, endpoint: found.plugin.Endpoint}, nil
	}
	there := "none is registered on this machine"
	if len(d.byName) > 0 {
		there = "registered on this machine: " + strings.Join(slices.Sorted(maps.Keys(d.byName)), ", ")
	}
	return driver{}, fmt.Errorf("driver name %s not found in the list of registered CSI drivers (%s); it has to run on the machine itself, AI nodes run no DaemonSet pods", name, there)
}
