package images_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/images"
)

// stored are the Secrets of an API in memory.
type stored struct{ *fake.Clientset }

func (s stored) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// newRegistry is a registry that wants a password, with one image in it, whose
// user is 65534.
func newRegistry(t *testing.T, user, password string) (image string) {
	t.Helper()
	content := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
			return
		}
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	made := critest.Image(t, nil)
	file, err := made.ConfigFile()
	require.NoError(t, err)
	file = file.DeepCopy()
	file.Config.User = "65534"
	made, err = mutate.ConfigFile(made, file)
	require.NoError(t, err)
	push(t, content, "team/app", "1", made)
	return strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
}

// push stores the image behind the registry's door.
func push(t *testing.T, content http.Handler, repository, tag string, image v1.Image) {
	t.Helper()
	do := func(method, path, kind string, body []byte) {
		request := httptest.NewRequestWithContext(t.Context(), method, "/v2/"+repository+path, bytes.NewReader(body))
		request.Header.Set("Content-Type", kind)
		response := httptest.NewRecorder()
		content.ServeHTTP(response, request)
		require.Equal(t, http.StatusCreated, response.Code, "%s %s: %s", method, path, response.Body)
	}
	layers, err := image.Layers()
	require.NoError(t, err)
	for _, layer := range layers {
		digest, err := layer.Digest()
		require.NoError(t, err)
		reader, err := layer.Compressed()
		require.NoError(t, err)
		raw, err := io.ReadAll(reader)
		require.NoError(t, err)
		do(http.MethodPost, "/blobs/uploads/?digest="+digest.String(), "application/octet-stream", raw)
	}
	config, err := image.RawConfigFile()
	require.NoError(t, err)
	name, err := image.ConfigName()
	require.NoError(t, err)
	do(http.MethodPost, "/blobs/uploads/?digest="+name.String(), "application/octet-stream", config)
	manifest, err := image.RawManifest()
	require.NoError(t, err)
	kind, err := image.MediaType()
	require.NoError(t, err)
	do(http.MethodPut, "/manifests/"+tag, string(kind), manifest)
}

// A real containerd and a registry that wants a password.
func TestPullFromARegistryThatWantsAPassword(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs containerd; left out with -short")
	}
	c := critest.Start(t)
	image := newRegistry(t, "robot", "s3cret-w0rd")
	host, _, _ := strings.Cut(image, "/")
	secret := func(name, password string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Type: corev1.SecretTypeDockerConfigJson,
			Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths": {"` + host + `": {"username": "robot", "password": "` + password + `"}}}`)},
		}
	}
	recorder := record.NewFakeRecorder(100)
	p, err := images.New(images.Options{
		Images: c.Runtime.Images, Recorder: recorder, Clock: clocktesting.NewFakeClock(time.Unix(0, 0)), Records: t.TempDir(),
		Secrets: stored{fake.NewClientset(secret("good", "s3cret-w0rd"), secret("bad", "wr0ng-w0rd"))},
	})
	require.NoError(t, err)
	ensure := func(uid types.UID, image string, policy corev1.PullPolicy, secrets ...string) (string, error) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: uid}}
		for _, s := range secrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
		}
		return p.Ensure(t.Context(), pod, &corev1.Container{Name: "c", Image: image, ImagePullPolicy: policy})
	}
	refused := func(reason string, err error, parts ...string) {
		t.Helper()
		var pull *images.PullError
		require.ErrorAs(t, err, &pull)
		require.Equal(t, reason, pull.Reason, pull.Message)
		for _, part := range parts {
			require.Contains(t, pull.Message, part)
		}
		require.NotContains(t, pull.Message, "w0rd")
	}

	_, err = ensure("1", image, corev1.PullAlways)
	refused(images.ErrImagePull, err, image, "authorization failed: no basic auth credentials")
	_, err = ensure("2", image, corev1.PullAlways, "bad")
	refused(images.ErrImagePull, err, image, "401 Unauthorized")
	_, err = ensure("2", image, corev1.PullAlways, "bad")
	refused(images.ImagePullBackOff, err, "401 Unauthorized")
	_, err = ensure("3", strings.Replace(image, "/app:", "/no:", 1), corev1.PullAlways, "good")
	refused(images.ErrImagePull, err, "not found")
	_, err = ensure("4", image, corev1.PullNever)
	refused(images.ErrImageNeverPull, err)
	_, err = ensure("5", "127.0.0.1:1/nobody/there:1", corev1.PullIfNotPresent)
	refused(images.ErrImagePull, err, "connection refused")

	ref, err := ensure("6", image, corev1.PullAlways, "bad", "good")
	require.NoError(t, err)
	_, err = ensure("7", image, corev1.PullNever)
	refused(images.ErrImageNeverPull, err)
	_, err = ensure("7", image, corev1.PullIfNotPresent)
	refused(images.ErrImagePull, err, "authorization failed")
	present, err := ensure("7", image, corev1.PullNever, "good")
	require.NoError(t, err)
	require.Equal(t, ref, present, "both ways name the same image")
	again, err := ensure("8", image, corev1.PullAlways, "good")
	require.NoError(t, err)
	require.Equal(t, ref, again)
	_, err = ensure("9", critest.Busybox, corev1.PullIfNotPresent)
	require.NoError(t, err)

	uid, name, err := p.User(t.Context(), ref)
	require.NoError(t, err)
	require.Empty(t, name)
	require.EqualValues(t, 65534, *uid)

	close(recorder.Events)
	for event := range recorder.Events {
		require.NotContains(t, event, "w0rd")
		if strings.Contains(event, "Successfully") {
			require.Regexp(t, `^Normal Pulled Successfully pulled image ".*/team/app:1" in 0s \(0s including waiting\)\. Image size: [1-9][0-9]+ bytes\.$`, event)
		}
	}
}
