// Package hooks runs the lifecycle hooks of containers: a command, a wait, or a question to
// a server of theirs.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/probes"
)

// Runner runs the hooks of one pod's containers.
type Runner struct {
	Runtime criapi.RuntimeService
	Clock   clock.Clock
	// Address is where the pod's ports are.
	Address func() string
	// FellBack is told that a hook's server speaks HTTP where the hook says HTTPS.
	FellBack func(message string)
}

// Run runs one handler of the container with this id; limit 0 means without end.
func (r Runner) Run(ctx context.Context, c *corev1.Container, handler *corev1.LifecycleHandler, id string, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	switch {
	case handler.Exec != nil:
		_, _, err := r.Runtime.ExecSync(ctx, id, handler.Exec.Command, limit)
		return err
	case handler.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.Clock.After(time.Duration(handler.Sleep.Seconds) * time.Second):
			return nil
		}
	case handler.HTTPGet != nil:
		return r.get(ctx, c, handler.HTTPGet)
	default:
		return errors.New("the hook has no action that this node knows")
	}
}

// HTTPFallbacks is the kubelet's own (pkg/kubelet/metrics).
var HTTPFallbacks = promauto.NewCounter(prometheus.CounterOpts{
	Name: "kubelet_lifecycle_handler_http_fallbacks_total",
	Help: "The number of times lifecycle handlers successfully fell back to http from https.",
})

// get asks a container's server. What it answers does not matter. One that speaks
// HTTP where the hook says HTTPS is asked again by HTTP, without credentials: that is
// the kubelet's (pkg/kubelet/lifecycle/handlers.go), which did not know HTTPS once.
func (r Runner) get(ctx context.Context, c *corev1.Container, get *corev1.HTTPGetAction) error {
	request, err := probes.Request(ctx, get, c, r.Address(), "kube-lifecycle")
	if err != nil {
		return err
	}
	err = ask(request)
	if !errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	request.URL.Scheme = "http"
	request.Header.Del("Authorization")
	if ask(request) != nil {
		return err
	}
	HTTPFallbacks.Inc()
	r.FellBack(fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", request.URL.Host))
	return nil
}

func ask(request *http.Request) error {
	response, err := probes.Client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the hook: %w", err)
	}
	return response.Body.Close()
}
