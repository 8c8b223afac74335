package agent

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/mount-utils"

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
}

// newPods makes the manager of this machine's pods for one binding.
func (t *tenant) newPods(client kubernetes.Interface, node func() *corev1.Node, epoch int64, recorder record.EventRecorder, admit func(*corev1.Pod) (reason, message string)) (*podRooms, error) {
	state := string(t.cfg.StateDir)
	reader := objects.Reader{Client: client}
	v, err := volumes.New(volumes.Options{
		Root: t.cfg.StateDir.Volumes(), Objects: reader, Mounter: mount.New(""),
		Allocatable: func() corev1.ResourceList { return t.size.allocatable },
	})
	if err != nil {
		return nil, err
	}
	puller, err := images.New(images.Options{Images: t.runtime.Images, Secrets: reader, Recorder: recorder, Records: t.cfg.StateDir.Images(), Clock: t.clock})
	if err != nil {
		return nil, err
	}
	dns, err := machineDNS("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	manager, err := pods.New(pods.Options{
		Client: client, NodeName: t.node, Node: node, HostIPs: func() []string { return []string{t.address} }, Epoch: epoch,
		Runtime: t.runtime.RuntimeService, Images: puller, Volumes: v, Objects: reader, Cards: t.cards, Recorder: recorder, Clock: t.clock,
		StateDir: t.cfg.StateDir.Pods(), PodDir: filepath.Join(state, "containers"), LogDir: t.cfg.LogDir,
		Admit: admit, CgroupParent: t.cfg.CgroupParent, DNS: dns, ReservedPorts: []int32{int32(t.cfg.Port)}, //nolint:gosec // a port
	})
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.pods = manager
	t.mu.Unlock()
	return &podRooms{Manager: manager, volumes: v, images: puller}, nil
}

// machineDNS reads what pods with dnsPolicy Default get.
func machineDNS(path string) (*runtimeapi.DNSConfig, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &runtimeapi.DNSConfig{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the machine's name servers: %w", err)
	}
	defer func() { _ = f.Close() }()
	dns := &runtimeapi.DNSConfig{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Servers = append(dns.Servers, fields[1])
		case "search":
			dns.Searches = fields[1:]
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the machine's name servers: %w", err)
	}
	return dns, nil
}
