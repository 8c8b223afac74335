package pods

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
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

func (w *worker) hookGet(ctx context.Context, c *corev1.Container, get *corev1.HTTPGetAction) error {
	number, err := hookPort(c, get.Port)
	if err != nil {
		return err
	}
	host, scheme := get.Host, "http"
	if ips := w.m.o.HostIPs(); host == "" && len(ips) > 0 {
		host = ips[0]
	}
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%s/%s", scheme, net.JoinHostPort(host, strconv.Itoa(number)), trimSlash(get.Path))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make the hook's request: %w", err)
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := hookClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the hook: %w", err)
	}
	return response.Body.Close()
}

// hookClient asks a pod's own server: no proxy lies between, and its certificate is
// its own affair (as on a kubelet).
var hookClient = &http.Client{Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
}}

func trimSlash(path string) string {
	if path != "" && path[0] == '/' {
		return path[1:]
	}
	return path
}

func hookPort(c *corev1.Container, port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("the hook's port %q is not a port of container %q", port.StrVal, c.Name)
}
