// Package build makes the programs of a cluster from their Go modules. What is
// there already, from the same sources, is left alone.
package build

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"

	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/progress"
)

// Versions of what is built. Kubernetes' is that of this module's go.mod; Older's, two
// minors before, that of older.mod. Newer is Kubernetes that calls itself so.
const (
	Kubernetes = "v1.37.2"
	Older      = "v1.35.4"
	Newer      = "v1.39.0"
	Containerd = "v2.4.2"
	CNIPlugins = "v1.9.1"
	Helm       = "v4.3.1"
)

// Target is one build step and what comes of it.
type Target struct {
	Name     string
	Title    string
	outputs  []string // under DIR/bin
	links    []string // further names of the first output
	packages []string // what to build; with a version: from that module
	tags     string
	ldflags  string
	folder   string // under DIR/bin, for the outputs
	modfile  string // where not go.mod has the versions
}

// modfiles are where the versions of all that a Kubernetes is linked with stand.
var modfiles = map[string]string{Kubernetes: "go.mod", Older: "older.mod", Newer: "go.mod"}

// Targets lists what a cluster of this Kubernetes needs, in the order to build it.
func Targets(kubernetes string) ([]Target, error) {
	modfile, ok := modfiles[kubernetes]
	if !ok {
		return nil, fmt.Errorf("--kubernetes %s: choose %s, %s or %s", kubernetes, Kubernetes, Older, Newer)
	}
	return []Target{
		{
			Name: "kube", Title: "building kube (etcd, apiserver, controller-manager, scheduler, kubelet, kubectl " + kubernetes + ")",
			outputs:  []string{"kube"},
			links:    []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"},
			packages: []string{"./cmd/kube"}, tags: "kube", ldflags: kubeFlags(kubernetes), modfile: modfile,
		},
		{Name: "pause", Title: "building pause", outputs: []string{"pause"}, packages: []string{"./cmd/pause"}},
		{
			Name: "containerd", Title: "building containerd " + Containerd,
			outputs:  []string{"containerd", "containerd-shim-runc-v2", "ctr"},
			packages: versioned("github.com/containerd/containerd/v2/cmd/", Containerd, "containerd", "containerd-shim-runc-v2", "ctr"),
			ldflags:  "-X github.com/containerd/containerd/v2/version.Version=" + Containerd,
		},
		{
			Name: "cni", Title: "building the network plugins " + CNIPlugins, folder: "cni",
			outputs:  []string{"cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap"},
			packages: versioned("github.com/containernetworking/plugins/plugins/", CNIPlugins, "main/bridge", "ipam/host-local", "main/loopback", "meta/portmap"),
		},
		{
			Name: "helm", Title: "building helm " + Helm,
			outputs: []string{"helm"}, packages: versioned("helm.sh/helm/v4/cmd/", Helm, "helm"),
			ldflags: "-X helm.sh/helm/v4/internal/version.version=" + Helm,
		},
	}, nil
}

func versioned(prefix, version string, names ...string) []string {
	var list []string
	for _, name := range names {
		list = append(list, prefix+name+"@"+version)
	}
	return list
}

// kubeFlags stamps the version: components report v0.0.0 without, and refuse
// each other.
func kubeFlags(kubernetes string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(kubernetes, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for key, value := range map[string]string{
			"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean", "gitCommit": "unknown",
		} {
			flags = append(flags, fmt.Sprintf("-X %s.%s=%s", pkg, key, value))
		}
	}
	sort.Strings(flags) // the stamp must not depend on a map's order
	return strings.Join(flags, " ")
}

// Builder builds into one cluster's directory.
type Builder struct {
	Layout  layout.Layout
	Sources fs.FS // go.mod, older.mod, their sums and the commands of this module
	// Kubernetes is the version to build: Kubernetes, Older or Newer.
	Kubernetes string
}

