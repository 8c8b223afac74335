package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// flights pulls each image once for all that want it with the same credentials at
// the same time. A pull ends early only when nobody wants it any more.
type flights struct {
	images   Service
	progress Progress // nil: not known
	mu       sync.Mutex
	flying   map[string]*flight
}

// waiter is one that wants a flight's image, and hears how far it is.
type waiter struct{ tell func(message string) }

type flight struct {
	waiting []*waiter
	cancel  context.CancelFunc
	done    chan struct{}
	outcome
}

type outcome struct {
	ref  string
	took time.Duration
	// with is the credential that worked; nil if the image opened without any.
	with *credential
	// err has no credential in it.
	err error
}

func newFlights(images Service, progress Progress) *flights {
	return &flights{images: images, progress: progress, flying: map[string]*flight{}}
}

// pull returns when the image is pulled, or cannot be, or ctx is done. Meanwhile it
// tells how far it is.
func (f *flights) pull(ctx context.Context, image string, credentials []credential, c clock.Clock, tell func(message string)) outcome {
	key := flightKey(image, credentials)
	f.mu.Lock()
	shared := f.flying[key]
	if shared == nil {
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		shared = &flight{cancel: cancel, done: make(chan struct{})}
		f.flying[key] = shared
		go f.fly(inner, key, shared, image, credentials, c)
	}
	w := &waiter{tell}
	shared.waiting = append(shared.waiting, w)
	f.mu.Unlock()

	select {
	case <-shared.done:
		return shared.outcome
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	shared.waiting = slices.DeleteFunc(shared.waiting, func(o *waiter) bool { return o == w })
	if len(shared.waiting) == 0 {
		shared.cancel()
		// Who comes now wants a pull that is not about to end.
		if f.flying[key] == shared {
			delete(f.flying, key)
		}
	}
	return outcome{err: ctx.Err()}
}

func (f *flights) fly(ctx context.Context, key string, shared *flight, image string, credentials []credential, c clock.Clock) {
	defer shared.cancel()
	go f.report(ctx, shared, image, c)
	begin := c.Now()
	ref, with, err := f.try(ctx, image, credentials)
	f.mu.Lock()
	defer f.mu.Unlock()
	shared.outcome = outcome{ref: ref, with: with, took: c.Since(begin), err: err}
	if f.flying[key] == shared {
		delete(f.flying, key)
	}
	close(shared.done)
}

// try pulls with one credential after another until one works; without any it
// pulls as nobody. It returns the one that worked.
func (f *flights) try(ctx context.Context, image string, credentials []credential) (string, *credential, error) {
	spec := &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image}
	if len(credentials) == 0 {
		ref, err := f.images.PullImage(ctx, spec, nil, nil)
		return ref, nil, err
	}
	var failed []string
	for _, c := range credentials {
		ref, err := f.images.PullImage(ctx, spec, &runtimeapi.AuthConfig{Username: c.username, Password: c.password}, nil)
		if err == nil {
			return ref, &c, nil
		}
		failed = append(failed, err.Error())
		if ctx.Err() != nil {
			break
		}
	}
	text := strings.Join(failed, "; ")
	if len(failed) > 1 {
		text = "[" + text + "]"
	}
	return "", nil, errors.New(hide(text, credentials))
}

// hide takes credentials out of what a registry or the runtime has said.
func hide(text string, credentials []credential) string {
	for _, c := range credentials {
		for _, secret := range c.secrets() {
			if secret != "" {
				text = strings.ReplaceAll(text, secret, "***")
			}
		}
	}
	return text
}

func flightKey(image string, credentials []credential) string {
	sum := sha256.New()
	for _, c := range credentials {
		sum.Write([]byte(c.username + "\x00" + c.password + "\x00"))
	}
	return image + "\x00" + string(sum.Sum(nil))
}
