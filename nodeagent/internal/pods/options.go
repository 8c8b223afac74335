package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podfiles"
	"github.com/ainode/ainode/nodeagent/internal/topology"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// Images brings images onto the machine.
type Images interface {
	// Ensure returns the reference of the container's image once it is present,
	// pulling it if its policy says so. It may block for the time of a pull, ends
	// with ctx, and may be called for several containers at once. An error that
	// has Reason and Message fields is shown as the container's waiting reason.
	Ensure(ctx context.Context, pod *corev1.Pod, container *corev1.Container) (imageRef string, err error)
	// User returns the user that a present image names: a number, or a name, or
	// neither where that is root.
	User(ctx context.Context, imageRef string) (uid *int64, username string, err error)
}

// Volumes makes a pod's volumes on the machine.
type Volumes interface {
	// Setup makes every volume of the pod that is not there yet and returns their
	// host paths by volume name. Idempotent; ends with ctx.
	Setup(ctx context.Context, pod *corev1.Pod) (map[string]string, error)
	// Mounts are the CRI mounts of one container on volumes that Setup returned.
	Mounts(pod *corev1.Pod, container *corev1.Container, mounted map[string]string) ([]*runtimeapi.Mount, error)
	// Follow calls changed, which does not block, when Refresh may have something to do,
	// until ctx is done.
	Follow(ctx context.Context, pod *corev1.Pod, changed func())
	// Refresh writes what has changed into mounted volumes, and returns when there will
	// be something to do though nothing has changed (zero: never). Its error is told
	// as an event.
	Refresh(ctx context.Context, pod *corev1.Pod) (next time.Time, err error)
	// Keep mounts again what has lost its helper, until ctx is done.
	Keep(ctx context.Context, pod *corev1.Pod, watcher volumes.Watcher)
	// Teardown takes away all volumes of the pod. Idempotent.
	Teardown(ctx context.Context, uid types.UID) error
	// Abandon is Teardown that leaves to later what a driver does not undo soon.
	Abandon(ctx context.Context, uid types.UID) error
	// PodUIDs are the pods that have volumes on the machine, also beside an error.
	PodUIDs() ([]types.UID, error)
}

// Services are those of the cluster.
type Services interface {
	// Read is closed when they have been read once.
	Read() <-chan struct{}
	// Of are those of a namespace and, of another, the API server's. Callers do not
	// change them.
	Of(namespace string) ([]*corev1.Service, error)
}

// Cards are the machine's GPUs, and the MIG slices of those that are cut.
type Cards interface {
	// Devices are all cards that are given whole, and all slices, in their order. Pods
	// may have those that are usable.
	Devices() []topology.Device
	// Device is one of them, or one that is no more.
	Device(uuid string) topology.Device
	// Trouble is why pods do not get the device now; empty if they do.
	Trouble(uuid string) string
	// Failed is what befell a device that pods do not get until it is reset, the machine
	// boots or it is replaced, or that is no more: one word, and a text that names it.
	// Empty for others.
	Failed(uuid string) (reason, message string)
	// Topology is how the cards talk to each other.
	Topology() topology.Map
	// CDIDevice is the CDI device name of a device; empty if there is no such one now.
	CDIDevice(uuid string) string
}

