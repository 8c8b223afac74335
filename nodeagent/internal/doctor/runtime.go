package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/network"
)

// runtimeStatus is what a runtime says of itself.
type runtimeStatus struct {
	cri.Settings
	conditions []*runtimeapi.RuntimeCondition
	// driver is the cgroup driver; empty where the runtime does not tell.
	driver string
}

func readStatus(ctx context.Context, runtime *cri.Runtime) (runtimeStatus, error) {
	var s runtimeStatus
	version, err := runtime.Version(ctx, "v1")
	if err != nil {
		return s, fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	answer, err := runtime.Status(ctx, true)
	if err != nil {
		return s, fmt.Errorf("ask the container runtime how it does: %w", err)
	}
	s.Settings, s.conditions = cri.ReadSettings(version, answer), answer.GetStatus().GetConditions()
	if c, err := runtime.RuntimeConfig(ctx); err == nil { // since containerd 2.0
		s.driver = strings.ToLower(c.GetLinux().GetCgroupDriver().String())
	}
	return s, nil
}

func runtimeAnswers(_ context.Context, s *sight) []diagnosis.Finding {
	endpoint := s.Config.ContainerRuntimeEndpoint
	if s.runtimeErr != nil {
		return found(Error, s.runtimeErr.Error(), "no pod can run", "See why:  systemctl status containerd",
			"If it is elsewhere, name its socket:  ainode-agent run --container-runtime-endpoint unix:///PATH")
	}
	text := fmt.Sprintf("%s %s at %s", s.status.Name, s.status.Version, endpoint)
	for _, c := range s.status.conditions {
		if c.Type == runtimeapi.RuntimeReady && !c.Status {
			return found(Error, fmt.Sprintf("%s is not ready: %s %s", text, c.Reason, c.Message), "no pod can run", "See why:  journalctl -u containerd -n 50")
		}
	}
	if s.status.Name != "containerd" {
		return found(Warning, text, "AI nodes are tried with containerd alone")
	}
	return saw(text)
}

// runc finds the program that containerd starts containers with.
func runc(ctx context.Context, s *sight) []diagnosis.Finding {
	if s.status.Name != "containerd" {
		return nil
	}
	name := "runc"
	handlers := s.status.Containerd.Handlers
	if program := handlers.ByName[handlers.Default].Program(); program != "" {
		name = program
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return found(Error, name+" is not found", "containerd starts every container with it", "Install it:  apt-get install runc")
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output() // what containerd runs as root all the same
	if err != nil {
		return found(Error, fmt.Sprintf("%s does not run: %v", path, err), "containerd starts every container with it", "See why:  "+path+" --version")
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return saw(path + ", " + first)
}

// cgroupDriver must be cgroupfs: the pods' cgroups are named by path, below the
// agent's cgroup parent, and systemd names slices.
func cgroupDriver(_ context.Context, s *sight) []diagnosis.Finding {
	switch s.status.driver {
	case "":
		return nil // told by no containerd before 2.0
	case "cgroupfs":
		return saw("cgroupfs")
	}
	return found(Error, "the runtime's cgroup driver is "+s.status.driver, "the agent names pods' cgroups by path ("+s.Config.CgroupParent+"), and containers there would not start",
		"In /etc/containerd/config.toml set SystemdCgroup = false, then:  systemctl restart containerd")
}

// cni tells whether the runtime has a network for pods; those that share the
// machine's address need none.
func cni(_ context.Context, s *sight) []diagnosis.Finding {
	i := slices.IndexFunc(s.status.conditions, func(c *runtimeapi.RuntimeCondition) bool { return c.Type == runtimeapi.NetworkReady })
	if s.runtimeErr != nil || i < 0 {
		return nil
	}
	ready, missing := s.status.conditions[i].Status, network.Missing(s.Config.CNIBinDir)
	lacking := fmt.Sprintf("%s lacks the CNI plugins %s", s.Config.CNIBinDir, strings.Join(missing, ", "))
	switch needed := s.credential != nil && s.credential.PodCIDR != ""; {
	case needed && len(missing) > 0:
		return found(Error, lacking, "pods get no address of "+s.credential.PodCIDR, "Install them:  apt-get install containernetworking-plugins",
			"If they are elsewhere, name the folder, to the runtime too:  ainode-agent run --cni-bin-dir DIR")
	case needed && !ready:
		return found(Error, "the runtime has no network for pods: "+s.status.conditions[i].Message, "pods get no address of "+s.credential.PodCIDR,
			"Have it configured again:  systemctl restart ainode-agent")
	case needed:
		return saw("pods get addresses of " + s.credential.PodCIDR)
	case len(missing) > 0:
		return saw(lacking + "; none is needed where pods share the machine's address")
	}
	return saw("the plugins are there, for bindings with a range of their own for pods")
}
