package house

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/ainode/ainode/"

// goFile is one parsed source file, its path relative to the root.
type goFile struct {
	path  string
	lines int
	ast   *ast.File
	set   *token.FileSet
}

func (f goFile) test() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f goFile) generated() bool { return strings.HasPrefix(filepath.Base(f.path), "zz_generated") }
func (f goFile) room() string    { return filepath.ToSlash(filepath.Dir(f.path)) }

// sources parses every Go file of the repository, once.
func sources(t *testing.T) []goFile {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	var files []goFile
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, path, raw, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files = append(files, goFile{path: rel, lines: bytes.Count(raw, []byte("\n")), ast: parsed, set: set})
		return nil
	}))
	require.Greater(t, len(files), 20, "the walk found too few files to judge anything")
	return files
}

func TestEveryRoomSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	docs := map[string]bool{}
	for _, f := range sources(t) {
		if f.test() {
			continue
		}
		docs[f.room()] = docs[f.room()] || f.ast.Doc != nil
	}
	for room, ok := range docs {
		if !ok {
			t.Errorf("%s has no package comment: say in one sentence what the room is for", room)
		}
		switch filepath.Base(room) {
		case "util", "utils", "common", "helpers", "misc", "types", "shared", "base":
			t.Errorf("%s is no noun: name the room after what it holds", room)
		}
	}
}

func TestFilesAreReadInOneSitting(t *testing.T) {
	t.Parallel()
	const most = 500
	for _, f := range sources(t) {
		if !f.generated() && !f.test() && f.lines > most {
			t.Errorf("%s has %d lines, at most %d: cut it where the subject changes", f.path, f.lines, most)
		}
	}
}

// arrow forbids imports: rooms below from may not import anything that begins
// with one of to.
type arrow struct {
	from []string
	to   []string
	why  string
}

var forbidden = []arrow{
	{[]string{"api/"}, []string{module + "plugin", module + "webhook", module + "nodeagent", module + "e2e"},
		"api is the deepest room: the programs import it, it imports none of them"},
	{[]string{"api/contract"}, []string{"k8s.io/client-go", "k8s.io/klog", "sigs.k8s.io/controller-runtime", module + "api/v1alpha1", "os", "time", "log"},
		"the contract is pure: no client, clock, disk or logger"},
	{[]string{"plugin/"}, []string{module + "webhook", module + "nodeagent"}, "components never import each other"},
	{[]string{"webhook/"}, []string{module + "plugin", module + "nodeagent"}, "components never import each other"},
	{[]string{"nodeagent/"}, []string{module + "plugin", module + "webhook"}, "components never import each other"},
	{[]string{"plugin/", "webhook/"}, []string{"github.com/NVIDIA", "k8s.io/cri-api", "k8s.io/cri-client", "github.com/containerd"},
		"what needs the machine stays on the machine (the plugin is pure Go for three systems)"},
	{[]string{"nodeagent/"}, []string{"k8s.io/kubectl", "k8s.io/cli-runtime"}, "kubectl never reaches the agent"},
	{[]string{"nodeagent/internal/crispec", "nodeagent/internal/podstatus", "nodeagent/internal/topology", "nodeagent/internal/ossfs"},
		[]string{"k8s.io/client-go", "k8s.io/klog", "os", module + "nodeagent/internal/pods", module + "nodeagent/internal/volumes", module + "nodeagent/internal/images", module + "nodeagent/internal/agent"},
		"pure rooms see no client, disk or logger, and no room above them"},
	{[]string{"nodeagent/internal/gpu", "nodeagent/internal/images", "nodeagent/internal/volumes", "nodeagent/internal/cri", "nodeagent/internal/network", "nodeagent/internal/logrotation", "nodeagent/internal/imagegc", "nodeagent/internal/usage", "nodeagent/internal/cgroup",
		"nodeagent/internal/fuse", "nodeagent/internal/ossfs", "nodeagent/internal/csi", "nodeagent/internal/pluginregistration"},
		[]string{module + "nodeagent/internal/pods", module + "nodeagent/internal/agent", module + "nodeagent/internal/binding"},
		"devices are used by behaviour, not the other way round"},
	{[]string{"nodeagent/internal/pods", "nodeagent/internal/binding", "nodeagent/internal/nodestatus", "nodeagent/internal/csinode", "nodeagent/internal/kubeletapi", "nodeagent/internal/eviction", "nodeagent/internal/shutdown", "nodeagent/internal/term"},
		[]string{module + "nodeagent/internal/agent"}, "the wiring room imports behaviour, not the other way round"},
	{[]string{"nodeagent/internal/admission", "nodeagent/internal/backoff", "nodeagent/internal/checkpoint", "nodeagent/internal/gpuallocation", "nodeagent/internal/hooks",
		"nodeagent/internal/plan", "nodeagent/internal/podfiles", "nodeagent/internal/statuswriter"},
		[]string{module + "nodeagent/internal/pods", module + "nodeagent/internal/agent"}, "what the pods are run by knows nothing of who runs them"},
	{[]string{"nodeagent/internal/admission", "nodeagent/internal/backoff", "nodeagent/internal/gpuallocation", "nodeagent/internal/plan"},
		[]string{"k8s.io/client-go", "os"}, "what is to be decided is decided without a client or a disk"},
}

func TestArrowsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test() {
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			for _, rule := range forbidden {
				if within(f.room()+"/", rule.from) && within(imported, rule.to) {
					t.Errorf("%s imports %s: %s", f.path, imported, rule.why)
				}
			}
		}
	}
}

func TestMainIsADoorstep(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.ast.Name.Name == "main" && filepath.Base(f.path) == "main.go" && strings.Contains(f.path, "/cmd/") &&
			!strings.HasPrefix(f.path, "e2e/") && f.lines > 60 && !strings.Contains(f.path, "simulated") {
			t.Errorf("%s has %d lines, at most 60: the program belongs in its wiring room", f.path, f.lines)
		}
	}
}

// The closed top level of the house.
func TestTopLevelIsClosed(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"api", "plugin", "webhook", "nodeagent", "charts", "e2e", "docs", "go.mod", "go.sum", "Makefile",
		"krew.yaml", "README.md", "LICENSE", "CONTRIBUTING.md", "SUPPORT.md",
	}
	entries, err := os.ReadDir("../..")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s stands at the top level, which is closed: %s", e.Name(), strings.Join(allowed, " "))
		}
	}
}

// The contract's strings are literals in api/contract alone. Tests may quote
// them: they say what users see.
func TestContractStringsStandInOnePlace(t *testing.T) {
	t.Parallel()
	literals := []string{
		"alibabacloud.com/virtual-node", "virtual-kubelet.io/provider", "aliclouddb",
		"ainode.dev/schedule", "ainode.dev/gpus", "ainode.dev/admission", "nvidia.com/mig-",
		"ossplugin.csi.alibabacloud.com",
	}
	found := 0
	for _, f := range sources(t) {
		if f.test() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				return true
			}
			if !slices.Contains(literals, value) {
				return true
			}
			found++
			if !strings.HasPrefix(f.path, "api/contract/") {
				t.Errorf("%s: %q is the contract's: use api/contract's constant", f.set.Position(lit.Pos()), value)
			}
			return true
		})
	}
	require.NotZero(t, found, "no literal of the contract found at all: this test looks for the wrong ones")
}

func TestNothingIsReplacedOrUnpinned(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		if strings.HasPrefix(strings.TrimSpace(lines.Text()), "replace ") {
			t.Errorf("go.mod:%d replaces a module: people who import api/ would not get the same", n)
		}
	}
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	require.NotContains(t, string(makefile), "@latest", "a tool without a pinned version changes under our feet")
}

func within(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}
