package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/csinode"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
	"github.com/ainode/ainode/nodeagent/internal/gpumetrics"
	"github.com/ainode/ainode/nodeagent/internal/kubeletapi"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
	"github.com/ainode/ainode/nodeagent/internal/podresources"
	"github.com/ainode/ainode/nodeagent/internal/pods"
	"github.com/ainode/ainode/nodeagent/internal/probes"
	"github.com/ainode/ainode/nodeagent/internal/readcache"
)

// stopGrace is how long a pod may take to end at release. Unbind has evicted what
// wanted more time before it came to this.
const stopGrace = 30 * time.Second

// tenant is what runs on this machine while it is bound.
type tenant struct {
	cfg     config.Run
	node    string
	holder  string
	machine machine.Identity
	address string
	size    measured
	cards   *gpu.Machine
	tracker *gpuhealth.Tracker
	// cardNews is that other cards may be given to pods than before.
	cardNews chan struct{}
	runtime  *cri.Runtime
	// injection is how the runtime gives cards to containers, when it was asked last.
	injection atomic.Pointer[cri.Injection]
	csi       *csi.Manager
	cache     *readcache.Cache
	clock     clock.WithTicker

	mu       sync.Mutex
	pods     *pods.Manager
	recorder record.EventRecorder // nil while there is no Node
	answer   *binding.Answer
	// certificates are nil while :10250 is not served.
	certificates *kubeletapi.Certificates
}

var _ binding.Tenant = (*tenant)(nil)

// Serve registers the Node, then looks after it, its pods and its kubelet API until
// ctx ends or one of them fails.
func (t *tenant) Serve(ctx context.Context, target binding.Target, registered func()) error {
	// One rate for each of them: a storm of events, or of strangers' tokens at :10250,
	// must keep neither pods nor the Lease waiting.
	clients, err := clientsOf(target.Config)
	if err != nil {
		return err
	}
	client := clients.pods
	t.askInjection(ctx)
	facts, err := t.nodeFacts(ctx, target)
	if err != nil {
		return err
	}
	podNetwork, err := t.podNetwork(target)
	if err != nil {
		return err
	}
	node := &nodestatus.Registrar{Client: client, Heartbeat: clients.heartbeat, Facts: facts, Clock: t.clock, GPUsChanged: t.cardNews}
	pressure, err := t.newPressure(node.Node, t.newTerm(target, client, node.Node))
	if err != nil {
		return err
	}
	node.VolumesInUse, node.VolumesChanged = t.csi.InUse, t.csi.Changed()
	node.Probe = func(ctx context.Context) nodestatus.Health { return t.health(ctx, pressure, podNetwork) }
	// Before the first registration of a binding nothing may be done in the node's
	// name: it could be somebody else's. After it, pods come first: they are looked
	// after though the target does not answer.
	_, err = os.Stat(t.cfg.StateDir.Registered())
	first := err != nil
	if err := podNetwork.configure(ctx); err != nil {
		if first {
			return err
		}
		klog.FromContext(ctx).Error(err, "The pods' network is not as it should be")
	}
	if first {
		if err := node.Register(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(t.cfg.StateDir.Registered(), nil, 0o600); err != nil {
			return fmt.Errorf("note the registration: %w", err)
		}
	}

	events := record.NewBroadcaster(record.WithContext(ctx))
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clients.events.CoreV1().Events("")})
	defer events.Shutdown()
	recorder := events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: t.node})
	node.Rebooted = func() {
		recorder.Eventf(nodeRef(node.Node()), corev1.EventTypeWarning, "Rebooted", "Node %s has been rebooted, boot id: %s", t.node, t.machine.BootID)
	}
	t.tellNode(recorder)
	defer t.tellNode(nil)
	if err := t.cache.Open(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "What pods read from buckets is not cached")
	}
	manager, err := t.newPods(client, node.Node, target.Since, podNetwork.mode(), recorder, pressure.admit)
	if err != nil {
		return err
	}
	meter := t.newMeter(manager)
	keepers, err := t.keepers(ctx, node, pressure, manager, meter, recorder)
	if err != nil {
		return err
	}
	certificates, err := kubeletapi.NewCertificates(ctx, client, t.node, t.address, t.cfg.StateDir.ServingCertificates(), t.clock)
	if err != nil {
		return err
	}
	server, err := kubeletapi.New(kubeletapi.Options{
		Node: t.node, Address: net.JoinHostPort(t.address, strconv.Itoa(t.cfg.Port)), Client: clients.reviews, ClientCA: target.ClientCA,
		Certificate: certificates.Current, Pods: manager, Usage: meter, Runtime: t.runtime.RuntimeService, Images: t.runtime.Images,
		Probes: probes.Metrics(), GPUs: gpumetrics.Gatherer(t.cardMetrics()), Clock: t.clock,
	})
	if err != nil {
		return err
	}
	listener, err := server.Listen(ctx)
	if err != nil {
		return err
	}
	certificates.Start()
	defer certificates.Stop()
	t.serveWith(certificates)
	defer t.serveWith(nil)
	registered()
	if socket := t.cfg.PodResourcesSocket; socket != "" {
		keepers = append(keepers, func(ctx context.Context) error { return podresources.Serve(ctx, socket, manager, t.tracker) })
	}
	told := &csinode.Keeper{Client: client, Node: node.Node, Drivers: t.csi.Drivers(), Clock: t.clock}
	return together(ctx, append(keepers, node.Run, manager.Run, manager.services.Run, podNetwork.run, told.Run, func(ctx context.Context) error {
		return t.askUntilAnswered(ctx, podNetwork, target.Config.Host, registered)
	}, func(ctx context.Context) error { return server.Serve(ctx, listener) })...)
}

