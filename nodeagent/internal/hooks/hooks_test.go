package hooks

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
)

func TestAServerWithoutHTTPSIsTold(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	address := server.Listener.Addr().(*net.TCPAddr)
	var told []string
	r := Runner{Address: func() string { return "127.0.0.1" }, FellBack: func(message string) { told = append(told, message) }}
	ask := func(scheme corev1.URIScheme) error {
		return r.Run(t.Context(), &corev1.Container{Name: "a"}, &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
			Scheme: scheme, Port: intstr.FromInt32(int32(address.Port)),
		}}, "id", 0)
	}
	require.NoError(t, ask(corev1.URISchemeHTTP), "what it answers does not matter")
	require.Empty(t, told)
	require.NoError(t, ask(corev1.URISchemeHTTPS))
	require.Equal(t, []string{"request to HTTPS lifecycle hook " + address.String() + " got HTTP response, retry with HTTP succeeded"}, told)
	server.Close()
	require.ErrorContains(t, ask(corev1.URISchemeHTTP), "ask the hook: ")
}

// slept is a clock whose waits end at once and are written down.
type slept struct {
	clock.Clock
	waits []time.Duration
}

func (s *slept) After(d time.Duration) <-chan time.Time {
	s.waits = append(s.waits, d)
	over := make(chan time.Time, 1)
	over <- time.Time{}
	return over
}

func TestAHookThatSleeps(t *testing.T) {
	t.Parallel()
	var clock slept
	r := Runner{Clock: &clock}
	require.NoError(t, r.Run(t.Context(), &corev1.Container{}, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}, "id", time.Hour))
	require.Equal(t, []time.Duration{5 * time.Second}, clock.waits)
	require.Error(t, r.Run(t.Context(), &corev1.Container{}, &corev1.LifecycleHandler{}, "id", 0), "no action")
}
