package images

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// Event reasons, as the kubelet names them.
const (
	reasonPulling       = "Pulling"
	reasonPulled        = "Pulled"
	reasonFailed        = "Failed"
	reasonBackOff       = "BackOff"
	reasonInspectFailed = "InspectFailed"
	reasonNeverPull     = "ErrImageNeverPull"
	reasonNoSecret      = "FailedToRetrieveImagePullSecret"
)

// request is one container's wish for its image.
type request struct {
	*Puller
	pod   *corev1.Pod
	ref   *corev1.ObjectReference
	image string
	// keyring is what credentials has read.
	keyring *keyring
}

func (p *Puller) request(pod *corev1.Pod, c *corev1.Container) *request {
	return &request{Puller: p, pod: pod, ref: &corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, FieldPath: fieldPath(pod, c.Name),
	}}
}

func fieldPath(pod *corev1.Pod, container string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container {
			return fmt.Sprintf("spec.initContainers{%s}", container)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == container {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", container)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", container)
}

func (r *request) tell(reason, message string) {
	r.o.Recorder.Event(r.ref, corev1.EventTypeNormal, reason, message)
}

func (r *request) warn(reason, message string) {
	r.o.Recorder.Event(r.ref, corev1.EventTypeWarning, reason, message)
}

// warnOnce is warn for what every try meets again.
func (r *request) warnOnce(reason, message string) {
	if !r.said.again(saidKey{uid: r.pod.UID, field: r.ref.FieldPath, message: message}) {
		r.warn(reason, message)
	}
}

// pull pulls the image, unless the back-off forbids it.
func (r *request) pull(ctx context.Context) (string, error) {
	key := backOffKey{uid: r.pod.UID, image: r.image}
	if wait := r.backOff.inForce(key); wait != nil {
		message := fmt.Sprintf("Back-off pulling image %q", r.image)
		if wait.first {
			r.tell(reasonBackOff, message)
		}
		return "", &PullError{Reason: ImagePullBackOff, Message: message + ": " + wait.cause, Until: wait.until}
	}
	ref, err := r.tryPull(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err == nil {
		r.backOff.forget(key)
		return ref, nil
	}
	r.warn(reasonFailed, fmt.Sprintf("Failed to pull image %q: %s", r.image, err.Message))
	err.Until = r.backOff.next(key, err.Error())
	return "", err
}

func (r *request) tryPull(ctx context.Context) (string, *PullError) {
	keyring, err := r.credentials(ctx)
	if err != nil {
		return "", &PullError{Reason: ErrImagePull, Message: err.Error()}
	}
	repo, err := repository(r.image)
	if err != nil {
		return "", &PullError{Reason: InvalidImageName, Message: err.Error()}
	}
	own := keyring.find(repo)
	if r.records != nil {
		if err := r.records.begin(r.image); err != nil {
			return "", &PullError{Reason: ErrImagePull, Message: err.Error()}
		}
		defer func() {
			if err := r.records.end(r.image); err != nil {
				klog.FromContext(ctx).Error(err, "The end of a pull is not noted")
			}
		}()
	}
	begin := r.o.Clock.Now()
	r.tell(reasonPulling, fmt.Sprintf("Pulling image %q", r.image))
	done := r.flights.pull(ctx, r.image, own, r.o.Clock, func(message string) { r.tell(reasonPulling, message) })
	if done.err != nil {
		return "", worded(r.image, done.err.Error())
	}
	size := uint64(0)
	image, inspectErr := r.status(ctx, done.ref)
	if inspectErr == nil {
		size = image.GetSize()
	}
	if r.records != nil {
		// Under the id that it will be found by again; runtimes may return a name.
		r.noteOpened(ctx, cmp.Or(image.GetId(), done.ref), openedBy(done.with, own), namesOf(image))
	}
	r.tell(reasonPulled, fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		r.image, done.took.Truncate(time.Millisecond), r.o.Clock.Since(begin).Truncate(time.Millisecond), size))
	return done.ref, nil
}

// worded gives the two failures that runtimes name their own reason and words, as
// the kubelet does. The names come through gRPC as the beginning of the text.
func worded(image, text string) *PullError {
	if rest, ok := strings.CutPrefix(text, RegistryUnavailable); ok {
		return &PullError{
			Reason:  RegistryUnavailable,
			Message: fmt.Sprintf("image pull failed for %s because the registry is unavailable%s", image, rest),
		}
	}
	if rest, ok := strings.CutPrefix(text, SignatureValidationFailed); ok {
		return &PullError{
			Reason:  SignatureValidationFailed,
			Message: fmt.Sprintf("image pull failed for %s because the signature validation failed%s", image, rest),
		}
	}
	return &PullError{Reason: ErrImagePull, Message: text}
}

// credentials reads the pod's pull secrets. One that is missing is told and left
// out: the image may be public.
func (r *request) credentials(ctx context.Context) (*keyring, error) {
	if r.keyring != nil {
		return r.keyring, nil
	}
	k := &keyring{}
	var missing []string
	for _, named := range r.pod.Spec.ImagePullSecrets {
		if named.Name == "" {
			continue
		}
		secret, err := r.o.Secrets.Secret(ctx, r.pod.Namespace, named.Name)
		if err != nil {
			missing = append(missing, named.Name)
			continue
		}
		if err := k.add(secret); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 {
		r.warn(reasonNoSecret, fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.",
			strings.Join(missing, ", ")))
	}
	r.keyring = k
	return k, nil
}
