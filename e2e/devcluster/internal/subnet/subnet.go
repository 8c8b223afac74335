// Package subnet divides one /16 of private addresses among the parts of a
// cluster, and chooses a /16 that nothing on this machine uses.
package subnet

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

const (
	firstBlock = 64  // 10.64.0.0/16 …
	lastBlock  = 223 // … to 10.223.0.0/16: above what home and lab networks like to use

	// MaxMachines is what the third octet leaves room for.
	MaxMachines = 50
)

// Plan is the /16 10.Block.0.0.
type Plan struct {
	Block int `json:"block"`
}

func (p Plan) addr(third, fourth int) string {
	return fmt.Sprintf("10.%d.%d.%d", p.Block, third, fourth)
}
func (p Plan) cidr(third int) string { return p.addr(third, 0) + "/24" }

// All is the whole block, which the host routes to the node.
func (p Plan) All() string { return p.addr(0, 0) + "/16" }

// Host is this machine's address on the cable to the cluster, Node the other
// end: the API server, the registry and the ordinary node listen there.
func (p Plan) Host() string { return p.addr(0, 1) }
func (p Plan) Node() string { return p.addr(0, 2) }

// NodePods is the pod range of the ordinary node.
func (p Plan) NodePods() string       { return p.cidr(1) }
func (p Plan) NodePodGateway() string { return p.addr(1, 1) }

// Services is the range of ClusterIPs; APIService is the `kubernetes` one.
func (p Plan) Services() string   { return p.cidr(2) }
func (p Plan) APIService() string { return p.addr(2, 1) }
func (p Plan) DNSService() string { return p.addr(2, 10) }

// Gateway and Machine are the two ends of the cable to the i-th machine.
func (p Plan) Gateway(i int) string { return p.addr(10+i, 1) }
func (p Plan) Machine(i int) string { return p.addr(10+i, 2) }

// MachinePods is a pod range that is routed to the i-th machine.
func (p Plan) MachinePods(i int) string       { return p.cidr(100 + i) }
func (p Plan) MachinePodGateway(i int) string { return p.addr(100+i, 1) }

// Choose starts at a place that follows from the cluster's id, so that the same
// directory gets the same addresses again, and takes the first block that
// overlaps nothing in use.
func Choose(id string, used []netip.Prefix) (Plan, error) {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) < 4 {
		return Plan{}, fmt.Errorf("choosing a subnet: %q is no cluster id", id)
	}
	count := lastBlock - firstBlock + 1
	start := int(binary.BigEndian.Uint32(raw) % uint32(count))
	for i := range count {
		plan := Plan{Block: firstBlock + (start+i)%count}
		if !overlaps(netip.MustParsePrefix(plan.All()), used) {
			return plan, nil
		}
	}
	return Plan{}, fmt.Errorf("no free subnet: this machine routes or owns an address in every /16 from 10.%d.0.0 to 10.%d.0.0; see `ip route`", firstBlock, lastBlock)
}

func overlaps(block netip.Prefix, used []netip.Prefix) bool {
	for _, prefix := range used {
		// The default route covers everything and means nothing.
		if prefix.Bits() > 0 && prefix.Overlaps(block) {
			return true
		}
	}
	return false
}

// InUse lists what this machine routes or owns.
func InUse() ([]netip.Prefix, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing this machine's addresses: %w", err)
	}
	var used []netip.Prefix
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Is4() {
			used = append(used, prefix.Masked())
		}
	}
	table, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("reading the routing table: %w", err)
	}
	return append(used, parseRoutes(string(table))...), nil
}

// parseRoutes reads /proc/net/route, whose addresses are little-endian hex.
func parseRoutes(table string) []netip.Prefix {
	var routes []netip.Prefix
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[0] == "Iface" {
			continue
		}
		destination, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		var address, ones [4]byte
		binary.LittleEndian.PutUint32(address[:], uint32(destination))
		binary.LittleEndian.PutUint32(ones[:], uint32(mask))
		bits, _ := net.IPMask(ones[:]).Size()
		routes = append(routes, netip.PrefixFrom(netip.AddrFrom4(address), bits).Masked())
	}
	return routes
}
