package gpu

import (
	"encoding/csv"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// smiCards is what nvidia-smi is asked of cards that are compared with ours.
const smiCards = "index,uuid,name,pci.bus_id,driver_version,memory.total,compute_cap,ecc.mode.current,mig.mode.current"

// parseSMI reads nvidia-smi's CSV with a header and no units: a row a card, by the
// names that were asked for.
func parseSMI(text string) ([]map[string]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	all, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read what nvidia-smi says: %w: %s", err, text)
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("nvidia-smi shows no card: %s", text)
	}
	var rows []map[string]string
	for _, values := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			name, _, _ = strings.Cut(name, " [") // the unit, of which the value has none
			row[name] = strings.TrimSpace(values[i])
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// none are nvidia-smi's words for what a card does not have, over its versions.
func none(value string) bool {
	return slices.Contains([]string{"[N/A]", "N/A", "[Not Supported]"}, value)
}

// differences are the fields of cards in which we and nvidia-smi do not say the same.
func differences(found Found, rows []map[string]string) []string {
	var all []string
	if len(found.Broken) > 0 || len(found.Cards) != len(rows) {
		all = append(all, fmt.Sprintf("nvidia-smi shows %d cards, we %d and broken %v", len(rows), len(found.Cards), found.Broken))
	}
	enabled := func(on bool) string {
		if on {
			return "Enabled"
		}
		return "Disabled"
	}
	for _, row := range rows {
		card, ok := found.Card(row["uuid"])
		if !ok {
			all = append(all, row["uuid"]+" is not among ours")
			continue
		}
		ours := map[string]string{
			"index": strconv.Itoa(card.Index), "uuid": card.UUID, "name": card.Product, "pci.bus_id": card.PCIBusID,
			"driver_version": found.DriverVersion, "memory.total": strconv.FormatUint(card.MemoryBytes>>20, 10),
			"compute_cap":      fmt.Sprintf("%d.%d", card.CUDAMajor, card.CUDAMinor),
			"ecc.mode.current": enabled(card.ECC), "mig.mode.current": enabled(card.MIG),
		}
		for _, name := range strings.Split(smiCards, ",") {
			theirs, told := row[name]
			switch {
			case !told:
				all = append(all, card.UUID+" "+name+": nvidia-smi says nothing")
			case strings.EqualFold(theirs, ours[name]), none(theirs) && ours[name] == "Disabled":
			default:
				all = append(all, fmt.Sprintf("%s %s: nvidia-smi says %q, we %q", card.UUID, name, theirs, ours[name]))
			}
		}
	}
	return all
}

// smiCUDA is the CUDA version in nvidia-smi's banner.
var smiCUDA = regexp.MustCompile(`CUDA (?:UMD )?Version\s*: *([0-9]+\.[0-9]+)`)

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// linkDifferences are the pairs of cards that nvidia-smi topo -m joins otherwise than we.
func linkDifferences(found Found, matrix string) []string {
	var all, columns []string
	compared := 0
	byIndex := map[string]string{}
	for _, c := range found.Cards {
		byIndex["GPU"+strconv.Itoa(c.Index)] = c.UUID
	}
	for _, line := range strings.Split(escapes.ReplaceAllString(matrix, ""), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "GPU") {
			continue
		}
		if columns == nil { // the header, whose first column has no name
			columns = fields
			continue
		}
		for i, theirs := range fields[1:] {
			if i >= len(columns) || !strings.HasPrefix(columns[i], "GPU") || fields[0] == columns[i] {
				continue
			}
			link := found.Links.Between(byIndex[fields[0]], byIndex[columns[i]])
			ours := link.Path.String()
			if link.NVLinks > 0 {
				ours = "NV" + strconv.Itoa(link.NVLinks)
			}
			compared++
			if ours != theirs {
				all = append(all, fmt.Sprintf("%s to %s: nvidia-smi says %s, we %s", fields[0], columns[i], theirs, ours))
			}
		}
	}
	if n := len(found.Cards); compared != n*(n-1) {
		all = append(all, fmt.Sprintf("of %d pairs nvidia-smi shows %d", n*(n-1), compared))
	}
	return all
}