// Options of a Manager. All fields without a stated default are required.
type Options struct {
	// Client of the target cluster, acting as the node.
	Client kubernetes.Interface
	// NodeName selects the pods: spec.nodeName equals it.
	NodeName string
	// Node returns the node as registered: its labels, its taints, and in
	// status.allocatable what pods may have (pods, cards and slices included).
	// It is asked at each admission and must not block.
	Node func() *corev1.Node
	// HostIPs returns the node's addresses, the preferred one first. It must not block.
	HostIPs func() []string
	// Network says whether pods share the node's addresses (the default) or have one
	// each, which the runtime gives them.
	Network crispec.NetworkMode
	// Epoch that the binding began in, recorded on every sandbox: a renewed credential
	// changes nothing for pods.
	Epoch int64

	Runtime criapi.RuntimeService
	// RuntimeName is the scheme of container ids; default "containerd".
	RuntimeName string
	Images      Images
	Volumes     Volumes
	// Objects are what environment variables are read from.
	Objects crispec.Objects
	// Services are what containers are told of the cluster's Services from.
	Services Services
	// Cards may be nil on a machine without GPUs.
	Cards Cards
	// Injection is how the runtime puts cards into containers now. It must not block.
	// Default: by CDI.
	Injection func() cri.Injection

	Recorder record.EventRecorder
	// Clock defaults to the real one.
	Clock clock.WithTicker

	// StateDir holds one small file per pod (0600): its spec and its cards.
	StateDir string
	// LogDir holds the containers' logs as the kubelet lays them out:
	// NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.
	LogDir string
	// PodDir holds what is mounted into containers besides volumes (termination
	// messages), one folder per pod UID. Default StateDir/pods.
	PodDir string
	// CgroupParent is the parent cgroup of all pods; may be empty.
	CgroupParent string
	// DNS returns what a pod with dnsPolicy Default gets: the machine's resolv.conf, nil
	// to leave it to the runtime. Default nil.
	DNS func() *runtimeapi.DNSConfig
	// ClusterDomain is that of the cluster's DNS; default cluster.local.
	ClusterDomain string
	// HostsFile is the machine's own host names; default /etc/hosts.
	HostsFile string
	// Admit is asked of each new pod before all else; a reason refuses it. It must not
	// block. Default: it refuses none.
	Admit func(*corev1.Pod) (reason, message string)
	// Serves reports whether this machine is, as far as is known, the one that the API's
	// pods are for: while it is not, none begins that has not run here. Asked again every
	// few seconds then; it must not block. Default: it is.
	Serves func() bool
	// ReservedPorts of the machine that no pod may have, for example 10250.
	ReservedPorts []int32
}

func (o *Options) complete() error {
	var missing []error
	need := func(ok bool, name string) {
		if !ok {
			missing = append(missing, fmt.Errorf("option %s is missing", name))
		}
	}
	need(o.Client != nil, "Client")
	need(o.NodeName != "", "NodeName")
	need(o.Node != nil, "Node")
	need(o.HostIPs != nil, "HostIPs")
	need(o.Runtime != nil, "Runtime")
	need(o.Images != nil, "Images")
	need(o.Volumes != nil, "Volumes")
	need(o.Objects != nil, "Objects")
	need(o.Services != nil, "Services")
	need(o.Recorder != nil, "Recorder")
	need(o.StateDir != "", "StateDir")
	need(o.LogDir != "", "LogDir")
	if len(missing) > 0 {
		return fmt.Errorf("make the pod manager: %w", errors.Join(missing...))
	}
	if o.RuntimeName == "" {
		o.RuntimeName = "containerd"
	}
	if o.PodDir == "" {
		o.PodDir = o.StateDir + "/pods"
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = "cluster.local"
	}
	if o.HostsFile == "" {
		o.HostsFile = podfiles.EtcHosts
	}
	if o.DNS == nil {
		o.DNS = func() *runtimeapi.DNSConfig { return nil }
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Admit == nil {
		o.Admit = func(*corev1.Pod) (string, string) { return "", "" }
	}
	if o.Serves == nil {
		o.Serves = func() bool { return true }
	}
	if o.Injection == nil {
		o.Injection = func() cri.Injection { return cri.Injection{CDI: true} }
	}
	if o.Cards == nil {
		o.Cards = noCards{}
	}
	return nil
}

type noCards struct{}

func (noCards) Devices() []topology.Device { return nil }
func (noCards) Device(uuid string) topology.Device {
	return topology.Device{UUID: uuid, Card: uuid, Resource: contract.GPUResource}
}
func (noCards) Trouble(string) string          { return "" }
func (noCards) Failed(string) (string, string) { return "", "" }
func (noCards) Topology() topology.Map         { return topology.Map{} }
func (noCards) CDIDevice(string) string        { return "" }
