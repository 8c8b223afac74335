package top

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The figures are those of NVIDIA's mock, which an agent has shown (its own test of what
// it shows writes the file): 30 °C, 70 W, no use, 144384 MiB, and MIG slices of 71 and 18 GB.
func TestFiguresOfTheMock(t *testing.T) {
	t.Parallel()
	metrics, err := os.ReadFile("testdata/dgxh200.metrics")
	require.NoError(t, err)
	cards, err := Parse(metrics)
	require.NoError(t, err)
	require.Len(t, cards, 8)
	nodes := []Node{{Name: "ai-1", Simulated: true, Cards: cards}}
	now := time.Date(2026, 11, 26, 12, 7, 0, 0, time.UTC)
	var out strings.Builder
	require.NoError(t, Cards(&out, nodes, now))
	require.Equal(t, `ai-1  8×H200 141GB HBM3e (simulated), 2 in use; 1 of 2 MIG slices
GPU          UTIL  MEMORY     POWER  TEMP  ECC  XID  IDLE  POD
0            0%    0.0/141Gi  70W    30C   0    -    7m    ml/train
1            0%    0.0/141Gi  70W    30C   0    -    7m    -
2            0%    0.0/141Gi  70W    30C   0    -    7m    -
3            0%    0.0/141Gi  70W    30C   0    -    7m    -
4            0%    0.0/141Gi  70W    30C   0    -    7m    -
5            0%    0.0/141Gi  70W    30C   0    79   7m    out
6            0%    0.0/141Gi  70W    30C   0    -    7m    -
7            -     0.0/141Gi  70W    30C   0    -    -     MIG
7/1 3g.71gb  -     0.0/70Gi   -      -     -    -    -     -
7/2 1g.18gb  -     0.0/18Gi   -      -     -    -    -     ml/serve
`, out.String())
	out.Reset()
	require.NoError(t, Pods(&out, nodes, now))
	require.Equal(t, `POD       NODE  GPUS   UTIL  MEMORY     POWER  IDLE
ml/serve  ai-1  1 MIG  -     0.0/18Gi   -      -
ml/train  ai-1  1      0%    0.0/141Gi  70W    7m
`, out.String())
}
