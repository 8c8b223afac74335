// Package images brings the images of containers onto the machine, by the pull
// policies, credentials, back-off and events of the kubelet, and keeps images that
// credentials have brought from pods without them.
package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Service is what is used of the runtime's image service (CRI).
type Service interface {
	// ImageStatus returns a response without an image if there is none.
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	// PullImage returns the reference of the image pulled. It ends with ctx.
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error)
}

// Secrets looks up pull secrets. A secret that does not exist is an error for
// which apierrors.IsNotFound holds.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Options of a Puller. All fields without a stated default are required.
type Options struct {
	Images   Service
	Secrets  Secrets
	Recorder record.EventRecorder
	// Records is a folder that survives the agent, for what it must remember of the
	// images that it has pulled. Default: nothing is remembered, and every image on
	// the machine is every pod's.
	Records string
	// Progress of pulls. Default: not known, and only the time is told.
	Progress Progress
	// Clock defaults to the real one.
	Clock clock.Clock
}

// Puller brings images onto the machine. It is safe for concurrent use.
type Puller struct {
	o       Options
	backOff *backOff
	flights *flights
	said    *said
	records *records // nil: nothing is remembered
}

// New returns a Puller, or an error that names every missing option.
func New(o Options) (*Puller, error) {
	var missing []error
	if o.Images == nil {
		missing = append(missing, errors.New("option Images is missing"))
	}
	if o.Secrets == nil {
		missing = append(missing, errors.New("option Secrets is missing"))
	}
	if o.Recorder == nil {
		missing = append(missing, errors.New("option Recorder is missing"))
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("make the image puller: %w", errors.Join(missing...))
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	p := &Puller{o: o, backOff: newBackOff(o.Clock), flights: newFlights(o.Images, o.Progress), said: newSaid(o.Clock)}
	if o.Records != "" {
		var err error
		if p.records, err = openRecords(o.Records, o.Clock.Now); err != nil {
			return nil, fmt.Errorf("make the image puller: %w", err)
		}
	}
	return p, nil
}

// Reasons of a PullError, as the kubelet names them.
const (
	ErrImagePull      = "ErrImagePull"
	ImagePullBackOff  = "ImagePullBackOff"
	ErrImageNeverPull = "ErrImageNeverPull"
	InvalidImageName  = "InvalidImageName"
	ImageInspectError = "ImageInspectError"
	// RegistryUnavailable and SignatureValidationFailed are the runtime's.
	RegistryUnavailable       = "RegistryUnavailable"
	SignatureValidationFailed = "SignatureValidationFailed"
)

// PullError says why a container has no image: Reason and Message are those of
// its waiting state.
type PullError struct {
	Reason, Message string
	// Until is when another try may succeed at the soonest; zero: at any time, or
	// never.
	Until time.Time
}

func (e *PullError) Error() string { return e.Reason + ": " + e.Message }

// Ensure returns the reference of the container's image once it is on the
// machine, pulling it where the policy says so, or where the pod has not shown yet
// that it may have an image that another pod's credentials have brought. It blocks for the time of a pull
// and ends with ctx. Its errors are *PullError, or ctx's. After a failed pull it
// does not try again before the back-off of that pod and image is over, and fails
// at once.
func (p *Puller) Ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (string, error) {
	r := p.request(pod, c)
	name, err := withTag(c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		r.warnOnce(reasonInspectFailed, message)
		return "", &PullError{Reason: InvalidImageName, Message: message}
	}
	r.image = name

	policy := policyOf(c, name)
	if policy != corev1.PullAlways {
		image, err := p.status(ctx, name)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			message := fmt.Sprintf("Failed to inspect image %q: %v", c.Image, err)
			r.warnOnce(reasonInspectFailed, message)
			return "", &PullError{Reason: ImageInspectError, Message: message}
		}
		if image != nil {
			mayUse, err := r.mayUse(ctx, image.Id)
			switch {
			case ctx.Err() != nil:
				return "", ctx.Err()
			case err != nil:
				return "", &PullError{Reason: ErrImagePull, Message: err.Error()}
			case mayUse:
				r.tell(reasonPulled, fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image))
				return image.Id, nil
			}
		}
		if policy == corev1.PullNever {
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
			r.warnOnce(reasonNeverPull, message)
			return "", &PullError{Reason: ErrImageNeverPull, Message: message}
		}
	}
	return r.pull(ctx)
}

// User is the user that an image on the machine names: its id, or its name where
// that is not a number; neither if it names none.
func (p *Puller) User(ctx context.Context, imageRef string) (uid *int64, username string, err error) {
	image, err := p.status(ctx, imageRef)
	if err != nil {
		return nil, "", fmt.Errorf("inspect image %q: %w", imageRef, err)
	}
	if image == nil {
		return nil, "", fmt.Errorf("inspect image %q: it is not on the machine", imageRef)
	}
	if image.Uid != nil {
		return &image.Uid.Value, "", nil
	}
	return nil, image.Username, nil
}

func (p *Puller) status(ctx context.Context, name string) (*runtimeapi.Image, error) {
	response, err := p.o.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
	if err != nil {
		return nil, err
	}
	return response.GetImage(), nil
}
