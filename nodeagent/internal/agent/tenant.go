package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
	"github.com/ainode/ainode/nodeagent/internal/kubeletapi"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/pods"
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
	address string // the machine's, where none was chosen at bind
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

// at is the address that the binding is served at: the one chosen at bind, if any.
func (t *tenant) at(chosen string) string { return cmp.Or(chosen, t.address) }

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
		rooms, err := t.newPods(nowhere, func() *corev1.Node { return &corev1.Node{} }, 0, crispec.Host, t.address, &record.FakeRecorder{}, nil, nil)
		if err != nil {
			return err
		}
		manager = rooms.Manager
	}
	if err := manager.StopAll(ctx, stopGrace); err != nil {
		return err // who lives still needs both
	}
	return errors.Join(t.cache.Close(), t.place().Remove(ctx, t.runtime.RuntimeService))
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
