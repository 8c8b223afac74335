package gpu

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// paths are NVML's words for how two cards reach each other.
var paths = map[nvml.GpuTopologyLevel]topology.Path{
	nvml.TOPOLOGY_INTERNAL:   topology.Board,
	nvml.TOPOLOGY_SINGLE:     topology.OneSwitch,
	nvml.TOPOLOGY_MULTIPLE:   topology.ManySwitches,
	nvml.TOPOLOGY_HOSTBRIDGE: topology.HostBridge,
	nvml.TOPOLOGY_NODE:       topology.Node,
	nvml.TOPOLOGY_SYSTEM:     topology.System,
}

// readLinks reads what joins the cards. What a driver does not tell is left out:
// cards are then chosen with less knowledge.
func readLinks(cards []Card, devices []nvml.Device) topology.Map {
	direct, switched := make([]map[string]int, len(cards)), make([]int, len(cards))
	for i, device := range devices {
		direct[i], switched[i] = nvLinks(device)
	}
	var links topology.Map
	for i := range cards {
		for j := i + 1; j < len(cards); j++ {
			link := topology.Link{NVLinks: direct[i][cards[j].PCIBusID] + min(switched[i], switched[j])}
			if level, ret := devices[i].GetTopologyCommonAncestor(devices[j]); ret == nvml.SUCCESS {
				link.Path = paths[level]
			}
			links.Join(cards[i].UUID, cards[j].UUID, link)
		}
	}
	return links
}

// nvLinks counts the NVLinks of a card that are up: those to other cards, by the
// other's PCI bus id, and those into switches, which reach every card there.
func nvLinks(device nvml.Device) (direct map[string]int, switched int) {
	direct = map[string]int{}
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := device.GetNvLinkState(link)
		if ret == nvml.ERROR_NOT_SUPPORTED && link == 0 {
			return direct, 0 // a card without NVLink
		}
		if ret != nvml.SUCCESS || state != nvml.FEATURE_ENABLED {
			continue
		}
		kind, ret := device.GetNvLinkRemoteDeviceType(link)
		switch {
		case ret == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH:
			switched++
		case ret == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_GPU:
			if pci, ret := device.GetNvLinkRemotePciInfo(link); ret == nvml.SUCCESS {
				direct[text(pci.BusId[:])]++
			}
		}
	}
	return direct, switched
}