// StopAll ends every pod of this machine.
func (t *tenant) StopAll(ctx context.Context) error {
	manager := t.manager()
	if manager == nil {
		// Unbound since the start: what is left of an earlier life is ended without
		// any cluster.
		nowhere, err := kubernetes.NewForConfig(&rest.Config{Host: "https://unbound.invalid"})
		if err != nil {
			return fmt.Errorf("make a client: %w", err)
		}
		rooms, err := t.newPods(nowhere, func() *corev1.Node { return &corev1.Node{} }, 0, crispec.Host, &record.FakeRecorder{}, nil)
		if err != nil {
			return err
		}
		manager = rooms.Manager
	}
	if err := manager.StopAll(ctx, stopGrace); err != nil {
		return err
	}
	if err := t.cache.Close(); err != nil {
		return err
	}
	return t.place().Remove(ctx, t.runtime.RuntimeService)
}

// GPUsInUse is how many cards living pods have.
func (t *tenant) GPUsInUse() int {
	if manager := t.manager(); manager != nil {
		return manager.GPUsInUse()
	}
	return 0
}

// ServingCertificate is where the certificate of :10250 stands.
func (t *tenant) ServingCertificate() binding.Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.certificates == nil:
		return binding.NoCertificate
	case t.certificates.Signed():
		return binding.Signed
	case t.certificates.SelfSigned():
		return binding.SelfSigned
	}
	return binding.NoCertificate
}

func (t *tenant) serveWith(c *kubeletapi.Certificates) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.certificates = c
}

func (t *tenant) manager() *pods.Manager {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pods
}

func (t *tenant) nodeFacts(ctx context.Context, target binding.Target) (nodestatus.Facts, error) {
	runtime, err := t.runtime.Version(ctx, "")
	if err != nil {
		return nodestatus.Facts{}, fmt.Errorf("ask the container runtime's version: %w", err)
	}
	size, cards := t.size.withRange(target.PodCIDR), t.tracker.Summary()
	return nodestatus.Facts{
		Name: t.node, Epoch: target.Epoch, Holder: t.holder, Machine: t.machine,
		Address: t.address, Port: int32(t.cfg.Port), //nolint:gosec // a port
		PodCIDR:  target.PodCIDR,
		Capacity: with(size.capacity, cards.Total), Allocatable: with(size.allocatable, cards.Usable),
		GPULabels: t.cards.NodeLabels(), Simulated: t.cards.Simulated() != "", BindLabels: target.Labels,
		KubeletVersion: KubeletVersion(), Runtime: runtime.RuntimeName + "://" + strings.TrimPrefix(runtime.RuntimeVersion, "v"),
	}, nil
}

// together runs all until ctx ends or one returns an error, then waits for the
// others to end too.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := make(chan error, len(all))
	for _, run := range all {
		go func() { results <- run(ctx) }()
	}
	var errs []error
	for range all {
		err := <-results
		if err != nil {
			errs = append(errs, err)
		}
		stop()
	}
	return errors.Join(errs...)
}
