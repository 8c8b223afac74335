package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/contract/contracttest"
)

// What is told of a file is what the webhook tells of the pod, on every fixture of
// the support table; the fixtures are pods as an API server hands them on.
func TestFindingsAreTheWebhooks(t *testing.T) {
	t.Parallel()
	fixtures, err := contracttest.All()
	require.NoError(t, err)
	require.Greater(t, len(fixtures), 50)
	for _, f := range fixtures {
		t.Run(f.Path, func(t *testing.T) {
			t.Parallel()
			objects, errs := objectsOf("pod.yaml", withKind(t, f))
			require.Empty(t, errs)
			require.Len(t, objects, 1)
			o := objects[0]
			request, err := f.Request()
			require.NoError(t, err)
			if !contract.Targets(request.Pod, f.Namespace) || f.DaemonSet || f.Moment != contract.OnCreate {
				return // of another object than a new pod
			}
			want, err := request.Evaluate()
			require.NoError(t, err)
			got, err := Judge(o, Settings{Policy: f.Policy, Namespace: f.Namespace})
			require.NoError(t, err)
			require.False(t, got.Untouched)
			require.Equal(t, keys(o.findings(want, "")), keys(got.Findings))
			require.Equal(t, want.Denied(), got.Patched == nil)
			for _, found := range got.Findings {
				require.Positive(t, found.Line, found.Field)
				require.LessOrEqual(t, found.Line, bytes.Count(withKind(t, f), []byte("\n")), found.Field)
			}
		})
	}
}

// withKind is a fixture with the two lines that make it an object.
func withKind(t *testing.T, f contracttest.Fixture) []byte {
	t.Helper()
	var head struct{ Kind string }
	require.NoError(t, json.Unmarshal(f.JSON, &head))
	if head.Kind != "" {
		return f.YAML
	}
	return append([]byte("apiVersion: v1\nkind: Pod\n"), f.YAML...)
}

// keys are the findings that are neither routine nor the API server's own doing, and
// that the webhook tells too.
func keys(findings []Finding) []string {
	var all []string
	for _, f := range findings {
		if f.Level != Info && !strings.HasPrefix(f.Detail, notYetIntro) {
			all = append(all, fmt.Sprintf("%s %s %s %s", f.Level, f.Feature, f.Field, f.Detail))
		}
	}
	slices.Sort(all)
	return all
}

func TestLineOfAField(t *testing.T) {
	t.Parallel()
	const text = `base: &base
  ports:
  - 80
spec:
  <<: *base
  limits: {nvidia.com/gpu: 1,
    cpu: 2}
  list:
  -
    name: a
  - *base
twice: 1
twice: 2
`
	var node yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(text), &node))
	for field, line := range map[string]int{
		"":                            1,
		"spec":                        4,
		"spec.ports[0]":               3,
		"spec.ports[7]":               2,
		"spec.limits[nvidia.com/gpu]": 6,
		"spec.limits[cpu]":            7,
		"spec.limits[other]":          6,
		"spec.list[0].name":           10,
		"spec.list[1].ports[0]":       3,
		"spec.missing.deeper[3]":      4,
		"twice":                       13,
		"[":                           1,
		"spec[0]":                     4,
		"spec..ports":                 4,
	} {
		require.Equal(t, line, lineOf(node.Content[0], field), "%q", field)
	}
}

func TestTextIsSplitWhereKubectlSplitsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		lines      []int // where objects begin
		faults     []string
	}{
		{"nothing", "", nil, nil},
		{"comments alone", "# nothing\n---\n# here\n---\n", nil, nil},
		{"null", "---\nnull\n", nil, nil},
		{"without a last line's end", "kind: A", []int{1}, nil},
		{"a byte order mark", "\ufeffkind: A\n---\nkind: B\n", []int{1, 3}, nil},
		{"markers with comments and CRLF", "--- # one\r\nkind: A\r\n---\t\r\nkind: B\r\n", []int{2, 4}, nil},
		{"a directive", "%YAML 1.1\n---\nkind: A\n", []int{3}, nil},
		{"no marker within a word", "kind: A\ntext: |\n  ---\n", []int{1}, nil},
		{"JSON one after the other", "{\"kind\": \"A\"}\n{\n\"kind\": \"B\"}", []int{1, 2}, nil},
		{"JSON between markers", "---\n{\"kind\": \"A\"}\n---\n{\"kind\":\n\"B\"}\n", []int{2, 4}, nil},
		{"YAML that looks like JSON", "{kind: A,\n b: c}\n", []int{1}, nil},
		{"the second is broken", "kind: A\n---\nkind: [\n---\nkind: C\n", []int{1, 5}, []string{"f:3: not YAML: "}},
		{"a tab", "kind: A\nspec:\n\tx: 1\n", nil, []string{"f:3: not YAML: "}},
		{"a list's items", "kind: List\nitems:\n- kind: A\n- null\n- [1]\n- kind: B\n", []int{3, 6}, []string{"f:5: no Kubernetes object: a mapping"}},
		{"no kind", "a: b\n", nil, []string{"f:1: no Kubernetes object: it has no kind"}},
		{"itself", "a: &a\n  b: *a\n", nil, []string{"f:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			objects, errs := objectsOf("f", []byte(c.text))
			var lines []int
			for _, o := range objects {
				lines = append(lines, o.Line)
			}
			require.Equal(t, c.lines, lines)
			require.Len(t, errs, len(c.faults), "%v", errs)
			for i, want := range c.faults {
				require.True(t, strings.HasPrefix(errs[i].Error(), want), errs[i])
			}
		})
	}
}

// Nothing that a file holds makes check fall over.
func FuzzAnyFile(f *testing.F) {
	fixtures, err := contracttest.All()
	require.NoError(f, err)
	for _, fixture := range fixtures {
		f.Add(append([]byte("apiVersion: v1\nkind: Pod\n"), fixture.YAML...))
	}
	f.Add([]byte("apiVersion: v1\nkind: Pod\nspec: {containers: [null, {resources: {limits: null}}], volumes: {}, nodeName: ai-1}"))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nspec: {template: {metadata: [], spec: {nodeName: ai-1}}}"))
	f.Add([]byte("{\"kind\": \"List\", \"items\": [{}, null, 3]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, _ := objectsOf("f", text)
		var results []Result
		for _, o := range objects {
			if o.HasPod() {
				if r, err := Judge(o, Settings{}); err == nil {
					results = append(results, r)
				}
			}
		}
		_, _ = Guarded(objects, results, Settings{})
	})
}
