package story

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What the story is about.
const (
	Node   = "ai-demo-01"
	Config = "demo"
	// machine is where the agent runs: a network namespace with a containerd of its
	// own, a routed hop from the cluster.
	machine = "machine-1"
	// agentName names the agent's process for devcluster start and stop.
	agentName = "ainode-agent"

	webhookImage = "demo.local/ainode-webhook:dev"
	toolsImage   = "demo.local/tools:v1"
	// registryTools is pulled from the authenticated registry, below its address.
	registryTools = "demo/ray:v1"
	pullSecret    = "demo-registry"
)

//go:embed manifests
var manifests embed.FS

// Story is one telling: a directory with a cluster in it, and where progress goes.
type Story struct {
	// Root is the checkout, Dir where state and programs live.
	Root, Dir string
	// Out gets progress and the output of the commands people would type.
	Out io.Writer
	// Kubernetes is the cluster's version, one that devcluster knows; empty is its own.
	Kubernetes string

	cluster Cluster
	keys    bucketKeys
	began   time.Time
}

// Cluster is what `devcluster status -o json` says, as far as the story needs it.
type Cluster struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	Running    bool   `json:"running"`
	Node       struct {
		Address string `json:"address"`
	} `json:"node"`
	Machines []Machine `json:"machines"`
	Registry struct {
		Host         string `json:"host"`
		Username     string `json:"username"`
		PasswordFile string `json:"passwordFile"`
	} `json:"registry"`
}

// Place is the checkout that a command runs in, and where dir is; for whom it runs must
// be root, for network namespaces and containerd.
func Place(dir string) (root, absolute string, err error) {
	if os.Geteuid() != 0 {
		return "", "", errors.New("it needs root, for network namespaces and containerd: sudo make demo (or make conformance)")
	}
	if root, err = os.Getwd(); err != nil {
		return "", "", err
	}
	absolute, err = filepath.Abs(dir)
	return root, absolute, err
}

// Machine is a place for an agent: a network namespace with a containerd of its own.
type Machine struct {
	Name             string `json:"name"`
	Netns            string `json:"netns"`
	Address          string `json:"address"`
	ContainerdSocket string `json:"containerdSocket"`
	CDIDir           string `json:"cdiDir"`
	CNIBinDir        string `json:"cniBinDir"`
	CNIConfDir       string `json:"cniConfDir"`
	PodCIDR          string `json:"podCIDR"`
	Dir              string `json:"dir"`
}

// Step is one line of the story.
type Step struct {
	Says string
	Do   func(context.Context) error
}

// Tell runs the steps in order and says before each what it does, after each how
// long it took.
func (s *Story) Tell(ctx context.Context, steps ...Step) error {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	for i, step := range steps {
		fmt.Fprintf(s.Out, "\n== %d/%d %s\n", i+1, len(steps), step.Says)
		began := time.Now()
		if err := step.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.Says, err)
		}
		fmt.Fprintf(s.Out, "   %.1fs\n", time.Since(began).Seconds())
	}
	return nil
}

// bin is the path of a program that Build or devcluster made.
func (s *Story) bin(name string) string { return filepath.Join(s.Dir, "bin", name) }

func (s *Story) readCluster(ctx context.Context) error {
	out, err := s.quiet(ctx, s.bin("devcluster"), "status", "--dir", s.Dir, "-o", "json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), &s.cluster); err != nil {
		return fmt.Errorf("read devcluster status: %w", err)
	}
	return nil
}

// manifest is an embedded manifest with its ${…} filled in.
func (s *Story) manifest(name string) (string, error) {
	raw, err := manifests.ReadFile("manifests/" + name)
	if err != nil {
		return "", err
	}
	return s.fillBucket(strings.NewReplacer(
		"${image}", s.cluster.Registry.Host+"/"+registryTools,
		"${imagePullSecrets}", pullSecret,
	).Replace(string(raw))), nil
}

// indent writes every line behind three blanks, so that what a command printed
// stands apart from what the story says.
func indent(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "   %s", line)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		fmt.Fprintln(w)
	}
}

// lineWriter indents what is written to it, line by line, as it comes.
type lineWriter struct {
	to   io.Writer
	rest bytes.Buffer
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest.Write(p)
	for {
		i := bytes.IndexByte(l.rest.Bytes(), '\n')
		if i < 0 {
			return len(p), nil
		}
		indent(l.to, string(l.rest.Next(i+1)))
	}
}

func (l *lineWriter) flush() {
	if l.rest.Len() > 0 {
		indent(l.to, l.rest.String())
		l.rest.Reset()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