// smiReadings is what nvidia-smi calls what we measure, and how far two looks at a card
// that nobody changes may be apart for its noise, besides a tenth.
var smiReadings = map[string]struct {
	field string
	noise float64
}{
	"memory.used":                            {FieldMemoryUsed, 16},                // MiB
	"memory.free":                            {"DCGM_FI_DEV_FB_FREE", 16},          // MiB
	"memory.reserved":                        {"DCGM_FI_DEV_FB_RESERVED", 1},       // MiB
	"power.draw":                             {"DCGM_FI_DEV_POWER_USAGE", 5},       // W
	"temperature.gpu":                        {"DCGM_FI_DEV_GPU_TEMP", 2},          // °C
	"temperature.memory":                     {"DCGM_FI_DEV_MEMORY_TEMP", 2},       // °C
	"clocks.sm":                              {"DCGM_FI_DEV_SM_CLOCK", 30},         // MHz
	"clocks.mem":                             {"DCGM_FI_DEV_MEM_CLOCK", 10},        // MHz
	"utilization.gpu":                        {FieldUtilization, 5},                // %
	"utilization.memory":                     {"DCGM_FI_DEV_MEM_COPY_UTIL", 5},     // %
	"ecc.errors.corrected.volatile.total":    {"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 0}, // errors
	"ecc.errors.uncorrected.volatile.total":  {"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0}, // errors
	"ecc.errors.corrected.aggregate.total":   {"DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", 0}, // errors
	"ecc.errors.uncorrected.aggregate.total": {"DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", 0}, // errors
}

// agrees reports whether what we measured lies between what nvidia-smi did before and
// after it, give or take a tenth or the noise. What a card lacks, both lack.
func agrees(name string, ours Reading, before, after map[string]string) (ok bool, text string) {
	r := smiReadings[name]
	value, measured := ours[r.field]
	text = fmt.Sprintf("%s: nvidia-smi %s and %s, we %v", name, before[name], after[name], value)
	if none(before[name]) {
		return !measured, text
	}
	low, err1 := strconv.ParseFloat(before[name], 64)
	high, err2 := strconv.ParseFloat(after[name], 64)
	if err1 != nil || err2 != nil || !measured {
		return false, text
	}
	low, high = min(low, high), max(low, high)
	return value >= low-math.Max(low/10, r.noise) && value <= high+math.Max(high/10, r.noise), text
}

// As nvidia-smi prints cards (format and numbers of an H100 with driver 580), here with the
// UUIDs of the mock.
const smiOfH100 = `index, uuid, name, pci.bus_id, driver_version, memory.total [MiB], compute_cap, ecc.mode.current, mig.mode.current
0, %s, NVIDIA H100 80GB HBM3, 00000000:1B:00.0, 580.82.07, 81559, 9.0, Enabled, Disabled
1, %s, NVIDIA H100 80GB HBM3, 00000000:43:00.0, 580.82.07, 81559, 9.0, Enabled, Disabled
`

// h100s is the mock of two such cards, and what nvidia-smi would say of them.
func h100s(t *testing.T) (Found, []map[string]string) {
	t.Helper()
	s := dgxh100.New()
	complete(s, "")
	s.Devices, s.DriverVersion = s.Devices[:2], "580.82.07"
	for i, bus := range []string{"00000000:1B:00.0", "00000000:43:00.0"} {
		d := card(s, i)
		d.PciBusID = bus
		d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: 81559 << 20}, nvml.SUCCESS }
	}
	m := mocked(t, s)
	rows, err := parseSMI(fmt.Sprintf(smiOfH100, card(s, 0).UUID, card(s, 1).UUID))
	require.NoError(t, err)
	return m.Found(), rows
}

