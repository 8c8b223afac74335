package admission

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
)

// seen is an Observer that keeps what it was told.
type seen struct {
	mu       sync.Mutex
	findings []contract.Finding
}

func (s *seen) Observe(_ string, findings []contract.Finding, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = append(s.findings, findings...)
}

func serve(t *testing.T, o Options) *httptest.Server {
	t.Helper()
	if o.Observer == nil {
		o.Observer = &seen{}
	}
	o.Clock = clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	handler, err := New(o)
	require.NoError(t, err)
	mux := http.NewServeMux()
	handler.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// ask sends a review of object, in YAML, and returns the answer.
func ask(t *testing.T, server *httptest.Server, path, kind, operation, object string) *admissionv1.AdmissionResponse {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(object))
	require.NoError(t, err)
	review, err := json.Marshal(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": map[string]any{
			"uid": "u-1", "kind": map[string]string{"kind": kind}, "operation": operation, "namespace": "team", "object": json.RawMessage(raw),
		},
	})
	require.NoError(t, err)
	response, err := http.Post(server.URL+path, "application/json", bytes.NewReader(review))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var answer admissionv1.AdmissionReview
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	require.Equal(t, "admission.k8s.io/v1", answer.APIVersion)
	require.Equal(t, "AdmissionReview", answer.Kind)
	require.EqualValues(t, "u-1", answer.Response.UID)
	return answer.Response
}

const aiPod = `
metadata: {name: p, labels: {ainode.dev/schedule: "true"}}
spec:
  hostNetwork: true
  containers: [{name: a, image: a}]
`

func TestPodIsChanged(t *testing.T) {
	t.Parallel()
	observer := &seen{}
	answer := ask(t, serve(t, Options{Observer: observer}), pathMutatePods, "Pod", "CREATE", aiPod)
	require.True(t, answer.Allowed)
	require.Equal(t, admissionv1.PatchTypeJSONPatch, *answer.PatchType)
	require.Contains(t, string(answer.Patch), `{"op":"remove","path":"/spec/hostNetwork"}`)
	require.Contains(t, strings.Join(answer.Warnings, "\n"), "host-network: spec.hostNetwork was removed")
	require.NotEmpty(t, observer.findings)
	require.Equal(t, map[string]string{"findings": "placement=inject tolerations=inject host-network=strip dns=normalise"}, answer.AuditAnnotations)
}

func TestOtherPodsAreLeftAlone(t *testing.T) {
	t.Parallel()
	server := serve(t, Options{})
	for _, path := range []string{pathMutatePods, pathMutatePods + factRestricted, pathMutatePods + factOptedIn, pathValidatePods} {
		answer := ask(t, server, path, "Pod", "CREATE", strings.Replace(aiPod, `"true"`, `"false"`, 1))
		require.Equal(t, &admissionv1.AdmissionResponse{UID: "u-1", Allowed: true}, answer)
	}
}

func TestPathsTellOfTheNamespace(t *testing.T) {
	t.Parallel()
	const pod = `
metadata: {name: p}
spec:
  securityContext: {runAsNonRoot: true}
  containers: [{name: a, resources: {limits: {nvidia.com/gpu: "1"}, requests: {nvidia.com/gpu: "1"}}}]
`
	server := serve(t, Options{})
	require.Empty(t, ask(t, server, pathMutatePods, "Pod", "CREATE", pod).Patch)
	require.Contains(t, string(ask(t, server, pathMutatePods+factOptedIn, "Pod", "CREATE", pod).Patch), "/spec/securityContext")
	both := string(ask(t, server, pathMutatePods+factOptedIn+factRestricted, "Pod", "CREATE", pod).Patch)
	require.Contains(t, both, "nodeSelector")
	require.NotContains(t, both, "securityContext")
	assumed := serve(t, Options{AssumeRestricted: true})
	require.NotContains(t, string(ask(t, assumed, pathMutatePods+factOptedIn, "Pod", "CREATE", pod).Patch), "securityContext")
}

func TestRefusalListsEverything(t *testing.T) {
	t.Parallel()
	answer := ask(t, serve(t, Options{}), pathMutatePods, "Pod", "CREATE", `
metadata: {name: p, labels: {ainode.dev/schedule: "true"}}
spec:
  hostNetwork: true
  volumes: [{name: a, hostPath: {path: /etc}}]
  containers: [{name: a, resources: {limits: {nvidia.com/gpu: "0.5"}}}]
`)
	require.False(t, answer.Allowed)
	require.Nil(t, answer.Patch)
	require.Empty(t, answer.Warnings)
	require.EqualValues(t, http.StatusForbidden, answer.Result.Code)
	require.Contains(t, answer.Result.Message, "- gpu: ")
	require.Contains(t, answer.Result.Message, "- host-path: ")
	require.Contains(t, answer.AuditAnnotations["findings"], "gpu=deny")
}

