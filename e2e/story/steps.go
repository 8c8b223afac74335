package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// programs are what one go build makes.
type programs struct {
	dir, cgo string
	packages []string
}

var devclusterPrograms = programs{"e2e/devcluster", "0", []string{"."}}

// Build makes every program of the project, and devcluster.
func (s *Story) Build(ctx context.Context) error {
	return s.build(ctx,
		programs{".", "0", []string{"./plugin/cmd/kubectl-ainode", "./webhook/cmd/ainode-webhook", "./nodeagent/cmd/nvidia-smi-simulated"}},
		programs{".", "1", []string{"./nodeagent/cmd/ainode-agent"}}, // cgo: NVML is a C library
		devclusterPrograms)
}

// BuildWebhook makes the webhook, the plugin and devcluster, for those who need no AI node.
// Kubernetes and containerd are taken from another story's directory, where one
// has built them already.
func (s *Story) BuildWebhook(ctx context.Context, other string) error {
	if err := s.TakePrograms(ctx, other); err != nil {
		return err
	}
	return s.build(ctx, programs{".", "0", []string{"./webhook/cmd/ainode-webhook", "./plugin/cmd/kubectl-ainode"}}, devclusterPrograms)
}

// TakePrograms takes another story's programs, if it has built Kubernetes and this
// one has not.
func (s *Story) TakePrograms(ctx context.Context, other string) error {
	from := filepath.Join(other, "bin")
	if exists(s.bin("kube")) || !exists(filepath.Join(from, "kube")) {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	_, err := s.quiet(ctx, "cp", "-a", from, s.Dir+"/")
	return err
}

func (s *Story) build(ctx context.Context, all ...programs) error {
	for _, b := range all {
		if _, err := s.quiet(ctx, "mkdir", "-p", s.bin("")); err != nil {
			return err
		}
		// Stripped, as released: an agent's symbols are ten megabytes of memory. NVML is
		// looked up late, as the Makefile says.
		args := append([]string{"-C", b.dir, "build", "-trimpath", "-ldflags", "-s -w -extldflags=-Wl,-z,lazy", "-o", s.bin("") + "/"}, b.packages...)
		fmt.Fprintf(s.Out, "   go build %s\n", strings.Join(b.packages, " "))
		done := s.elapses()
		_, err := s.quiet(ctx, "env", append([]string{"CGO_ENABLED=" + b.cgo, "go"}, args...)...)
		done()
		if err != nil {
			return err
		}
	}
	return nil
}

// elapses says every 15 seconds how long something takes that says nothing of itself,
// until done is called.
func (s *Story) elapses() (done func()) {
	began, stop, stopped := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(15 * time.Second):
				fmt.Fprintf(s.Out, "   … %s\n", time.Since(began).Round(time.Second))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// ClusterUp brings up the cluster, its ordinary node and the GPU machine.
func (s *Story) ClusterUp(ctx context.Context) error { return s.ClusterUpWith(ctx, 1) }

// ClusterUpWith brings up the cluster with so many machines, or what has been stopped
// of it.
func (s *Story) ClusterUpWith(ctx context.Context, machines int) error {
	args := []string{"--machines", strconv.Itoa(machines)}
	if s.Kubernetes != "" {
		args = append(args, "--kubernetes", s.Kubernetes)
	}
	if _, err := s.devcluster(ctx, true, "up", args...); err != nil {
		return err
	}
	return s.readCluster(ctx)
}

// ClusterDown takes the cluster away and leaves the programs.
func (s *Story) ClusterDown(ctx context.Context) error {
	_, err := s.devcluster(ctx, true, "down")
	return err
}

// Cluster is what devcluster says of the cluster, once it is up.
func (s *Story) Cluster() Cluster { return s.cluster }

// Kubeconfig is the path of the cluster's kubeconfig, once it is up.
func (s *Story) Kubeconfig() string { return s.cluster.Kubeconfig }

// LoadImages puts the webhook's image on the ordinary node, the demo's image on
// the GPU machine and into the authenticated registry.
func (s *Story) LoadImages(ctx context.Context) error {
	if err := s.LoadNodeImages(ctx); err != nil {
		return err
	}
	return s.loadImages(ctx, [][]string{
		{toolsImage, "--demo", "--to", "machine"},
		{registryTools, "--demo", "--to", "registry"},
	})
}

// LoadNodeImages puts the images on the ordinary node alone.
func (s *Story) LoadNodeImages(ctx context.Context) error {
	return s.loadImages(ctx, [][]string{
		{webhookImage, "--add", s.bin("ainode-webhook") + ":/ainode-webhook:0755", "--entrypoint", "/ainode-webhook", "--user", "65532", "--to", "node"},
		{toolsImage, "--demo", "--to", "node"},
	})
}

func (s *Story) loadImages(ctx context.Context, images [][]string) error {
	for _, args := range images {
		if _, err := s.devcluster(ctx, true, "load-image", args...); err != nil {
			return err
		}
	}
	return nil
}

// LoadImage makes an image; of is what `devcluster load-image` is to make it of and
// where to bring it.
func (s *Story) LoadImage(ctx context.Context, ref string, of ...string) error {
	return s.loadImages(ctx, [][]string{append([]string{ref}, of...)})
}

// InstallChart installs the one chart, hub and target in the same cluster.
func (s *Story) InstallChart(ctx context.Context) error { return s.UpgradeChart(ctx) }

// UpgradeChart installs the chart or changes its values: each of set is NAME=VALUE.
func (s *Story) UpgradeChart(ctx context.Context, set ...string) error {
	repository, tag, _ := strings.Cut(webhookImage, ":")
	args := []string{
		"upgrade", "--install", "ainode", "charts/ainode",
		"--namespace", "ainode-system", "--create-namespace", "--wait", "--timeout", "3m",
		"--set", "image.repository=" + repository, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=IfNotPresent",
	}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	_, err := s.typed(ctx, "helm", args...)
	return err
}

// AddAndJoin makes the record of the node and lets the machine join with it.
func (s *Story) AddAndJoin(ctx context.Context) error {
	joinFile := s.joinFile()
	if _, err := s.typed(ctx, "kubectl", "ainode", "add", Node, "--join-file", joinFile); err != nil {
		return err
	}
	defer os.Remove(joinFile)
	fmt.Fprintf(s.Out, "   on the machine: ainode-agent join --file %s\n", joinFile)
	_, err := s.devcluster(ctx, true, "exec", machine, "--",
		s.bin("ainode-agent"), "join", "--file", joinFile)
	return err
}

func (s *Story) joinFile() string { return filepath.Join(s.Dir, "join") }

// StartAgent starts the machine's agent. Where the machine has no card, the cards
// of a DGX H200 and its capacity are simulated, and everything says so.
func (s *Story) StartAgent(ctx context.Context) error {
	if !exists("/dev/nvidiactl") {
		fmt.Fprintln(s.Out, "   no NVIDIA driver here: the cards of a DGX H200 are SIMULATED")
	}
	_, err := s.devcluster(ctx, true, "start", append([]string{"--name", agentName, machine, "--", s.bin("ainode-agent"), "run"}, AgentOptions(s.cluster.Machines[0])...)...)
	return err
}

// AgentOptions are how the agent is run, and looked at, on a machine.
func AgentOptions(m Machine) []string {
	options := []string{
		"--node-ip", m.Address,
		"--container-runtime-endpoint", "unix://" + m.ContainerdSocket, "--cdi-dir", m.CDIDir,
		"--cni-bin-dir", m.CNIBinDir, "--cni-conf-dir", m.CNIConfDir,
		// The disk is the host's, and how full that is must not decide what runs.
		"--eviction-hard=", "--image-gc-high-threshold=100", "--bucket-cache-size", "1Gi",
	}
	if !exists("/dev/nvidiactl") {
		options = append(options, "--simulate-gpus", "dgxh200", "--simulate-cpu", "128", "--simulate-memory", "1Ti")
	}
	return options
}

// KillAgent ends the agent at once, as a crash would; its pods live on.
func (s *Story) KillAgent(ctx context.Context) error {
	_, err := s.devcluster(ctx, false, "stop", "--name", agentName, "--signal", "KILL")
	return err
}

// Import imports the cluster and Bind binds the node to it.
func (s *Story) Import(ctx context.Context) error {
	_, err := s.typed(ctx, "kubectl", "ainode", "import", Config)
	return err
}

// Bind binds the node; its pods share the machine's address.
func (s *Story) Bind(ctx context.Context) error { return s.bind(ctx) }

// BindWithRange binds the node with the machine's range: each of its pods gets an
// address of its own.
func (s *Story) BindWithRange(ctx context.Context) error {
	return s.bind(ctx, "--pod-cidr", s.cluster.Machines[0].PodCIDR)
}

func (s *Story) bind(ctx context.Context, args ...string) error {
	args = append([]string{"ainode", "bind", Node, "--to", Config, "--timeout", "2m"}, args...)
	_, err := s.typed(ctx, "kubectl", args...)
	if err == nil {
		_, err = s.typed(ctx, "kubectl", "ainode", "list")
	}
	return err
}

// Deploy applies the four kinds of workload, and the bucket's volume and claim, once
// the pull secret stands.
func (s *Story) Deploy(ctx context.Context) error {
	if err := s.applyPullSecret(ctx); err != nil {
		return err
	}
	for _, name := range []string{"plain.yaml", "oss.yaml", "ray-gpu.yaml", "deployment.yaml", "statefulset.yaml"} {
		if err := s.applyShown(ctx, name); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"wait", "--for=condition=Ready", "pod/plain", "pod/ray-gpu", "--timeout=2m"},
		{"rollout", "status", "deployment/workers", "--timeout=2m"},
		{"rollout", "status", "statefulset/inference", "--timeout=2m"},
	} {
		if _, err := s.typed(ctx, "kubectl", args...); err != nil {
			return err
		}
	}
	_, err := s.typed(ctx, "kubectl", "get", "pod", "-o", "wide")
	return err
}

// applyPullSecret goes through stdin: a password is never an argument.
func (s *Story) applyPullSecret(ctx context.Context) error {
	password, err := os.ReadFile(s.cluster.Registry.PasswordFile)
	if err != nil {
		return err
	}
	_, err = s.Apply(ctx, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},"type":"kubernetes.io/dockerconfigjson",
"stringData":{".dockerconfigjson":%q}}`, pullSecret, fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`,
		s.cluster.Registry.Host, s.cluster.Registry.Username, strings.TrimSpace(string(password)))))
	return err
}

