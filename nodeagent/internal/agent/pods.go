package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/images"
	"github.com/ainode/ainode/nodeagent/internal/objects"
	"github.com/ainode/ainode/nodeagent/internal/pods"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// podRooms are the manager of this machine's pods, and what it works with.
type podRooms struct {
	*pods.Manager
	volumes *volumes.Manager
	images  *images.Puller
	// services are to be run beside the manager.
	services *objects.Services
}

// newPods makes the manager of this machine's pods for one binding.
func (t *tenant) newPods(client kubernetes.Interface, node func() *corev1.Node, epoch int64, mode crispec.NetworkMode, address string, recorder record.EventRecorder, admit func(*corev1.Pod) (reason, message string), serves func() bool) (*podRooms, error) {
	state := string(t.cfg.StateDir)
	reader := objects.Reader{Client: client}
	v, err := volumes.New(volumes.Options{
		Root: t.cfg.StateDir.Volumes(), Objects: reader, Followed: objects.NewFollower(client), Tokens: reader, Claims: reader, Cache: t.cache,
		CSI: t.csi, Drivers: reader, Node: node, Mounter: mount.New(""), Boot: t.machine.BootID, Clock: t.clock,
		Allocatable: func() corev1.ResourceList { return t.size.allocatable },
	})
	if err != nil {
		return nil, err
	}
	puller, err := images.New(images.Options{
		Images: t.runtime.Images, Progress: t.runtime.Content, Secrets: reader, Recorder: recorder, Records: t.cfg.StateDir.Images(), Clock: t.clock,
	})
	if err != nil {
		return nil, err
	}
	services, err := objects.NewServices(client)
	if err != nil {
		return nil, err
	}
	manager, err := pods.New(pods.Options{
		Client: client, NodeName: t.node, Node: node, HostIPs: func() []string { return []string{address} }, Epoch: epoch, Network: mode,
		Runtime: t.runtime.RuntimeService, Images: puller, Volumes: v, Objects: reader, Services: services, Cards: t.tracker, Injection: t.injects, Recorder: recorder, Clock: t.clock,
		StateDir: t.cfg.StateDir.Pods(), PodDir: filepath.Join(state, "containers"), LogDir: t.cfg.LogDir,
		Admit: admit, Serves: serves, CgroupParent: t.cfg.CgroupParent, DNS: machineDNS(mode), ClusterDomain: t.cfg.ClusterDomain, ReservedPorts: []int32{int32(t.cfg.Port)},
	})
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.pods = manager
	t.mu.Unlock()
	return &podRooms{Manager: manager, volumes: v, images: puller, services: services}, nil
}

// machineDNS is what pods with dnsPolicy Default get. It is read for each pod: an agent
// may be started before the machine has an address.
func machineDNS(mode crispec.NetworkMode) func() *runtimeapi.DNSConfig {
	return func() *runtimeapi.DNSConfig {
		dns, err := readDNS(resolvConf(mode, "/"))
		if err != nil {
			klog.Background().Error(err, "pods get the name servers that the container runtime finds")
			return nil
		}
		return dns
	}
}

func readDNS(path string) (*runtimeapi.DNSConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the machine's name servers: %w", err)
	}
	r := crispec.ParseResolv(string(text))
	return &runtimeapi.DNSConfig{Servers: r.Nameservers, Searches: r.Searches, Options: r.Options}, nil
}