// Missing lists the targets that are not built from these very sources yet.
func (b Builder) Missing() ([]Target, error) {
	all, err := Targets(b.Kubernetes)
	if err != nil {
		return nil, err
	}
	var missing []Target
	for _, target := range all {
		stamp, err := b.stamp(target)
		if err != nil {
			return nil, err
		}
		have, err := os.ReadFile(b.stampFile(target))
		if err != nil || string(have) != stamp || !b.complete(target) {
			missing = append(missing, target)
		}
	}
	return missing, nil
}

func (b Builder) complete(target Target) bool {
	for _, output := range target.outputs {
		if !layout.Exists(b.Layout.Program(output)) {
			return false
		}
	}
	return true
}

func (b Builder) stampFile(target Target) string {
	return b.Layout.Path("bin", ".built", target.Name)
}

// stamp says everything that the outcome depends on.
func (b Builder) stamp(target Target) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOARCH, target)
	if b.local(target) {
		files := []string{"cmd/" + target.Name + "/main.go"}
		if target.modfile != "" {
			files = append(files, target.modfile, strings.TrimSuffix(target.modfile, ".mod")+".sum")
		}
		for _, file := range files {
			data, err := fs.ReadFile(b.Sources, file)
			if err != nil {
				return "", fmt.Errorf("reading the source of %s: %w", target.Name, err)
			}
			fmt.Fprintln(hash, file, len(data))
			hash.Write(data)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func (b Builder) local(target Target) bool {
	return strings.HasPrefix(target.packages[0], "./")
}

// Build makes one target.
func (b Builder) Build(target Target, step *progress.Step) error {
	stamp, err := b.stamp(target)
	if err != nil {
		return err
	}
	for _, folder := range []string{b.Layout.Path("bin", ".built"), b.Layout.Path("bin", target.folder), b.Layout.Path("tmp"), b.Layout.Path("src")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("building %s: %w", target.Name, err)
		}
	}
	args := []string{"install", "-v", "-trimpath", "-tags", target.tags, "-ldflags", "-s -w " + target.ldflags}
	if b.local(target) {
		if err := os.CopyFS(b.Layout.Path("src"), b.Sources); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("laying out the sources: %w", err)
		}
		args[0] = "build"
		args = append(args, "-o", b.Layout.Program(target.outputs[0]))
		if target.modfile != "" {
			args = append(args, "-modfile", target.modfile)
		}
	}
	cmd := exec.Command("go", append(args, target.packages...)...)
	cmd.Dir = b.Layout.Path("src")
	cmd.Env = append(os.Environ(),
		"CGO_ENABLED=0", "GOWORK=off", "GO111MODULE=on",
		"GOBIN="+b.Layout.Path("bin", target.folder),
		"GOTMPDIR="+b.Layout.Path("tmp"), // so that a killed build leaves nothing elsewhere
	)
	if err := watch(cmd, step); err != nil {
		return fmt.Errorf("building %s: %w", target.Name, err)
	}
	for _, link := range target.links {
		path := b.Layout.Program(link)
		_ = os.Remove(path)
		if err := os.Symlink(target.outputs[0], path); err != nil {
			return fmt.Errorf("linking %s: %w", link, err)
		}
	}
	return os.WriteFile(b.stampFile(target), []byte(stamp), 0o644)
}

// watch runs the go command and turns the packages it names into progress.
func watch(cmd *exec.Cmd, step *progress.Step) error {
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: is Go installed and in the PATH?", err)
	}
	var trouble bytes.Buffer
	count := 0
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			step.Detail("downloading %s", strings.TrimPrefix(line, "go: downloading "))
		case !strings.ContainsAny(line, " \t:"):
			count++
			step.Detail("%d packages compiled, now %s", count, line)
		case trouble.Len() < 4000:
			fmt.Fprintln(&trouble, line)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", cmd.Args[1], err, strings.TrimSpace(trouble.String()))
	}
	return nil
}
