package gpu

import (
	"maps"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// What the tests on real cards, which are of another package, compare with.
var (
	ParseSMI        = parseSMI
	Differences     = differences
	LinkDifferences = linkDifferences
	Agrees          = agrees
	SMICUDA         = smiCUDA
)

// SMICards is smiCards.
const SMICards = smiCards

// SMITelemetry are the fields that nvidia-smi is asked of, besides uuid.
func SMITelemetry() string {
	return strings.Join(append([]string{"uuid"}, slices.Sorted(maps.Keys(smiReadings))...), ",")
}

// DriverRoot is where the driver of such a machine lies.
var DriverRoot = driverRoot

// H100s is the mock of a machine with eight cards.
func H100s() *server.Server {
	s := dgxh100.New()
	complete(s, "")
	return s
}
