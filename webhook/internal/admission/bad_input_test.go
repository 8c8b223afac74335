package admission

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// Whatever is no review is refused in HTTP's terms, with a reason.
func TestWhatIsNoReviewIsRefused(t *testing.T) {
	t.Parallel()
	server := serve(t, Options{})
	for name, c := range map[string]struct {
		body, contentType string
		code              int
		says              string
	}{
		"empty":              {``, jsonType, 400, "unexpected end of JSON input"},
		"cut off":            {`{"kind":"AdmissionReview","request":{"uid":"u`, jsonType, 400, "unexpected end of JSON input"},
		"two documents":      {`{} {}`, jsonType, 400, "after top-level value"},
		"byte order mark":    {"\ufeff{}", jsonType, 400, "invalid character"},
		"a list":             {`[]`, jsonType, 400, "cannot unmarshal array"},
		"a word":             {`"AdmissionReview"`, jsonType, 400, "cannot unmarshal string"},
		"null":               {`null`, jsonType, 400, "no AdmissionReview"},
		"other kind":         {`{"kind":"Pod","request":{"uid":"u"}}`, jsonType, 400, "no AdmissionReview"},
		"kind in other case": {`{"Kind":"AdmissionReview","request":{"uid":"u"}}`, jsonType, 400, "no AdmissionReview"},
		"kind no word":       {`{"kind":1,"request":{"uid":"u"}}`, jsonType, 400, "cannot unmarshal number"},
		"request null":       {`{"kind":"AdmissionReview","request":null}`, jsonType, 400, "no AdmissionReview"},
		"request a list":     {`{"kind":"AdmissionReview","request":[]}`, jsonType, 400, "cannot unmarshal array"},
		"uid no word":        {`{"kind":"AdmissionReview","request":{"uid":1}}`, jsonType, 400, "cannot unmarshal number"},
		"uid null":           {`{"kind":"AdmissionReview","request":{"uid":null}}`, jsonType, 400, "no AdmissionReview"},
		"kind of object":     {`{"kind":"AdmissionReview","request":{"uid":"u","kind":"Pod"}}`, jsonType, 400, "cannot unmarshal string"},
		"a depth bomb":       {strings.Repeat("[", 1<<20), jsonType, 400, "max depth"},
		"too big":            {`{"kind":"` + strings.Repeat("x", bodyAtMost) + `"}`, jsonType, 400, "too large"},
		"YAML":               {`kind: AdmissionReview`, "application/yaml", 415, `content type "application/yaml" is not application/json`},
		"no content type":    {`{}`, "", 415, `content type ""`},
		"odd content type":   {`{}`, "; ;", 415, "content type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{pathMutatePods, pathValidatePods + factOptedIn, pathValidateWorkloads} {
				request, err := http.NewRequest(http.MethodPost, server.URL+path, strings.NewReader(c.body))
				require.NoError(t, err)
				request.Header.Set("Content-Type", c.contentType)
				response, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				require.Equal(t, c.code, response.StatusCode, "%s: %s", path, text)
				require.Contains(t, string(text), c.says, path)
			}
		})
	}
	response, err := http.Post(server.URL+pathMutatePods, "application/json; charset=utf-8", strings.NewReader(
		`{"kind":"AdmissionReview","request":{"uid":"u","object":{"spec":{}}}}`))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
}

// aimed makes an AI node's pod of the fields of a spec.
func aimed(spec string) string { return `{"spec":{"nodeName":"ai-a",` + spec + `}}` }

// many repeats a text with its number in the place of each #.
func many(n int, text string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = strings.ReplaceAll(text, "#", fmt.Sprint(i))
	}
	return strings.Join(all, ",")
}

const token = `{"name":"kube-api-access","projected":{"sources":[{"serviceAccountToken":{"path":"token"}}]}}`

