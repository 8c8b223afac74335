package agent

import (
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/mount-utils"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

// csiDrivers are the CSI drivers of this machine. They are the machine's and not a
// binding's: what they have mounted is taken away when the machine is unbound.
type csiDrivers struct {
	watcher *pluginregistration.Watcher
	volumes *csi.Manager
}

func openDrivers(cfg config.Run, node, boot string) (csiDrivers, error) {
	drivers := csi.NewDrivers(contract.OSSDriver)
	volumes, err := csi.New(csi.Options{Dir: cfg.KubeletDir, Node: node, Boot: boot, Drivers: drivers, Mounter: mount.New("")})
	if err != nil {
		return csiDrivers{}, err
	}
	return csiDrivers{
		volumes: volumes,
		watcher: &pluginregistration.Watcher{Dir: cfg.PluginsDir(), Handlers: map[string]pluginregistration.Handler{registration.CSIPlugin: drivers}},
	}, nil
}
