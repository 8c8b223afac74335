package contract_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

func fixtures(t *testing.T) []contracttest.Fixture {
	t.Helper()
	all, err := contracttest.All()
	require.NoError(t, err)
	return all
}

func evaluate(t *testing.T, f contracttest.Fixture) contract.Verdict {
	t.Helper()
	request, err := f.Request()
	require.NoError(t, err)
	verdict, err := request.Evaluate()
	require.NoError(t, err)
	return verdict
}

// apply is the pod after the verdict's patch.
func apply(t *testing.T, pod []byte, v contract.Verdict) []byte {
	t.Helper()
	if len(v.Patch) == 0 {
		return pod
	}
	raw, err := json.Marshal(v.Patch)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(raw)
	require.NoError(t, err)
	after, err := patch.Apply(pod)
	require.NoError(t, err, "the patch does not fit the pod: %s", raw)
	return after
}

// Every fixture becomes what stands beside it: what the user reads, and the pod
// as it is stored. Run with -update to write it, and read the difference.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		t.Run(string(f.Feature)+"/"+f.Name, func(t *testing.T) {
			t.Parallel()
			v := evaluate(t, f)
			var golden bytes.Buffer
			for _, w := range v.Warnings() {
				fmt.Fprintf(&golden, "# Warning: %s\n", w)
			}
			if refusal := v.Refusal(); refusal != "" {
				fmt.Fprintf(&golden, "# %s\n", strings.ReplaceAll(refusal, "\n", "\n# "))
			}
			if after := apply(t, f.JSON, v); len(v.Patch) > 0 {
				pod, err := yaml.JSONToYAML(after)
				require.NoError(t, err)
				golden.Write(pod)
			}
			path := filepath.Join("contracttest", strings.TrimSuffix(f.Path, ".yaml")+".golden")
			if *update {
				require.NoError(t, os.WriteFile(path, golden.Bytes(), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err, "run with -update")
			require.Empty(t, cmp.Diff(string(want), golden.String()))

			outcome := "allowed"
			for _, finding := range v.Findings {
				if finding.Feature != f.Feature {
					continue
				}
				switch finding.Action {
				case contract.Deny:
					outcome = "rejected"
				case contract.Warn:
					if outcome == "allowed" {
						outcome = "warned"
					}
				default:
					if outcome != "rejected" {
						outcome = "changed"
					}
				}
			}
			named, _, _ := strings.Cut(f.Name, "-")
			if f.Feature != "pod" { // the fixtures of whole pods speak of every row
				require.Equal(t, named, outcome, "the fixture's name says what becomes of the pod")
			}
		})
	}
}

// A row that does something brings a pod that it leaves alone, and one for each
// mode that it can be in.
func TestEveryRowBringsItsFixtures(t *testing.T) {
	t.Parallel()
	have := map[contract.Feature][]string{}
	overridden := map[contract.Feature][]contract.Action{}
	for _, f := range fixtures(t) {
		outcome, _, _ := strings.Cut(f.Name, "-")
		have[f.Feature] = append(have[f.Feature], outcome)
		overridden[f.Feature] = append(overridden[f.Feature], f.Policy.Overrides[f.Feature])
		_, known := contract.Lookup(f.Feature)
		require.True(t, known, "fixtures of %q, which is no row", f.Feature)
	}
	outcomes := map[contract.Action]string{
		contract.Allow: "allowed", contract.Warn: "warned", contract.Deny: "rejected",
	}
	for _, row := range contract.Table {
		for _, mode := range row.Overrides {
			require.Contains(t, overridden[row.Feature], mode, "%s has no fixture for its override", row.Feature)
		}
		if row.Default == contract.Allow {
			continue
		}
		want := []string{"allowed"}
		if outcome, ok := outcomes[row.Default]; ok {
			want = append(want, outcome)
		} else {
			want = append(want, "changed")
		}
		for _, outcome := range want {
			require.True(t, slices.Contains(have[row.Feature], outcome), "%s has no fixture %s*.yaml", row.Feature, outcome)
		}
	}
	var stray []string
	require.NoError(t, filepath.WalkDir("contracttest/testdata", func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".golden" {
			if _, err := os.Stat(strings.TrimSuffix(path, ".golden") + ".yaml"); err != nil {
				stray = append(stray, path)
			}
		}
		return err
	}))
	require.Empty(t, stray, "goldens without a fixture")
}

// What a second pass finds on a pod that was changed is never a change.
func TestTwiceIsOnce(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		if f.Moment != contract.OnCreate {
			continue
		}
		first := evaluate(t, f)
		if first.Denied() {
			require.Empty(t, first.Patch, "%s: a refused pod gets no patch", f.Path)
			continue
		}
		f.JSON = apply(t, f.JSON, first)
		require.Empty(t, evaluate(t, f).Patch, "%s: the second pass changes something", f.Path)
	}
}

// Place and Strip are the two halves of Evaluate.
func TestPlaceAndStripAreEvaluate(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		request, err := f.Request()
		require.NoError(t, err)
		place, err := request.Place()
		require.NoError(t, err)
		request, err = f.Request()
		require.NoError(t, err)
		strip, err := request.Strip()
		require.NoError(t, err)
		whole := evaluate(t, f)
		require.Len(t, whole.Findings, len(place.Findings)+len(strip.Findings), f.Path)
	}
}
