package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	user     = "robot"
	password = "p4ss w0rd"
)

// service is an image service in memory. An image in needs is pulled with the
// password only, one in public by anyone, any other not at all.
type service struct {
	mu      sync.Mutex
	present map[string]*runtimeapi.Image
	needs   map[string]bool
	public  map[string]bool
	pulls   []string
	names   []string // that an image has when it is pulled
	// hold, if set, keeps pulls until it is closed or they are cancelled.
	hold chan struct{}
	err  error
}

func (s *service) ImageStatus(_ context.Context, image *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	return &runtimeapi.ImageStatusResponse{Image: s.present[image.Image]}, nil
}

func (s *service) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	s.mu.Lock()
	s.pulls = append(s.pulls, image.Image)
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.public[image.Image], s.needs[image.Image] && auth.GetUsername() == user && auth.GetPassword() == password:
		ref := "sha256:" + image.Image
		s.present[image.Image] = &runtimeapi.Image{Id: ref, Size: 4096, RepoTags: s.names}
		s.present[ref] = s.present[image.Image]
		return ref, nil
	case s.needs[image.Image]:
		// Some registries say what they were told.
		return "", fmt.Errorf("pull %s: 401 Unauthorized (%s:%s)", image.Image, auth.GetUsername(), auth.GetPassword())
	}
	return "", fmt.Errorf("%s: not found", image.Image)
}

func (s *service) pulled() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pulls)
}

// secrets are pull secrets by name.
type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if found := s[name]; found != nil {
		return found, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

// pullSecret opens registries as docker writes it; auth joins name and password.
func pullSecret(name, username, pass string, registries ...string) *corev1.Secret {
	var auths []string
	for _, r := range registries {
		auths = append(auths, fmt.Sprintf(`%q: {"auth": %q}`, r, base64.StdEncoding.EncodeToString([]byte(username+":"+pass))))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths": {` + strings.Join(auths, ",") + `}}`)},
	}
}

// events records them as "TYPE REASON MESSAGE".
type events struct {
	record.EventRecorder
	mu  sync.Mutex
	all []string
}

func (e *events) Event(_ runtime.Object, kind, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, kind+" "+reason+" "+message)
}

func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

type fixture struct {
	*Puller
	secrets secrets
	service *service
	events  *events
	clock   *clocktesting.FakeClock
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		service: &service{
			present: map[string]*runtimeapi.Image{"here:1": {Id: "sha256:here"}},
			needs:   map[string]bool{"registry.example/private:1": true}, public: map[string]bool{"public:1": true, "public:latest": true},
		},
		events: &events{}, clock: clocktesting.NewFakeClock(time.Unix(0, 0)),
		secrets: secrets{
			"good":    pullSecret("good", user, password, "https://registry.example/v2/"),
			"bad":     pullSecret("bad", user, "wr0ng one", "registry.example"),
			"broken":  {ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`s3cret{`)}},
			"another": {Type: corev1.SecretTypeOpaque},
		},
	}
	f.start(t, "")
	return f
}

// start begins another life of the agent, with what it remembers in that folder.
func (f *fixture) start(t *testing.T, records string) {
	t.Helper()
	var err error
	f.Puller, err = New(Options{Images: f.service, Recorder: f.events, Clock: f.clock, Secrets: f.secrets, Records: records})
	require.NoError(t, err)
}

func podOf(image string, policy corev1.PullPolicy, pullSecrets ...string) (*corev1.Pod, *corev1.Container) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: image, ImagePullPolicy: policy}}
	for _, name := range pullSecrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return pod, &pod.Spec.Containers[0]
}

