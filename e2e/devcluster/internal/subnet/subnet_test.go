package subnet

import (
	"net/netip"
	"testing"
)

func TestChooseIsStableAndAvoidsWhatIsInUse(t *testing.T) {
	first, err := Choose("00000001", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Choose("00000001", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")})
	if first != again {
		t.Errorf("the default route moved the choice from %v to %v", first, again)
	}
	for _, taken := range []string{first.All(), first.Host() + "/32", "10.64.0.0/15"} {
		next, err := Choose("00000001", []netip.Prefix{netip.MustParsePrefix(taken)})
		if err != nil {
			t.Fatal(err)
		}
		if netip.MustParsePrefix(next.All()).Overlaps(netip.MustParsePrefix(taken)) {
			t.Errorf("chose %s although %s is in use", next.All(), taken)
		}
	}
}

func TestChooseSaysWhenNothingIsFree(t *testing.T) {
	if _, err := Choose("00000001", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Error("10.0.0.0/8 is in use, and still a subnet was chosen")
	}
	if _, err := Choose("nonsense", nil); err == nil {
		t.Error("a bad id was accepted")
	}
}

func TestPartsLieInTheBlockAndApart(t *testing.T) {
	plan := Plan{Block: 77}
	all := netip.MustParsePrefix(plan.All())
	ranges := []string{plan.Host() + "/24", plan.NodePods(), plan.Services()}
	for i := 1; i <= MaxMachines; i++ {
		ranges = append(ranges, plan.Gateway(i)+"/24", plan.MachinePods(i))
	}
	seen := map[netip.Prefix]bool{}
	for _, text := range ranges {
		prefix := netip.MustParsePrefix(text).Masked()
		if !all.Contains(prefix.Addr()) || seen[prefix] {
			t.Errorf("%s is outside the block or used twice", prefix)
		}
		seen[prefix] = true
	}
}

func TestParseRoutes(t *testing.T) {
	table := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0114A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0014A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	routes := parseRoutes(table)
	if len(routes) != 2 || routes[0].String() != "0.0.0.0/0" || routes[1].String() != "192.168.20.0/24" {
		t.Errorf("got %v", routes)
	}
}
