// Package config turns flags and a file into a checked configuration of the agent.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

// APIVersion and Kind of a configuration file.
const (
	APIVersion = "agent.ainode.dev/v1alpha1"
	Kind       = "AgentConfiguration"
)

// Run is the configuration of `ainode-agent run`. Its fields are, in a file, what
// the flags are called in camel case.
type Run struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`

	// StateDir holds all that the agent remembers.
	StateDir State `json:"stateDir,omitempty"`
	// ContainerRuntimeEndpoint is the CRI socket, unix:///….
	ContainerRuntimeEndpoint string `json:"containerRuntimeEndpoint,omitempty"`
	// NodeIP is the address pods and :10250 answer at; empty is the address of the
	// route to the hub.
	NodeIP string `json:"nodeIP,omitempty"`
	// Port of the kubelet API.
	Port int `json:"port,omitempty"`
	// SimulateGPUs, SimulateCPU and SimulateMemory claim a machine that is not there;
	// SimulateMIG is how its cards are cut (simulated.ParseLayout).
	SimulateGPUs   string `json:"simulateGPUs,omitempty"`
	SimulateMIG    string `json:"simulateMIG,omitempty"`
	SimulateCPU    string `json:"simulateCPU,omitempty"`
	SimulateMemory string `json:"simulateMemory,omitempty"`
	// CDIDir is where the container runtime reads CDI specs.
	CDIDir string `json:"cdiDir,omitempty"`
	// PodResourcesSocket is where the PodResources API is served; empty: nowhere.
	PodResourcesSocket string `json:"podResourcesSocket,omitempty"`
	// CNIBinDir and CNIConfDir are where the container runtime looks for CNI plugins and
	// reads CNI configurations. They matter where the machine is bound with a range of
	// addresses for its pods.
	CNIBinDir  string `json:"cniBinDir,omitempty"`
	CNIConfDir string `json:"cniConfDir,omitempty"`
	// KubeletDir is the folder that CSI drivers take for a kubelet's: they register in
	// KubeletDir/plugins_registry, and stage and publish their volumes below it.
	KubeletDir string `json:"kubeletDir,omitempty"`
	// LogDir is where containers' logs are written.
	LogDir string `json:"logDir,omitempty"`
	// ContainerLogMaxSize is how large a container's log may grow before it is
	// rotated, ContainerLogMaxFiles how many files of it are kept.
	ContainerLogMaxSize  string `json:"containerLogMaxSize,omitempty"`
	ContainerLogMaxFiles int    `json:"containerLogMaxFiles,omitempty"`
	// Unused images are removed from ImageGCHighThreshold per cent of their disk on,
	// until ImageGCLowThreshold is reached; 100 removes none.
	ImageGCHighThreshold int `json:"imageGCHighThreshold,omitempty"`
	ImageGCLowThreshold  int `json:"imageGCLowThreshold,omitempty"`
	// BucketCacheSize is how much disk is set aside, at once, for what pods have read from buckets whose
	// volumes ask for a cache; empty: nothing is cached. BucketCacheDir is a directory on
	// that disk; empty: StateDir.
	BucketCacheSize string `json:"bucketCacheSize,omitempty"`
	BucketCacheDir  string `json:"bucketCacheDir,omitempty"`
	// EvictionHard is how much of memory, disk and process ids must stay free, as the
	// kubelet's --eviction-hard has it; empty turns eviction off.
	EvictionHard string `json:"evictionHard,omitempty"`
	// ShutdownGracePeriod is how long a shutdown of the machine may wait for pods, and
	// ShutdownGracePeriodCriticalPods what of that is kept for critical ones; 0 turns
	// waiting off.
	ShutdownGracePeriod             metav1.Duration `json:"shutdownGracePeriod,omitempty"`
	ShutdownGracePeriodCriticalPods metav1.Duration `json:"shutdownGracePeriodCriticalPods,omitempty"`
	// FenceAfter is how long hub and target may both be silent before the machine ends
	// its pods by itself; 0: for ever.
	FenceAfter metav1.Duration `json:"fenceAfter,omitempty"`
	// CgroupParent is the cgroup that pods' cgroups are made in.
	CgroupParent string `json:"cgroupParent,omitempty"`
	// ClusterDomain is the domain of the cluster's DNS, in which pods' full names end.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// MaxPods is how many pods the node takes.
	MaxPods int `json:"maxPods,omitempty"`
}

// leastFenceAfter is well above what a busy API server takes to answer; both sides are
// asked every ten seconds.
const leastFenceAfter = 2 * time.Minute

// Simulations are the machines that can be simulated.
var Simulations = []string{"dgxa100", "dgxh100", "dgxh200", "dgxb200"}

// Default is the configuration of a machine installed the usual way.
func Default() Run {
	return Run{
		StateDir:                 "/var/lib/ainode-agent",
		ContainerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
		Port:                     10250,
		CDIDir:                   "/var/run/cdi",
		PodResourcesSocket:       "/var/lib/kubelet/pod-resources/kubelet.sock", // the kubelet's
		CNIBinDir:                "/opt/cni/bin",
		CNIConfDir:               "/etc/cni/net.d",
		KubeletDir:               "/var/lib/kubelet",
		LogDir:                   "/var/log/pods",
		ContainerLogMaxSize:      "10Mi", // the kubelet's
		ContainerLogMaxFiles:     5,
		ImageGCHighThreshold:     85, // the kubelet's
		ImageGCLowThreshold:      80,
		EvictionHard:             eviction.Default,
		CgroupParent:             "/ainode",

		ShutdownGracePeriod:             metav1.Duration{Duration: 30 * time.Second},
		ShutdownGracePeriodCriticalPods: metav1.Duration{Duration: 10 * time.Second},

		ClusterDomain: "cluster.local",
		MaxPods:       110,
	}
}

// Flags binds r's fields to flags; the values r has are the defaults.
func (r *Run) Flags(flags *pflag.FlagSet) {
	flags.StringVar((*string)(&r.StateDir), "state-dir", string(r.StateDir), "directory that holds all the agent remembers")
	flags.StringVar(&r.ContainerRuntimeEndpoint, "container-runtime-endpoint", r.ContainerRuntimeEndpoint, "socket of the container runtime (CRI)")
	flags.StringVar(&r.NodeIP, "node-ip", r.NodeIP, "address of this machine as the cluster reaches it (default: that of the route to the hub)")
	flags.IntVar(&r.Port, "port", r.Port, "port of the kubelet API")
	flags.StringVar(&r.SimulateGPUs, "simulate-gpus", r.SimulateGPUs, "simulate the GPUs of a machine that is not there: "+strings.Join(Simulations, ", "))
	flags.StringVar(&r.SimulateMIG, "simulate-mig", r.SimulateMIG, "cut simulated GPUs into MIG slices, for example 0:3g.40gb,3g.40gb;1:1g.10gb*7")
	flags.StringVar(&r.SimulateCPU, "simulate-cpu", r.SimulateCPU, "report that many CPUs, with simulated GPUs only")
	flags.StringVar(&r.SimulateMemory, "simulate-memory", r.SimulateMemory, "report that much memory, with simulated GPUs only")
	flags.StringVar(&r.CDIDir, "cdi-dir", r.CDIDir, "directory the container runtime reads CDI specs from")
	flags.StringVar(&r.PodResourcesSocket, "pod-resources-socket", r.PodResourcesSocket, "socket at which monitors ask which pod has which GPU (the kubelet's PodResources API); empty: none")
	flags.StringVar(&r.CNIBinDir, "cni-bin-dir", r.CNIBinDir, "directory the container runtime looks for CNI plugins in, where pods have addresses of their own")
	flags.StringVar(&r.CNIConfDir, "cni-conf-dir", r.CNIConfDir, "directory the container runtime reads CNI configurations from, where pods have addresses of their own")
	flags.StringVar(&r.KubeletDir, "kubelet-dir", r.KubeletDir, "directory that CSI drivers take for a kubelet's: they register in its plugins_registry, and their volumes are mounted below it")
	flags.StringVar(&r.LogDir, "log-dir", r.LogDir, "directory of the containers' logs")
	flags.StringVar(&r.ContainerLogMaxSize, "container-log-max-size", r.ContainerLogMaxSize, "how large a container's log may grow before it is rotated")
	flags.IntVar(&r.ContainerLogMaxFiles, "container-log-max-files", r.ContainerLogMaxFiles, "most files of a container's log, the current one included")
	flags.IntVar(&r.ImageGCHighThreshold, "image-gc-high-threshold", r.ImageGCHighThreshold, "per cent of the disk from which on unused images are removed; 100: never")
	flags.IntVar(&r.ImageGCLowThreshold, "image-gc-low-threshold", r.ImageGCLowThreshold, "per cent of the disk down to which unused images are removed")
	flags.StringVar(&r.BucketCacheSize, "bucket-cache-size", r.BucketCacheSize, "how much disk may hold what pods have read from buckets whose volumes ask for it (otherOpts: -o use_cache); empty: none")
	flags.StringVar(&r.BucketCacheDir, "bucket-cache-dir", r.BucketCacheDir, "directory on the disk that is to hold it (default: that of --state-dir)")
	flags.StringVar(&r.EvictionHard, "eviction-hard", r.EvictionHard, "what must stay free; pods are evicted for it")
	flags.DurationVar(&r.ShutdownGracePeriod.Duration, "shutdown-grace-period", r.ShutdownGracePeriod.Duration, "how long a shutdown of the machine may wait for pods; 0: not at all")
	flags.DurationVar(&r.ShutdownGracePeriodCriticalPods.Duration, "shutdown-grace-period-critical-pods", r.ShutdownGracePeriodCriticalPods.Duration, "what of that is kept for critical pods, which end last")
	flags.DurationVar(&r.FenceAfter.Duration, "fence-after", r.FenceAfter.Duration, "how long hub and target may both be silent before the machine ends its pods by itself; 0: for ever")
	flags.StringVar(&r.CgroupParent, "cgroup-parent", r.CgroupParent, "cgroup that the pods' cgroups are made in")
	flags.StringVar(&r.ClusterDomain, "cluster-domain", r.ClusterDomain, "domain of the cluster's DNS, in which the full names of pods end")
	flags.IntVar(&r.MaxPods, "max-pods", r.MaxPods, "most pods this node takes")
}

// ReadFile sets what the file at path names and leaves the rest. A field it does
// not know is an error: a misspelt option must not pass in silence.
func (r *Run) ReadFile(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(raw, r); err != nil {
		return fmt.Errorf("read configuration %q: %w", path, err)
	}
	if r.APIVersion != APIVersion || r.Kind != Kind {
		return fmt.Errorf("configuration %q: want apiVersion %q and kind %q", path, APIVersion, Kind)
	}
	return nil
}

// leastBucketCache in bytes: helpers load 50 MB at a time, several at once.
const leastBucketCache = 1 << 30

// BucketCache is BucketCacheSize in bytes, 0 if there is none.
func (r *Run) BucketCache() (int64, error) {
	if r.BucketCacheSize == "" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(r.BucketCacheSize)
	return q.Value(), err
}

// Validate lists everything that is wrong, by flag.
func (r *Run) Validate() error {
	var wrong []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for name, path := range map[string]string{
		"--state-dir": string(r.StateDir), "--cdi-dir": r.CDIDir, "--log-dir": r.LogDir,
		"--kubelet-dir": r.KubeletDir, "--cni-bin-dir": r.CNIBinDir, "--cni-conf-dir": r.CNIConfDir,
	} {
		check(filepath.IsAbs(path), "%s: %q is not an absolute path", name, path)
	}
	check(r.PodResourcesSocket == "" || filepath.IsAbs(r.PodResourcesSocket), "--pod-resources-socket: %q is not an absolute path", r.PodResourcesSocket)
	socket, isUnix := strings.CutPrefix(r.ContainerRuntimeEndpoint, "unix://")
	check(isUnix && filepath.IsAbs(socket), "--container-runtime-endpoint: want unix:///PATH, got %q", r.ContainerRuntimeEndpoint)
	if r.NodeIP != "" {
		addr, err := netip.ParseAddr(r.NodeIP)
		check(err == nil && !addr.IsUnspecified() && !addr.IsLoopback(), "--node-ip: %q is not an address that a cluster could reach", r.NodeIP)
	}
	check(r.Port > 0 && r.Port < 1<<16, "--port: %d is not a port", r.Port)
	check(len(validation.IsDNS1123Subdomain(r.ClusterDomain)) == 0, "--cluster-domain: %q is not a domain", r.ClusterDomain)
	check(r.ImageGCLowThreshold >= 0 && r.ImageGCLowThreshold <= r.ImageGCHighThreshold && r.ImageGCHighThreshold <= 100,
		"--image-gc-high-threshold: want 0 to 100, and no less than --image-gc-low-threshold, got %d and %d", r.ImageGCHighThreshold, r.ImageGCLowThreshold)
	_, err := eviction.Parse(r.EvictionHard)
	check(err == nil, "--eviction-hard: %v", err)
	logSize, err := resource.ParseQuantity(r.ContainerLogMaxSize)
	check(err == nil && logSize.Sign() > 0, "--container-log-max-size: %q is not an amount", r.ContainerLogMaxSize)
	check(r.ContainerLogMaxFiles > 1, "--container-log-max-files: want at least 2, got %d", r.ContainerLogMaxFiles)
	cacheSize, err := r.BucketCache()
	check(err == nil && (cacheSize == 0 || cacheSize >= leastBucketCache), "--bucket-cache-size: want at least 1Gi, or nothing, got %q", r.BucketCacheSize)
	check(r.BucketCacheDir == "" || filepath.IsAbs(r.BucketCacheDir), "--bucket-cache-dir: %q is not an absolute path", r.BucketCacheDir)
	check(r.BucketCacheDir == "" || r.BucketCacheSize != "", "--bucket-cache-dir: only together with --bucket-cache-size")
	check(r.ShutdownGracePeriodCriticalPods.Duration >= 0 && r.ShutdownGracePeriodCriticalPods.Duration <= r.ShutdownGracePeriod.Duration,
		"--shutdown-grace-period-critical-pods: want no more than --shutdown-grace-period, got %v and %v",
		r.ShutdownGracePeriodCriticalPods.Duration, r.ShutdownGracePeriod.Duration)
	check(r.FenceAfter.Duration == 0 || r.FenceAfter.Duration >= leastFenceAfter, "--fence-after: want at least %v, or 0, got %v", leastFenceAfter, r.FenceAfter.Duration)
	check(r.MaxPods > 0, "--max-pods: want at least 1, got %d", r.MaxPods)
	check(r.SimulateGPUs == "" || slices.Contains(Simulations, r.SimulateGPUs),
		"--simulate-gpus: %q can't be simulated; choose one of %s", r.SimulateGPUs, strings.Join(Simulations, ", "))
	_, err = simulated.ParseLayout(r.SimulateMIG)
	check(err == nil, "--simulate-mig: %v", err)
	check(r.SimulateMIG == "" || r.SimulateGPUs != "", "--simulate-mig: only together with --simulate-gpus: a real card is cut with nvidia-smi mig")
	for name, text := range map[string]string{"--simulate-cpu": r.SimulateCPU, "--simulate-memory": r.SimulateMemory} {
		if text == "" {
			continue
		}
		q, err := resource.ParseQuantity(text)
		check(err == nil && q.Sign() > 0, "%s: %q is not an amount", name, text)
		check(r.SimulateGPUs != "", "%s: only together with --simulate-gpus: a real machine reports what it has", name)
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(wrong...)
}
