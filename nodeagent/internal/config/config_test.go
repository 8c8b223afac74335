package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultIsValid(t *testing.T) {
	t.Parallel()
	r := Default()
	require.NoError(t, r.Validate())
}

func TestValidateNamesTheFlag(t *testing.T) {
	t.Parallel()
	for flag, spoil := range map[string]func(*Run){
		"--state-dir":                  func(r *Run) { r.StateDir = "here" },
		"--container-runtime-endpoint": func(r *Run) { r.ContainerRuntimeEndpoint = "/run/containerd.sock" },
		"--cni-bin-dir":                func(r *Run) { r.CNIBinDir = "cni" },
		"--kubelet-dir":                func(r *Run) { r.KubeletDir = "" },
		"--pod-resources-socket":       func(r *Run) { r.PodResourcesSocket = "s.sock" },
		"--fence-after":                func(r *Run) { r.FenceAfter.Duration = time.Minute },
		"--node-ip":                    func(r *Run) { r.NodeIP = "127.0.0.1" },
		"--port":                       func(r *Run) { r.Port = 0 },
		"--container-log-max-size":     func(r *Run) { r.ContainerLogMaxSize = "much" },
		"--container-log-max-files":    func(r *Run) { r.ContainerLogMaxFiles = 1 },
		"--bucket-cache-size":          func(r *Run) { r.BucketCacheSize = "512Mi" },
		"--bucket-cache-dir":           func(r *Run) { r.BucketCacheDir, r.BucketCacheSize = "here", "1Gi" },
		"only together with --bucket-": func(r *Run) { r.BucketCacheDir = "/here" },
		"--eviction-hard":              func(r *Run) { r.EvictionHard = "memory<1" },
		"--image-gc-high-threshold":    func(r *Run) { r.ImageGCHighThreshold = 70 },
		"--shutdown-grace-period":      func(r *Run) { r.ShutdownGracePeriod.Duration = 0 },
		"--cluster-domain":             func(r *Run) { r.ClusterDomain = "a b" },
		"--max-pods":                   func(r *Run) { r.MaxPods = 0 },
		"--simulate-gpus":              func(r *Run) { r.SimulateGPUs = "dgx1" },
		"--simulate-mig":               func(r *Run) { r.SimulateGPUs, r.SimulateMIG = "dgxh200", "1g.18gb" },
		"--simulate-mig: only":         func(r *Run) { r.SimulateMIG = "0:1g.18gb" },
		"--simulate-cpu":               func(r *Run) { r.SimulateGPUs, r.SimulateCPU = "dgxh200", "-1" },
		"--simulate-memory":            func(r *Run) { r.SimulateMemory = "1Ti" },
	} {
		r := Default()
		spoil(&r)
		require.ErrorContains(t, r.Validate(), flag)
	}
}

func TestAFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	read := func(text string) (Run, error) {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		r := Default()
		return r, r.ReadFile(path)
	}
	head := "apiVersion: agent.ainode.dev/v1alpha1\nkind: AgentConfiguration\n"
	r, err := read(head + "nodeIP: 10.0.0.7\nsimulateGPUs: dgxh200\nshutdownGracePeriod: 90s\n")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.7", r.NodeIP)
	require.Equal(t, 90*time.Second, r.ShutdownGracePeriod.Duration)
	require.Equal(t, 10250, r.Port, "what the file does not name keeps its default")

	_, err = read(head + "nodeIp: 10.0.0.7\nport: 1\nprot: 2\n")
	require.ErrorContains(t, err, "prot")
	_, err = read("nodeIP: 10.0.0.7\n")
	require.ErrorContains(t, err, "apiVersion")
}
