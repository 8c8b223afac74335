package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Version is the Kubernetes minor whose kubelet is followed: servers know probes by
// "kube-probe/1.37".
const Version = "1.37"

// transport asks a pod's own server: no proxy lies between, and its certificate is
// its own affair (as on a kubelet).
var transport = &http.Transport{
	DialContext:        dialer().DialContext,
	DisableKeepAlives:  true,
	DisableCompression: true,
	TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
}

// Client asks a pod's server, and follows redirects only to the same host: what is
// there says nothing of the pod.
var Client = &http.Client{Transport: transport, CheckRedirect: func(request *http.Request, via []*http.Request) error {
	switch {
	case request.URL.Hostname() != via[0].URL.Hostname():
		return http.ErrUseLastResponse
	case len(via) >= 10:
		return errors.New("stopped after 10 redirects")
	}
	return nil
}}

// Request is the request of a probe or a lifecycle hook to the container. agent
// stands before the version in User-Agent, unless the action sets that itself.
func Request(ctx context.Context, get *corev1.HTTPGetAction, c *corev1.Container, pod, agent string) (*http.Request, error) {
	port, err := number(get.Port, c)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path} // the API takes any text
	}
	u.Scheme, u.Host = strings.ToLower(string(get.Scheme)), address(get.Host, pod, port)
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
	}
	if _, set := request.Header["User-Agent"]; !set {
		request.Header.Set("User-Agent", agent+"/"+Version)
	}
	if accept, set := request.Header["Accept"]; !set {
		request.Header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		request.Header.Del("Accept")
	}
	request.Host = request.Header.Get("Host")
	return request, nil
}

func askHTTP(request *http.Request, timeout time.Duration) answer {
	client := *Client
	client.Timeout = timeout
	response, err := client.Do(request)
	if err != nil {
		return answer{output: err.Error()}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	switch {
	case err != nil:
		return answer{output: err.Error()}
	case response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest:
		// Not the body: it may hold what is nobody else's business (kubernetes#99425).
		return answer{output: fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode)}
	case response.StatusCode >= http.StatusMultipleChoices:
		return answer{ok: true, warning: true, output: "Probe terminated redirects, Response body: " + string(body)}
	}
	return answer{ok: true}
}
