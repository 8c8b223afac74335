// Package cri is the agent's connection to the container runtime: dialling it,
// listing what it holds pod by pod, and hearing at once when that changes. It
// knows nothing of what should run.
package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	criapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
)

// CallTimeout bounds each CRI call save for image pulls; StopContainer adds its
// own grace period to it. It is what the kubelet uses (runtimeRequestTimeout).
const CallTimeout = 2 * time.Minute

// Runtime is a connected container runtime.
type Runtime struct {
	criapi.RuntimeService
	Images criapi.ImageManagerService
	// Content is asked at the same socket; a runtime that is not containerd has none.
	Content *Content
}

// Connect dials endpoint (a socket path, with or without unix://) and returns
// when the runtime has answered, or an error that names the endpoint.
func Connect(ctx context.Context, endpoint string) (*Runtime, error) {
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	service, err := criclient.NewRemoteRuntimeServiceBuilder().
		WithEndpoint(endpoint).WithConnectionTimeout(CallTimeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the container runtime at %q: %w", endpoint, err)
	}
	images, err := criclient.NewRemoteImageServiceBuilder().
		WithEndpoint(endpoint).WithConnectionTimeout(CallTimeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		_ = service.Close(ctx)
		return nil, fmt.Errorf("connect to the image service at %q: %w", endpoint, err)
	}
	content, err := NewContent(endpoint)
	if err != nil {
		_ = errors.Join(images.Close(ctx), service.Close(ctx))
		return nil, err
	}
	return &Runtime{RuntimeService: service, Images: images, Content: content}, nil
}

// Close ends the connections.
func (r *Runtime) Close(ctx context.Context) error {
	return errors.Join(r.Content.Close(), r.Images.Close(ctx), r.RuntimeService.Close(ctx))
}

// ImageFolder is where the runtime keeps images, and with them the writable layers
// of containers.
func (r *Runtime) ImageFolder(ctx context.Context) (string, error) {
	answer, err := r.Images.ImageFsInfo(ctx)
	if err != nil {
		return "", fmt.Errorf("ask where the runtime keeps images: %w", err)
	}
	for _, fs := range answer.GetImageFilesystems() {
		if folder := fs.GetFsId().GetMountpoint(); folder != "" {
			return folder, nil
		}
	}
	return "", errors.New("ask where the runtime keeps images: it names no folder")
}
