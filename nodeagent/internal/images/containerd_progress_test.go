package images_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/images"
)

// stalled is an answer that stops when so much of it has been sent, until it is let go.
type stalled struct {
	http.ResponseWriter
	left int
	let  <-chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	if len(p) <= s.left {
		s.left -= len(p)
		return s.ResponseWriter.Write(p)
	}
	n, err := s.ResponseWriter.Write(p[:s.left])
	if err != nil {
		return n, err
	}
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	<-s.let
	rest, err := s.ResponseWriter.Write(p[s.left:])
	s.left = 1 << 40
	return n + rest, err
}

// A registry sends two MiB of a layer, and then no more for a while.
func TestPulledIsToldByContainerd(t *testing.T) {
	t.Parallel()
	const sent = 2<<20 + 100 // containerd writes by the MiB
	c := critest.Start(t)
	noise := make([]byte, 4<<20) // which cannot be compressed
	_, _ = rand.Read(noise)
	made := critest.Image(t, map[string]string{"/noise": string(noise)})
	layers, err := made.Layers()
	require.NoError(t, err)
	digest, err := layers[0].Digest()
	require.NoError(t, err)
	size, err := layers[0].Size()
	require.NoError(t, err)

	content, let := registry.New(), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(let) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String()) {
			w = &stalled{w, sent, let}
		}
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(letGo)
	push(t, content, "team/large", "1", made)
	repository := strings.TrimPrefix(server.URL, "http://") + "/team/large"

	_, _, err = c.Runtime.Content.Pulled(t.Context(), repository)
	require.ErrorIs(t, err, cri.ErrUnknown, "nothing is being pulled")
	recorder, clock := record.NewFakeRecorder(100), clocktesting.NewFakeClock(time.Now())
	p, err := images.New(images.Options{
		Images: c.Runtime.Images, Progress: c.Runtime.Content, Secrets: stored{fake.NewClientset()}, Recorder: recorder, Clock: clock,
	})
	require.NoError(t, err)
	pulled := make(chan error, 1)
	go func() {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
		_, err := p.Ensure(t.Context(), pod, &corev1.Container{Name: "c", Image: repository + ":1", ImagePullPolicy: corev1.PullAlways})
		pulled <- err
	}()
	require.Contains(t, <-recorder.Events, "Pulling image")
	var done, total int64
	require.Eventually(t, func() bool {
		done, total, err = c.Runtime.Content.Pulled(t.Context(), repository)
		return err == nil && done == 2<<20
	}, 2*time.Minute, 10*time.Millisecond, "what has been sent is there")
	require.Equal(t, size, total)
	_, _, err = c.Runtime.Content.Pulled(t.Context(), repository+"2")
	require.ErrorIs(t, err, cri.ErrUnknown, "another repository")

	require.Eventually(t, clock.HasWaiters, 2*time.Minute, 10*time.Millisecond)
	clock.Step(time.Minute)
	require.Regexp(t, `^Normal Pulling Still pulling image ".*/team/large:1" after 1m0s: 2\.0 of [4-9]\.[0-9] MiB$`, <-recorder.Events)
	letGo()
	require.NoError(t, <-pulled)
	require.Contains(t, <-recorder.Events, "Successfully pulled image")
}