// Whatever the object is, the review is answered, in the time that the API server
// gives us, and a refusal says why.
func TestWhateverTheObjectIsTheReviewIsAnswered(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	for name, c := range map[string]struct {
		object string
		code   int32 // 0: allowed
		says   string
	}{
		"none":                    {`null`, 400, "it has no spec"},
		"a list":                  {`[]`, 400, "cannot unmarshal array"},
		"a word":                  {`"pod"`, 400, "cannot unmarshal string"},
		"a number":                {`1e999`, 400, "cannot unmarshal number"},
		"empty":                   {`{}`, 400, "it has no spec"},
		"spec null":               {`{"spec":null}`, 400, "it has no spec"},
		"spec empty":              {`{"spec":{}}`, 0, ""},
		"nulls everywhere":        {aimed(`"metadata":null,"nodeSelector":null,"affinity":null,"tolerations":[null],"volumes":null,"securityContext":null,"dnsConfig":null,"containers":[null,{"name":null,"command":[null],"args":null,"env":[null],"ports":[null],"resources":{"limits":null,"requests":null,"claims":null},"volumeMounts":[null],"securityContext":{"capabilities":null,"runAsUser":null}}],"initContainers":null,"ephemeralContainers":[null],"topologySpreadConstraints":[null],"resourceClaims":null,"overhead":null`), 0, ""},
		"a null volume":           {aimed(`"volumes":[null]`), 400, "spec.volumes[0]: it is null"},
		"a volume of nulls":       {aimed(`"volumes":[{"name":null,"emptyDir":null}]`), 0, ""},
		"sources of nulls":        {aimed(`"volumes":[{"name":"a","projected":{"sources":[null,{},{"secret":null}]}}]`), 0, ""},
		"volumes no list":         {aimed(`"volumes":{"a":1}`), 400, "cannot unmarshal object"},
		"containers a word":       {aimed(`"containers":"x"`), 400, "cannot unmarshal string"},
		"a container a list":      {aimed(`"containers":[[]]`), 400, "cannot unmarshal array"},
		"labels of numbers":       {`{"metadata":{"labels":{"a":1}},"spec":{}}`, 400, "cannot unmarshal number"},
		"limits a list":           {aimed(`"containers":[{"resources":{"limits":[]}}]`), 400, "decode resources"},
		"limits a word":           {aimed(`"containers":[{"resources":{"limits":"x"}}]`), 400, "decode resources"},
		"a security context list": {aimed(`"securityContext":[]`), 400, "decode a security context"},
		"a port beyond int32":     {aimed(`"containers":[{"ports":[{"hostPort":99999999999}]}]`), 400, "cannot unmarshal number"},
		"a fractional port":       {aimed(`"containers":[{"ports":[{"hostPort":1.5}]}]`), 400, "cannot unmarshal number"},
		"twice the same volume":   {aimed(`"volumes":[{"name":"a"},{"name":"a","emptyDir":{}},` + token + `,` + token + `],"containers":[{"volumeMounts":[{"name":"a","mountPath":"/a"},{"name":"kube-api-access","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]`), 0, ""},
		"two sources":             {aimed(`"volumes":[{"name":"a","emptyDir":{},"nfs":{}}]`), 0, ""},
		"a source without a name": {aimed(`"volumes":[{"name":"a","":{},"hostPath":{"path":"/etc"}}]`), 403, "host-path"},
		"an unknown source":       {aimed(`"volumes":[{"name":"a","quantumDisk":{}}]`), 403, "quantumDisk"},
		"a mount of nothing":      {aimed(`"containers":[{"volumeMounts":[{"name":"nowhere","mountPath":""}]}]`), 0, ""},
		"unicode":                 {aimed(`"volumes":[{"name":"` + "\u202edlrow/~1 😀\\u0000\\ud800" + `","emptyDir":{}}],"containers":[{"name":"日本語","args":["a.svc…"],"resources":{"limits":{"nvidia.com/gpu\u0000":"1"}}}]`), 0, ""},
		"escaped names":           {aimed(`"containers":[{"resources":{"limits":{"nvidia.com\u002fgpu":"0.5"}}}]`), 403, "not a whole number of cards"},
		"invalid UTF-8":           {aimed("\"volumes\":[{\"name\":\"\xff\xfe\",\"emptyDir\":{}}]"), 0, ""},
		"1e999 GPUs":              {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1e999"}}}]`), 403, "more than any machine has"},
		"1e999 GPUs, a number":    {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":1e999}}}]`), 403, "more than any machine has"},
		"1e-999 GPUs":             {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1e-999"}}}]`), 403, "whole number of cards"},
		"GPUs beyond exponents":   {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1e999999999"}}}]`), 403, "gpu"},
		"GPUs below exponents":    {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1e-999999999"}}}]`), 403, "gpu"},
		"GPUs of 100,000 digits":  {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":"` + strings.Repeat("9", 100_000) + `"}}}]`), 403, "gpu"},
		"GPUs in a list":          {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":["1"]}}}]`), 403, "is not a number"},
		"GPUs null":               {aimed(`"containers":[{"resources":{"limits":{"nvidia.com/gpu":null}}}]`), 403, "is not a number"},
		"deep, not looked at":     {aimed(`"newField":` + deep), 0, ""},
		"deep, looked at":         {aimed(`"affinity":` + deep), 0, ""},
		"a deep volume":           {aimed(`"volumes":[{"name":"a","emptyDir":` + deep + `}]`), 0, ""},
		"1 MiB of annotation":     {`{"metadata":{"annotations":{"a":"` + strings.Repeat("x", 1<<20) + `"}},` + aimed(`"hostNetwork":true`)[1:], 0, ""},
		"1 MiB of arguments":      {aimed(`"containers":[{"args":["` + strings.Repeat("$(A_SERVICE_HOST) a.svc ", 1<<16) + `"]}]`), 0, ""},
		"1 MiB of hostPath":       {aimed(`"volumes":[{"name":"a","hostPath":{"path":"` + strings.Repeat("/..", 1<<20/3) + `"}}]`), 403, "host-path"},
		"1 MiB of old annotation": {`{"metadata":{"annotations":{"ainode.dev/admission":"[` + strings.Repeat("1,", 1<<19) + `1]"}},` + aimed(`"hostNetwork":true`)[1:], 0, ""},
		"1,000 containers": {aimed(`"volumes":[` + token + `,` + many(1000, `{"name":"v#","emptyDir":{}}`) + `],"containers":[` +
			many(1000, `{"name":"c#","ports":[{"containerPort":#,"hostPort":#,"hostIP":"1.2.3.4"}],"env":[{"name":"A","value":"a.b.svc"}],`+
				`"securityContext":{"privileged":true},"volumeMounts":[{"name":"v#","mountPath":"/v#"},{"name":"kube-api-access","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}`) + `]`), 0, ""},
		"20,000 volumes, one container": {aimed(`"volumes":[` + many(20_000, `{"name":"v#"}`) + `],"containers":[{"volumeMounts":[` +
			many(20_000, `{"name":"v#","mountPath":"/v#"}`) + `]}]`), 0, ""},
		"20,000 containers of one volume": {aimed(`"volumes":[` + token + `],"containers":[` +
			many(20_000, `{"volumeMounts":[{"name":"kube-api-access","mountPath":"/t#"}]}`) + `]`), 0, ""},
		"20,000 GPU names": {aimed(`"containers":[{"resources":{"limits":{` + many(20_000, `"nvidia.com/mig-#":"0.#1"`) + `}}}]`), 403, "gpu"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			answer := answered(t, pathMutatePods, "Pod", c.object)
			require.Less(t, time.Since(began), 30*time.Second, "the API server waits for three seconds, on a machine that does nothing else")
			if c.code != 0 {
				require.False(t, answer.Allowed)
				require.Equal(t, c.code, answer.Result.Code, answer.Result.Message)
				require.Contains(t, answer.Result.Message, c.says)
				require.Empty(t, answer.Patch)
				return
			}
			require.True(t, answer.Allowed, "%v", answer.Result)
			if len(answer.Patch) > 0 && len(c.object) < 1<<20 {
				patch, err := jsonpatch.DecodePatch(answer.Patch)
				require.NoError(t, err)
				_, err = patch.Apply([]byte(c.object))
				require.NoError(t, err, "the patch does not fit")
			}
			answered(t, pathValidatePods, "Pod", c.object)
			for kind, around := range map[string]string{
				"Deployment": `{"spec":{"template":%s}}`, "CronJob": `{"spec":{"jobTemplate":{"spec":{"template":%s}}}}`, "DaemonSet": `{"spec":{"template":%s}}`,
			} {
				answered(t, pathValidateWorkloads, kind, fmt.Sprintf(around, c.object))
			}
		})
	}
}

// Workloads whose shape is wrong are answered as well.
func TestBadWorkloads(t *testing.T) {
	t.Parallel()
	for name, object := range map[string]string{
		"none": `null`, "a list": `[]`, "no spec": `{}`, "spec null": `{"spec":null}`, "no template": `{"spec":{}}`,
		"template null": `{"spec":{"template":null}}`, "template a word": `{"spec":{"template":"x"}}`,
		"jobTemplate a list": `{"spec":{"jobTemplate":[]}}`, "template of a template": `{"spec":{"template":{"spec":{"template":{}}}}}`,
	} {
		for _, kind := range []string{"Deployment", "CronJob", "DaemonSet", "", "Nonsense"} {
			if answer := answered(t, pathValidateWorkloads, kind, object); !answer.Allowed {
				require.EqualValues(t, http.StatusBadRequest, answer.Result.Code, "%s %s", name, kind)
				require.Contains(t, answer.Result.Message, "judge "+kind+" by the AI nodes' support table: ", name)
			}
		}
	}
}

// answered sends a review of object as it stands, and returns the answer.
func answered(t testing.TB, path, kind, object string) *admissionv1.AdmissionResponse {
	t.Helper()
	review := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"object":%s,"uid":"u-1","kind":{"kind":%q},"operation":"CREATE","namespace":"team"}}`, object, kind)
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(review))
	request.Header.Set("Content-Type", jsonType)
	plainHandler(t).ServeHTTP(recorder, request)
	require.Equal(t, http.StatusOK, recorder.Code, recorder.Body.String())
	var answer admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &answer))
	require.EqualValues(t, "u-1", answer.Response.UID)
	if !answer.Response.Allowed {
		require.NotEmpty(t, answer.Response.Result.Message)
	}
	return answer.Response
}

// plainHandler is the handler with the default policy.
func plainHandler(t testing.TB) http.Handler {
	t.Helper()
	handler, err := New(Options{Observer: &seen{}, Clock: clocktesting.NewFakePassiveClock(time.Unix(0, 0))})
	require.NoError(t, err)
	mux := http.NewServeMux()
	handler.Register(mux)
	return mux
}
