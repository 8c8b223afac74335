// Package images brings the images of containers onto the machine, by the pull
// policies, credentials, back-off and events of the kubelet.
package images

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Service is what is used of the runtime's image service (CRI).
type Service interface {
	// ImageStatus returns a response without an image if there is none.
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	// PullImage returns the reference of the image pulled.
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error)
}

// Secrets looks up pull secrets. A secret that does not exist is an error for
// which apierrors.IsNotFound holds.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Options of a Puller. All but Clock are required.
type Options struct {
	Images   Service
	Secrets  Secrets
	Recorder record.EventRecorder
	// Clock defaults to the real one.
	Clock clock.PassiveClock
}

// Puller brings images onto the machine. It is safe for concurrent use.
type Puller struct{ o Options }

// New returns a Puller, or an error that names every missing option.
func New(o Options) (*Puller, error) { return &Puller{o: o}, nil }

// Reasons of a PullError, as the kubelet names them.
const (
	ErrImagePull      = "ErrImagePull"
	ImagePullBackOff  = "ImagePullBackOff"
	ErrImageNeverPull = "ErrImageNeverPull"
	InvalidImageName  = "InvalidImageName"
	ImageInspectError = "ImageInspectError"
)

// PullError says why a container has no image: Reason and Message are those of
// its waiting state.
type PullError struct{ Reason, Message string }

func (e *PullError) Error() string { return e.Reason + ": " + e.Message }

// Ensure returns the reference of the container's image once it is on the
// machine. Its errors are *PullError, or ctx's.
func (p *Puller) Ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (string, error) {
	return "", errors.ErrUnsupported
}
