// Package statuswriter brings the newest status of a pod to the API, however long that takes.
package statuswriter

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
)

// Writer brings the newest status of one pod to the API. What becomes
// outdated while a write is under way is never written; what is the same as the
// API's is not either.
type Writer struct {
	client kubernetes.Interface
	clock  clock.Clock
	// written is called with the API's answer to each write.
	written func(*corev1.Pod)

	mu   sync.Mutex
	base *corev1.Pod // the API's newest object that is known
	// noHealth: the API server drops allocatedResourcesStatus (before 1.36, feature
	// ResourceHealthStatus), and would be sent it for ever.
	noHealth bool
	want     *corev1.PodStatus
	settled  bool // want is written or was refused, or the pod is gone
	gone     bool
	changed  chan struct{} // closed and replaced when settled changes
	wake     chan struct{}
}

// New makes the Writer of a pod that has not been seen yet; it calls written with the API's
// answer to each write.
func New(client kubernetes.Interface, clock clock.Clock, written func(*corev1.Pod)) *Writer {
	return &Writer{
		client: client, clock: clock, written: written, settled: true,
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// Observe takes note of the API's object, if it is newer than what is known, and
// reports whether it is the first.
func (s *Writer) Observe(pod *corev1.Pod) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.base == nil
	if first || Version(pod) >= Version(s.base) {
		s.base = pod
	}
	return first
}

// Believe takes the API's object for what stands there, whatever was known.
func (s *Writer) Believe(pod *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = pod
}

// Version is the object's resource version, which is an ordered number.
func Version(pod *corev1.Pod) uint64 {
	n, err := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Known reports whether the API's object has been seen.
func (s *Writer) Known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base != nil
}

// Set makes status the one to be written. It does not wait.
func (s *Writer) Set(status corev1.PodStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.base == nil {
		return
	}
	s.want, s.settled = &status, false
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush waits until the status set last is written or the pod is gone.
func (s *Writer) Flush(ctx context.Context) error {
	for {
		s.mu.Lock()
		settled, changed := s.settled || s.gone, s.changed
		s.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Run writes until ctx is done.
func (s *Writer) Run(ctx context.Context) {
	failures := 0
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-retry:
		}
		retry = nil
		if err := s.writeLatest(ctx); err != nil && ctx.Err() == nil {
			failures++
			klog.FromContext(ctx).V(1).Info("the pod's status is not written yet", "attempt", failures, "cause", err)
			retry = s.clock.After(backoff.Retry(failures))
			continue
		}
		failures = 0
	}
}

func (s *Writer) writeLatest(ctx context.Context) error {
	s.mu.Lock()
	base, want, gone, noHealth := s.base, s.want, s.gone, s.noHealth
	s.mu.Unlock()
	if gone || base == nil || want == nil {
		return nil
	}
	send := want
	if noHealth {
		send = withoutHealth(want)
	}
	patch, err := statusPatch(base, send)
	if err != nil {
		return err
	}
	if patch == nil {
		s.done(want, nil, false)
		return nil
	}
	answer, err := s.client.CoreV1().Pods(base.Namespace).Patch(ctx, base.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err):
		s.done(want, nil, true)
		return nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		// Asking again changes nothing, and a pod that ends must not wait for it.
		klog.FromContext(ctx).Error(err, "the API refuses the pod's status")
		s.done(want, nil, false)
		return nil
	case err != nil:
		return fmt.Errorf("write the status of pod %s/%s: %w", base.Namespace, base.Name, err)
	}
	if answer.UID == base.UID {
		if hasHealth(send) && !hasHealth(&answer.Status) {
			s.mu.Lock()
			s.noHealth = true
			s.mu.Unlock()
		}
		s.done(want, answer, false)
		s.written(answer)
	}
	return nil
}

func (s *Writer) done(wrote *corev1.PodStatus, answer *corev1.Pod, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer != nil && Version(answer) >= Version(s.base) {
		s.base = answer
	}
	s.gone = s.gone || gone
	s.settled = s.want == wrote || s.gone
	if s.settled {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// hasHealth reports whether the status says how the pod's devices are.
func hasHealth(status *corev1.PodStatus) bool {
	for _, c := range slices.Concat(status.InitContainerStatuses, status.ContainerStatuses) {
		if len(c.AllocatedResourcesStatus) > 0 {
			return true
		}
	}
	return false
}

// withoutHealth is a copy without that.
func withoutHealth(status *corev1.PodStatus) *corev1.PodStatus {
	copied := status.DeepCopy()
	for _, list := range [][]corev1.ContainerStatus{copied.InitContainerStatuses, copied.ContainerStatuses} {
		for i := range list {
			list[i].AllocatedResourcesStatus = nil
		}
	}
	return copied
}

// statusPatch is the strategic merge patch from base's status to want, which
// holds only while the pod has base's UID; nil if nothing differs.
func statusPatch(base *corev1.Pod, want *corev1.PodStatus) ([]byte, error) {
	if reflect.DeepEqual(base.Status, *want) {
		return nil, nil
	}
	before, err := json.Marshal(corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, fmt.Errorf("encode the old status: %w", err)
	}
	after, err := json.Marshal(corev1.Pod{Status: *want})
	if err != nil {
		return nil, fmt.Errorf("encode the new status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare the statuses: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	fields["metadata"] = json.RawMessage(fmt.Sprintf(`{"uid":%q}`, base.UID))
	return json.Marshal(fields)
}