// The comparison that a real card is put to sees each field that differs.
func TestWeAreComparedWithNvidiaSMI(t *testing.T) {
	t.Parallel()
	found, rows := h100s(t)
	for i := range found.Cards { // the mock lends its name a suffix in simulation
		found.Cards[i].Product = strings.TrimSuffix(found.Cards[i].Product, " [SIMULATED]")
	}
	require.Empty(t, differences(found, rows))
	for _, name := range strings.Split(smiCards, ",") {
		changed := []map[string]string{rows[0], maps.Clone(rows[1])}
		changed[1][name] = "x"
		require.Len(t, differences(found, changed), 1, name)
		delete(changed[1], name)
		require.Len(t, differences(found, changed), 1, name)
	}
	require.Len(t, differences(found, rows[:1]), 1, "one more than nvidia-smi shows")
	rows[1]["mig.mode.current"], rows[1]["ecc.mode.current"] = "[N/A]", "[N/A]"
	require.Len(t, differences(found, rows), 1, "a card without MIG is one that is not in that mode; ours has ECC")
	_, err := parseSMI("No devices were found\n")
	require.ErrorContains(t, err, "shows no card")
	require.Equal(t, "13.0", smiCUDA.FindStringSubmatch("| NVIDIA-SMI 580.82.07    Driver Version: 580.82.07    CUDA Version: 13.0     |")[1])
}

func TestLinksAreComparedWithNvidiaSMI(t *testing.T) {
	t.Parallel()
	found := Found{Cards: []Card{{UUID: "a", Index: 0}, {UUID: "b", Index: 1}, {UUID: "c", Index: 2}}}
	found.Links.Join("a", "b", topology.Link{NVLinks: 18, Path: topology.Node})
	found.Links.Join("a", "c", topology.Link{Path: topology.System})
	found.Links.Join("b", "c", topology.Link{Path: topology.OneSwitch})
	const matrix = "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m\nGPU0\t X \tNV18\tSYS\tPIX\t0-51\t0\nGPU1\tNV18\t X \tPIX\tSYS\t0-51\t0\nGPU2\tSYS\tPIX\t X \tSYS\t52-103\t1\n\nLegend:\n\n  X    = Self\n"
	require.Empty(t, linkDifferences(found, matrix))
	require.Equal(t, []string{"GPU0 to GPU1: nvidia-smi says NV12, we NV18"}, linkDifferences(found, strings.Replace(matrix, "NV18", "NV12", 1)))
	require.Equal(t, []string{"of 6 pairs nvidia-smi shows 0"}, linkDifferences(found, "command not found"))
}

func TestReadingsAreComparedWithNvidiaSMI(t *testing.T) {
	t.Parallel()
	see := func(name string, ours float64, before, after string) bool {
		ok, _ := agrees(name, Reading{smiReadings[name].field: ours}, map[string]string{name: before}, map[string]string{name: after})
		return ok
	}
	require.True(t, see("power.draw", 300, "310.21", "330.00"), "within a tenth")
	require.False(t, see("power.draw", 270, "310.21", "330.00"))
	require.False(t, see("power.draw", 364, "310.21", "330.00"))
	require.True(t, see("power.draw", 320, "80.5", "330.00"), "it changed between their two looks")
	require.True(t, see("utilization.gpu", 4, "0", "0"), "noise")
	require.False(t, see("ecc.errors.uncorrected.volatile.total", 1, "0", "0"))
	require.False(t, see("memory.used", 81559-512, "512", "512"), "free is not used")
	require.False(t, see("temperature.memory", 40, "N/A", "N/A"), "we have what nvidia-smi says that there is not")
	ok, _ := agrees("temperature.memory", Reading{}, map[string]string{"temperature.memory": "N/A"}, nil)
	require.True(t, ok)
	ok, _ = agrees("clocks.sm", Reading{}, map[string]string{"clocks.sm": "1980"}, map[string]string{"clocks.sm": "1980"})
	require.False(t, ok, "we don't measure it")
	for name, r := range smiReadings {
		require.True(t, slices.ContainsFunc(Fields, func(f Field) bool { return f.Name == r.field }), name)
	}
}