func (f *fixture) ensure(image string, policy corev1.PullPolicy, pullSecrets ...string) (string, error) {
	pod, c := podOf(image, policy, pullSecrets...)
	return f.Ensure(context.Background(), pod, c)
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		image        string
		policy       corev1.PullPolicy
		ref, reason  string
		pulls        []string
		message      string
		events       []string
		pullSecrets  []string
		inspectFails error
	}{
		"present": {image: "here:1", policy: corev1.PullIfNotPresent, ref: "sha256:here",
			events: []string{`Normal Pulled Container image "here:1" already present on machine and can be accessed by the pod`}},
		"present, by default": {image: "here:1", ref: "sha256:here",
			events: []string{`Normal Pulled Container image "here:1" already present on machine and can be accessed by the pod`}},
		"never, and present": {image: "here:1", policy: corev1.PullNever, ref: "sha256:here",
			events: []string{`Normal Pulled Container image "here:1" already present on machine and can be accessed by the pod`}},
		"never, and missing": {image: "public:1", policy: corev1.PullNever, reason: ErrImageNeverPull,
			message: `Container image "public:1" is not present with pull policy of Never`,
			events:  []string{`Warning ErrImageNeverPull Container image "public:1" is not present with pull policy of Never`}},
		"missing": {image: "public:1", policy: corev1.PullIfNotPresent, ref: "sha256:public:1", pulls: []string{"public:1"},
			events: []string{`Normal Pulling Pulling image "public:1"`,
				`Normal Pulled Successfully pulled image "public:1" in 0s (0s including waiting). Image size: 4096 bytes.`}},
		"latest, by default": {image: "public", ref: "sha256:public:latest", pulls: []string{"public:latest"},
			events: []string{`Normal Pulling Pulling image "public:latest"`,
				`Normal Pulled Successfully pulled image "public:latest" in 0s (0s including waiting). Image size: 4096 bytes.`}},
		"bad name": {image: "x/UPPER:1", reason: InvalidImageName, message: `Failed to apply default image tag "x/UPPER:1"`,
			events: []string{`Warning InspectFailed Failed to apply default image tag "x/UPPER:1": couldn't parse image name "x/UPPER:1": invalid reference format: repository name (x/UPPER) must be lowercase`}},
		"runtime away": {image: "here:1", policy: corev1.PullIfNotPresent, inspectFails: errors.New("no socket"), reason: ImageInspectError,
			message: `Failed to inspect image "here:1": no socket`, events: []string{`Warning InspectFailed Failed to inspect image "here:1": no socket`}},
		"not in the registry": {image: "nowhere:1", reason: ErrImagePull, message: "nowhere:1: not found", pulls: []string{"nowhere:1"},
			events: []string{`Normal Pulling Pulling image "nowhere:1"`, `Warning Failed Failed to pull image "nowhere:1": nowhere:1: not found`}},
		"private": {image: "registry.example/private:1", pullSecrets: []string{"another", "good"}, ref: "sha256:registry.example/private:1", pulls: []string{"registry.example/private:1"},
			events: []string{`Normal Pulling Pulling image "registry.example/private:1"`,
				`Normal Pulled Successfully pulled image "registry.example/private:1" in 0s (0s including waiting). Image size: 4096 bytes.`}},
		"private, with each credential": {image: "registry.example/private:1", pullSecrets: []string{"bad", "good"}, ref: "sha256:registry.example/private:1",
			pulls: []string{"registry.example/private:1", "registry.example/private:1"},
			events: []string{`Normal Pulling Pulling image "registry.example/private:1"`,
				`Normal Pulled Successfully pulled image "registry.example/private:1" in 0s (0s including waiting). Image size: 4096 bytes.`}},
		"private, wrong password": {image: "registry.example/private:1", pullSecrets: []string{"bad"}, reason: ErrImagePull,
			message: "pull registry.example/private:1: 401 Unauthorized (robot:***)", pulls: []string{"registry.example/private:1"},
			events: []string{`Normal Pulling Pulling image "registry.example/private:1"`,
				`Warning Failed Failed to pull image "registry.example/private:1": pull registry.example/private:1: 401 Unauthorized (robot:***)`}},
		"private, secret missing": {image: "registry.example/private:1", pullSecrets: []string{"gone"}, reason: ErrImagePull,
			message: "401 Unauthorized", pulls: []string{"registry.example/private:1"},
			events: []string{"Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (gone); attempting to pull the image may not succeed.",
				`Normal Pulling Pulling image "registry.example/private:1"`,
				`Warning Failed Failed to pull image "registry.example/private:1": pull registry.example/private:1: 401 Unauthorized (:)`}},
		"private, secret broken": {image: "registry.example/private:1", pullSecrets: []string{"broken"}, reason: ErrImagePull,
			message: `image pull secret "broken": its .dockerconfigjson is not a docker configuration`,
			events:  []string{`Warning Failed Failed to pull image "registry.example/private:1": image pull secret "broken": its .dockerconfigjson is not a docker configuration`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.service.err = test.inspectFails
			ref, err := f.ensure(test.image, test.policy, test.pullSecrets...)
			if test.reason == "" {
				require.NoError(t, err)
				require.Equal(t, test.ref, ref)
			} else {
				var pull *PullError
				require.ErrorAs(t, err, &pull)
				require.Equal(t, test.reason, pull.Reason)
				require.Contains(t, pull.Message, test.message)
				require.NotContains(t, err.Error(), "wr0ng")
				require.NotContains(t, err.Error(), "s3cret")
			}
			require.Equal(t, test.pulls, f.service.pulled())
			require.Equal(t, test.events, f.events.take())
		})
	}
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var pull *PullError
	for _, delay := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second} {
		_, err := f.ensure("nowhere:1", "")
		require.ErrorAs(t, err, &pull)
		require.Equal(t, ErrImagePull, pull.Reason)
		require.Equal(t, f.clock.Now().Add(delay), pull.Until)
		f.events.take()
		pulls := len(f.service.pulled())

		for i := range 3 {
			f.clock.SetTime(f.clock.Now().Add(delay / 4))
			_, err = f.ensure("nowhere:1", "")
			require.ErrorAs(t, err, &pull)
			require.Equal(t, ImagePullBackOff, pull.Reason)
			require.Equal(t, `Back-off pulling image "nowhere:1": ErrImagePull: nowhere:1: not found`, pull.Message)
			if i == 0 {
				require.Equal(t, []string{`Normal BackOff Back-off pulling image "nowhere:1"`}, f.events.take())
			} else {
				require.Empty(t, f.events.take(), "a back-off is told once")
			}
		}
		require.Len(t, f.service.pulled(), pulls, "no pull while backing off")
		f.clock.SetTime(pull.Until)
	}

	other, c := podOf("nowhere:1", "")
	other.UID = "another"
	_, err := f.Ensure(t.Context(), other, c)
	require.ErrorAs(t, err, &pull)
	require.Equal(t, ErrImagePull, pull.Reason, "another pod does not wait for this one's back-off")

	f.service.public["nowhere:1"] = true
	_, err = f.ensure("nowhere:1", "")
	require.NoError(t, err, "the image has appeared")
	f.service.public["nowhere:1"] = false
	delete(f.service.present, "nowhere:1")
	_, err = f.ensure("nowhere:1", "")
	require.ErrorAs(t, err, &pull)
	require.Equal(t, f.clock.Now().Add(10*time.Second), pull.Until, "success begins the back-off anew")
}

func TestTheSameTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 5 {
		_, err := f.ensure("public:1", corev1.PullNever)
		require.Error(t, err)
	}
	require.Len(t, f.events.take(), 1)
	f.clock.SetTime(f.clock.Now().Add(sayAgain))
	_, err := f.ensure("public:1", corev1.PullNever)
	require.Error(t, err)
	require.Len(t, f.events.take(), 1, "a reminder")
}

func TestOnePullForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.service.hold = make(chan struct{})
		results := make(chan error, 4)
		for range 4 {
			pod, c := podOf("public:1", corev1.PullAlways)
			go func() { _, err := f.Ensure(t.Context(), pod, c); results <- err }()
		}
		leaver, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			pod, c := podOf("public:1", corev1.PullAlways)
			_, err := f.Ensure(leaver, pod, c)
			left <- err
		}()
		synctest.Wait()
		require.Len(t, f.service.pulled(), 1)

		cancel()
		require.ErrorIs(t, <-left, context.Canceled, "one that leaves does not wait")
		synctest.Wait()
		close(f.service.hold)
		for range 4 {
			require.NoError(t, <-results, "and does not end the others' pull")
		}
		require.Len(t, f.service.pulled(), 1)
	})
}

func TestPullThatNobodyWantsEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.service.hold = make(chan struct{}) // for ever: only cancelling ends it
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		pod, c := podOf("public:1", corev1.PullAlways)
		go func() { _, err := f.Ensure(ctx, pod, c); done <- err }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		synctest.Wait() // the pull itself has ended too, or synctest complains

		f.service.mu.Lock()
		f.service.hold = nil
		f.service.mu.Unlock()
		_, err := f.Ensure(t.Context(), pod, c)
		require.NoError(t, err, "a pull that was given up is no failure, and no back-off")
	})
}

func TestKeyring(t *testing.T) {
	t.Parallel()
	k := &keyring{}
	for _, s := range []*corev1.Secret{
		pullSecret("a", "host", "1", "https://registry.example"), pullSecret("b", "path", "2", "registry.example/team"),
		pullSecret("c", "port", "3", "registry.example:5000"), pullSecret("d", "glob", "4", "*.wild.example"),
		pullSecret("e", "hub", "5", "https://index.docker.io/v1/"),
		{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"old.example": {"username": "old", "password": "6", "email": "x"}}`)}},
	} {
		require.NoError(t, k.add(s))
	}
	for image, want := range map[string][]string{
		"registry.example/x:1": {"host"},
		"registry.example/team/app@sha256:" + strings.Repeat("a", 64): {"path", "host"},
		"registry.example:5000/x":                                     {"port"},
		"a.wild.example/x":                                            {"glob"},
		"a.b.wild.example/x":                                          nil,
		"wild.example/x":                                              nil,
		"busybox":                                                     {"hub"},
		"docker.io/library/busybox":                                   {"hub"},
		"old.example/x":                                               {"old"},
		"other.example/x":                                             nil,
	} {
		repo, err := repository(image)
		require.NoError(t, err)
		var got []string
		for _, c := range k.find(repo) {
			got = append(got, c.username)
		}
		require.Equal(t, want, got, image)
	}
	require.ErrorContains(t, k.add(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "z"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths": {"r": {"auth": "!"}}}`)},
	}), `image pull secret "z": the auth of registry "r" is not base64`)
}

func TestMissingOptionsAreNamed(t *testing.T) {
	t.Parallel()
	_, err := New(Options{})
	for _, name := range []string{"Images", "Secrets", "Recorder"} {
		require.ErrorContains(t, err, "option "+name+" is missing")
	}
}