func TestUngatingAddsTheTolerationAlone(t *testing.T) {
	t.Parallel()
	answer := ask(t, serve(t, Options{}), pathMutatePods, "Pod", "UPDATE", aiPod)
	var ops []contract.Op
	require.NoError(t, json.Unmarshal(answer.Patch, &ops))
	var paths []string
	for _, op := range ops {
		paths = append(paths, op.Path)
	}
	require.Equal(t, []string{"/spec/tolerations", "/metadata/annotations"}, paths)
	require.Contains(t, strings.Join(answer.Warnings, "\n"), "would have been removed when the pod was made")
}

func TestValidationChangesNothing(t *testing.T) {
	t.Parallel()
	answer := ask(t, serve(t, Options{}), pathValidatePods, "Pod", "CREATE", aiPod)
	require.True(t, answer.Allowed)
	require.Empty(t, answer.Patch)
	require.NotEmpty(t, answer.Warnings)
}

func TestWorkloadsAreTold(t *testing.T) {
	t.Parallel()
	server := serve(t, Options{})
	template := "template: " + flow(t, aiPod)
	deployment := ask(t, server, pathValidateWorkloads, "Deployment", "CREATE", "spec: {"+template+"}")
	require.True(t, deployment.Allowed)
	require.Empty(t, deployment.Patch)
	require.Equal(t, []string{
		"host-network: spec.template.spec.hostNetwork will be removed on its pods: an AI node's network is not the cluster's",
		"placement: spec.template.spec.nodeSelector[alibabacloud.com/virtual-node] will be added on its pods: the pod opts in by label ainode.dev/schedule",
	}, deployment.Warnings)

	cron := ask(t, server, pathValidateWorkloads, "CronJob", "CREATE", "spec: {jobTemplate: {spec: {"+template+"}}}")
	require.Contains(t, cron.Warnings[0], "spec.jobTemplate.spec.template.spec.hostNetwork")

	daemonSet := ask(t, server, pathValidateWorkloads, "DaemonSet", "CREATE", "spec: {"+template+"}")
	require.False(t, daemonSet.Allowed)
	require.Contains(t, daemonSet.Result.Message, "- daemonset: spec: ")

	// A namespace's label means no DaemonSets.
	gpu := ask(t, server, pathValidateWorkloads+factOptedIn, "DaemonSet", "CREATE",
		`spec: {template: {spec: {containers: [{name: a, resources: {limits: {nvidia.com/gpu: "1"}}}]}}}`)
	require.True(t, gpu.Allowed)
	require.Empty(t, gpu.Warnings)
}

// flow is YAML in one line.
func flow(t *testing.T, s string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(s))
	require.NoError(t, err)
	return string(raw)
}

func TestBadReviews(t *testing.T) {
	t.Parallel()
	server := serve(t, Options{})
	for name, body := range map[string]string{
		"empty": "", "no JSON": "{", "other kind": `{"kind":"Pod"}`, "no request": `{"kind":"AdmissionReview"}`,
		"no uid": `{"kind":"AdmissionReview","request":{}}`, "a list": "[]", "null": "null",
		"too big": `{"kind":"` + strings.Repeat("x", bodyAtMost) + `"}`,
	} {
		response, err := http.Post(server.URL+pathMutatePods, "application/json", strings.NewReader(body))
		require.NoError(t, err, name)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusBadRequest, response.StatusCode, name)
	}
	for name, object := range map[string]string{
		"no object": "null", "a list": "[]", "wrong kinds": `{"spec":{"containers":"x"}}`, "nulls": `{"metadata":null,"spec":{"containers":[null],"volumes":[null],"nodeName":"ai-a"}}`,
	} {
		answer := ask(t, server, pathMutatePods, "Pod", "CREATE", object)
		if !answer.Allowed {
			require.EqualValues(t, http.StatusBadRequest, answer.Result.Code, name)
			require.Contains(t, answer.Result.Message, "judge Pod by the AI nodes' support table", name)
		}
	}
	require.Equal(t, http.StatusMethodNotAllowed, status(t, server.URL+pathMutatePods))
	require.Equal(t, http.StatusNotFound, status(t, server.URL+"/"))
}

func status(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}
