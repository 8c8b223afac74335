package kube

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// The highest version is the one that the module is built with, the lowest the one that
// e2e/older runs.
func TestTriedVersionsAreThoseThatTestsRun(t *testing.T) {
	t.Parallel()
	for file, tried := range map[string]int{"../../../go.mod": highest, "../../../e2e/devcluster/older.mod": lowest} {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		minor := regexp.MustCompile(`k8s\.io/client-go v0\.(\d+)\.`).FindSubmatch(raw)
		require.NotNil(t, minor)
		require.Equal(t, strconv.Itoa(tried), string(minor[1]))
	}
}

// Helm refuses what bind refuses, and nothing else.
func TestTheChartAsksForTheSameVersion(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../../charts/ainode/Chart.yaml")
	require.NoError(t, err)
	require.Contains(t, string(raw), fmt.Sprintf("\nkubeVersion: \">=1.%d.0-0\"\n", oldest))
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, fine := range []string{"v1.35.4", "v1.36.0-alpha.1", "v1.37.2+vendor.3"} {
		require.Nil(t, Judge(fine), fine)
	}
	for version, unfit := range map[string]bool{
		"v1.39.0": false, "v1.34.9": false, "v1.32.0": false, "v1.31.14": true, "v2.0.0": true, "v0.0.0-master+$Format:%H$": false, "": false,
	} {
		doubt := Judge(version)
		require.NotNil(t, doubt, version)
		require.Equal(t, unfit, doubt.Unfit, version)
	}
	require.Equal(t, "AI nodes are tried with 1.35 to 1.37; it may work", Judge("v1.39.0").Why)
}
