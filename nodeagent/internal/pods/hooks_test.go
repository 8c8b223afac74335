package pods

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ainode/ainode/nodeagent/internal/hooks"
)

// A hook says HTTPS: a server that speaks it is asked once, one that speaks HTTP only
// is asked again by that.
func TestHTTPSHookFallsBackToHTTP(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	for name, c := range map[string]struct {
		serve     func(http.Handler) *httptest.Server
		fallbacks float64
		password  string // that the server saw
	}{
		"https": {httptest.NewTLSServer, 0, "secret"},
		"http":  {httptest.NewServer, 1, ""},
	} {
		asked := make(chan *http.Request, 10)
		server := c.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r }))
		t.Cleanup(server.Close)
		before := testutil.ToFloat64(hooks.HTTPFallbacks)
		m.events.forget()
		pod := shell(name, obedient)
		port := server.Listener.Addr().(*net.TCPAddr).Port
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
			Scheme: corev1.URISchemeHTTPS, Path: "/ready?now", Port: intstr.FromInt32(int32(port)),
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Authorization", Value: "secret"}},
		}}}
		m.create(pod)
		m.awaitPhase(name, corev1.PodRunning)
		require.Len(t, asked, 1, name)
		request := received(t, asked)
		require.Equal(t, "/ready?now", request.RequestURI)
		require.Equal(t, c.password, request.Header.Get("Authorization"), name)
		require.InDelta(t, c.fallbacks, testutil.ToFloat64(hooks.HTTPFallbacks)-before, 0)
		told := "Warning LifecycleHTTPFallback request to HTTPS lifecycle hook " + server.Listener.Addr().String() + " got HTTP response, retry with HTTP succeeded"
		require.Equal(t, c.fallbacks == 1, slices.Contains(m.events.list(), told), "%v", m.events)
	}
}
