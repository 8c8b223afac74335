package admission

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
)

const (
	benchRounds = 7
	benchSlice  = time.Second
	benchWarmUp = 150 * time.Millisecond
)

// contender is one way to answer a review.
type contender struct {
	name    string
	handler http.Handler
	server  *httptest.Server
}

// contenders are what BenchmarkAdmission compares, all behind the same server.
func contenders(t testing.TB) []*contender {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	handler, err := New(Options{Observer: metrics, Clock: clock.RealClock{}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	handler.Register(mux)
	return []*contender{
		{name: "uid", handler: http.HandlerFunc(answerUID)},
		{name: "ours", handler: mux},
		{name: "habit", handler: http.HandlerFunc(answerTyped)},
	}
}

// reviewOf is the review of a new pod, as the API server sends it.
func reviewOf(t testing.TB, pod string) []byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/bench-" + pod + ".json")
	require.NoError(t, err)
	var compact bytes.Buffer
	require.NoError(t, json.Compact(&compact, raw))
	return fmt.Appendf(nil, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{`+
		`"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{"group":"","version":"v1","kind":"Pod"},`+
		`"resource":{"group":"","version":"v1","resource":"pods"},"requestKind":{"group":"","version":"v1","kind":"Pod"},`+
		`"requestResource":{"group":"","version":"v1","resource":"pods"},"namespace":"team","operation":"CREATE",`+
		`"userInfo":{"username":"system:serviceaccount:kube-system:replicaset-controller","uid":"0df28fbd-5f5f-11e8-bc74-36e6bb280816",`+
		`"groups":["system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"]},`+
		`"object":%s,"oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}`, compact.Bytes())
}

func requestOf(review []byte) *http.Request {
	request := httptest.NewRequest(http.MethodPost, pathMutatePods, bytes.NewReader(review))
	request.Header.Set("Content-Type", jsonType)
	return request
}

// The habit does the same work as we do, or the comparison would say nothing.
func TestContendersAgree(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ordinary", "vllm"} {
		review := reviewOf(t, name)
		var in admissionv1.AdmissionReview
		require.NoError(t, json.Unmarshal(review, &in))
		pods := map[string]corev1.Pod{}
		for _, c := range contenders(t) {
			recorder := httptest.NewRecorder()
			c.handler.ServeHTTP(recorder, requestOf(review))
			var answer admissionv1.AdmissionReview
			require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &answer), c.name)
			require.Equal(t, in.Request.UID, answer.Response.UID, c.name)
			require.True(t, answer.Response.Allowed, c.name)
			if c.name == "uid" {
				continue
			}
			patch, err := jsonpatch.DecodePatch(answer.Response.Patch)
			require.NoError(t, err, c.name)
			after, err := patch.Apply(in.Request.Object.Raw)
			require.NoError(t, err, c.name)
			var pod corev1.Pod
			require.NoError(t, json.Unmarshal(after, &pod), c.name)
			require.NotEmpty(t, pod.Annotations[contract.AdmissionAnnotation], c.name)
			delete(pod.Annotations, contract.AdmissionAnnotation) // its wording is ours alone
			pods[c.name] = pod
		}
		require.Equal(t, pods["ours"], pods["habit"], name)
	}
}

// BenchmarkAdmission compares, in one run and in turns, a webhook that decodes
// the review's UID and answers (uid), this one (ours), and the habit of a typed
// decode, a typed encode and a generic diff (habit). It takes about two and a
// half minutes, load and servers share the processors:
//
//	make bench-admission
func BenchmarkAdmission(b *testing.B) {
	fmt.Printf("pods created through TLS and HTTP/1.1 keep-alive, as the API server does;\n"+
		"load generator and servers share %d processors, %s; medians of %d rounds\n",
		runtime.GOMAXPROCS(0), runtime.Version(), benchRounds)
	all := contenders(b)
	for _, c := range all {
		c.server = serveTLS(b, c.handler)
	}
	for _, pod := range []string{"ordinary", "vllm"} {
		review := reviewOf(b, pod)
		fmt.Printf("\n%s pod, review of %d bytes: the handler alone\n", pod, len(review))
		fmt.Printf("  %-8s %10s %10s %10s\n", "handler", "µs", "allocs", "bytes")
		for _, c := range all {
			alone := measureAlone(c.handler, review)
			fmt.Printf("  %-8s %10.1f %10d %10d\n", c.name, alone.micros, alone.allocs, alone.bytes)
		}
		fmt.Printf("  %-8s %6s %10s %10s %10s %10s %10s\n", "handler", "conns", "req/s", "p50 ms", "p99 ms", "ours/uid", "ours/habit")
		for _, conns := range []int{1, 16, 64} {
			rounds := race(b, all, review, conns)
			for i, c := range all {
				line := fmt.Sprintf("  %-8s %6d %10.0f %10.3f %10.3f", c.name, conns,
					median(rounds, func(r []pace) float64 { return r[i].rate }),
					median(rounds, func(r []pace) float64 { return r[i].p50 }),
					median(rounds, func(r []pace) float64 { return r[i].p99 }))
				if c.name == "ours" {
					line += fmt.Sprintf(" %10.2f %10.2f",
						median(rounds, func(r []pace) float64 { return r[1].rate / r[0].rate }),
						median(rounds, func(r []pace) float64 { return r[1].rate / r[2].rate }))
				}
				fmt.Println(line)
			}
		}
	}
}

// race lets the contenders run in turns, so that what else the machine does hits
// all of them, and returns every round's paces in their order.
func race(b *testing.B, all []*contender, review []byte, conns int) [][]pace {
	b.Helper()
	loads := make([]*load, len(all))
	for i, c := range all {
		loads[i] = dial(b, c.server, review, conns)
		loads[i].run(b, benchWarmUp)
	}
	rounds := make([][]pace, benchRounds)
	for round := range rounds {
		for _, l := range loads {
			runtime.GC()
			rounds[round] = append(rounds[round], l.run(b, benchSlice))
		}
	}
	for _, l := range loads {
		l.close()
	}
	return rounds
}

func median(rounds [][]pace, of func([]pace) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.SortFunc(all, cmp.Compare[float64])
	return all[len(all)/2]
}

// cost is what one request costs a handler, without the network.
type cost struct {
	micros        float64
	allocs, bytes uint64
}

// measureAlone runs a handler without TLS, HTTP and load: what is left is its own.
func measureAlone(handler http.Handler, review []byte) cost {
	request := requestOf(nil)
	writer := &nowhere{header: http.Header{}}
	body := bytes.NewReader(review)
	once := func() {
		body.Reset(review)
		request.ContentLength = int64(len(review))
		request.Body = readCloser{body}
		handler.ServeHTTP(writer, request)
	}
	const times = 3000
	for range times / 10 {
		once()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for range times {
		once()
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	return cost{
		micros: float64(took.Nanoseconds()) / times / 1e3,
		allocs: (after.Mallocs - before.Mallocs) / times,
		bytes:  (after.TotalAlloc - before.TotalAlloc) / times,
	}
}

// nowhere is a ResponseWriter that keeps nothing.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// serveTLS serves as the program does.
func serveTLS(b *testing.B, handler http.Handler) *httptest.Server {
	b.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	server.StartTLS()
	b.Cleanup(server.Close)
	return server
}