// Show execs nvidia-smi, prints the cards and lets delete-config be refused.
func (s *Story) Show(ctx context.Context) error {
	for _, args := range [][]string{
		{"exec", "ray-gpu", "--", "nvidia-smi"},
		{"exec", "inference-0", "--", "nvidia-smi", "-L"},
		// The node tells of its cards once in ten seconds at most.
		{"wait", "--for=jsonpath={.status.gpusInUse}=6", "ainode/" + Node, "--timeout=30s"},
		{"ainode", "list"},
	} {
		if _, err := s.typed(ctx, "kubectl", args...); err != nil {
			return err
		}
	}
	if _, err := s.typed(ctx, "kubectl", "ainode", "delete-config", Config); err == nil {
		return fmt.Errorf("a config with a bound node was deleted")
	}
	return nil
}

// Up is the story as `make demo` tells it.
func (s *Story) Up(ctx context.Context) error {
	err := s.Tell(ctx,
		Step{"build the programs", s.Build},
		Step{"a real cluster with one ordinary node, and a GPU machine outside it", s.ClusterUp},
		Step{"images, made without a registry", s.LoadImages},
		Step{"install the chart", s.InstallChart},
		Step{"add an AI node: the machine joins the pool", s.AddAndJoin},
		Step{"start the agent on the machine", s.StartAgent},
		Step{"import the cluster", s.Import},
		Step{"bind the node to it", s.Bind},
		Step{"a bucket: an S3 gateway on the machine's loopback", s.StartGateway},
		Step{"people deploy: a plain pod, the vendor's own Pod, a Deployment, a StatefulSet", s.Deploy},
		Step{"look inside", s.Show},
		Step{"the bucket in the pod", s.ShowBucket},
	)
	if err != nil {
		return err
	}
	rel := s.Dir
	if wd, err := os.Getwd(); err == nil {
		if r, err := filepath.Rel(wd, s.Dir); err == nil {
			rel = r
		}
	}
	fmt.Fprintf(s.Out, `
The whole story took %.0f s on %d cores. It is left running; go on by hand:

  export KUBECONFIG=$PWD/%[3]s/kubeconfig PATH=$PWD/%[3]s/bin:$PATH
  kubectl get node
  kubectl ainode list
  kubectl exec -it ray-gpu -- bash        # then: nvidia-smi
  kubectl ainode unbind %[4]s

Take everything away again:  make demo-down
`, time.Since(s.began).Seconds(), runtime.NumCPU(), rel, Node)
	return nil
}

// Down unbinds, deletes the config and takes the cluster away. It goes on over
// what is not there any more, so that it also clears a story that broke off.
func (s *Story) Down(ctx context.Context) error {
	if !exists(s.bin("devcluster")) {
		fmt.Fprintf(s.Out, "nothing to take away: there is no demo in %s\n", s.Dir)
		return nil
	}
	if err := s.readCluster(ctx); err == nil && s.cluster.Running {
		for _, args := range [][]string{
			{"ainode", "unbind", Node, "--timeout", "1m"},
			{"ainode", "delete-config", Config},
			{"ainode", "remove", Node},
		} {
			if _, err := s.typed(ctx, "kubectl", args...); err != nil {
				fmt.Fprintf(s.Out, "   going on without: %v\n", err)
			}
		}
	}
	if _, err := s.devcluster(ctx, true, "down"); err != nil {
		return err
	}
	for _, left := range []string{filepath.Join(s.Dir, "helm"), s.joinFile(), s.gatewayDir()} {
		if err := os.RemoveAll(left); err != nil {
			return err
		}
	}
	return nil
}
