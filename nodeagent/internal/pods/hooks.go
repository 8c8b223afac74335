package pods

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/probes"
)

// preStop runs the container's hook, for at most grace, and returns what is left
// of grace. A hook that fails does not keep the container.
func (w *worker) preStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, grace time.Duration) time.Duration {
	begin := w.m.o.Clock.Now()
	if err := w.hook(ctx, c, c.Lifecycle.PreStop, id, grace); err != nil {
		w.event(containerRef(pod, c.Name), corev1.EventTypeWarning, eventFailedPreStop, "PreStopHook failed")
	}
	return grace - w.m.o.Clock.Since(begin)
}

// postStart runs the container's hook and returns its failure.
func (w *worker) postStart(ctx context.Context, c *corev1.Container, id string) error {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	return w.hook(ctx, c, c.Lifecycle.PostStart, id, 0)
}

// hook runs one handler; limit 0 means without end.
func (w *worker) hook(ctx context.Context, c *corev1.Container, handler *corev1.LifecycleHandler, id string, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	switch {
	case handler.Exec != nil:
		_, _, err := w.m.o.Runtime.ExecSync(ctx, id, handler.Exec.Command, limit)
		return err
	case handler.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.m.o.Clock.After(time.Duration(handler.Sleep.Seconds) * time.Second):
			return nil
		}
	case handler.HTTPGet != nil:
		return w.hookGet(ctx, c, handler.HTTPGet)
	default:
		return errors.New("the hook has no action that this node knows")
	}
}

// httpFallbacks is the kubelet's own (pkg/kubelet/metrics).
var httpFallbacks = promauto.NewCounter(prometheus.CounterOpts{
	Name: "kubelet_lifecycle_handler_http_fallbacks_total",
	Help: "The number of times lifecycle handlers successfully fell back to http from https.",
})

// hookGet asks a container's server. What it answers does not matter. One that speaks
// HTTP where the hook says HTTPS is asked again by HTTP, without credentials: that is
// the kubelet's (pkg/kubelet/lifecycle/handlers.go), which did not know HTTPS once.
func (w *worker) hookGet(ctx context.Context, c *corev1.Container, get *corev1.HTTPGetAction) error {
	request, err := probes.Request(ctx, get, c, w.address(), "kube-lifecycle")
	if err != nil {
		return err
	}
	err = askHook(request)
	if !errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	request.URL.Scheme = "http"
	request.Header.Del("Authorization")
	if askHook(request) != nil {
		return err
	}
	httpFallbacks.Inc()
	w.event(podRef(w.object()), corev1.EventTypeWarning, eventHTTPFallback,
		fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", request.URL.Host))
	return nil
}

func askHook(request *http.Request) error {
	response, err := probes.Client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the hook: %w", err)
	}
	return response.Body.Close()
}
