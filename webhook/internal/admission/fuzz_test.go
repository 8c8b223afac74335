package admission

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/ainode/ainode/api/contract/contracttest"
)

// FuzzReview: whatever is sent to whichever path, the answer is a review for the
// same UID, or a refusal in HTTP's terms that says why; never a panic, never a 500.
//
//	go test ./webhook/internal/admission -run '^$' -fuzz FuzzReview -fuzztime 1m
func FuzzReview(f *testing.F) {
	all, err := contracttest.All()
	if err != nil {
		f.Fatal(err)
	}
	paths := []string{pathMutatePods, pathValidatePods, pathMutatePods + factOptedIn, pathValidateWorkloads, pathMutatePods + factOptedIn + factRestricted}
	for i, fixture := range all {
		object := append(append([]byte(`{"kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Pod"},"object":`), fixture.JSON...), "}}"...)
		f.Add(object, uint8(i%len(paths)))
	}
	f.Add(reviewOf(f, "vllm"), uint8(0))
	f.Add([]byte(`{"kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"CronJob"},"object":{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"nodeName":"ai-a","hostPID":true}}}}}}}}`), uint8(3))
	handler := plainHandler(f)
	f.Fuzz(func(t *testing.T, body []byte, path uint8) {
		request := httptest.NewRequest(http.MethodPost, paths[int(path)%len(paths)], bytes.NewReader(body))
		request.Header.Set("Content-Type", jsonType)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		switch recorder.Code {
		case http.StatusBadRequest:
			if recorder.Body.Len() < 10 {
				t.Fatalf("refused without a reason: %q", recorder.Body)
			}
		case http.StatusOK:
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || answer.Response == nil {
				t.Fatalf("the answer is no review: %v: %s", err, recorder.Body)
			}
			if answer.Response.UID == "" {
				t.Fatal("the answer is for nobody")
			}
			if !answer.Response.Allowed && (answer.Response.Result == nil || answer.Response.Result.Message == "" || answer.Response.Patch != nil) {
				t.Fatalf("refused without a reason or with a patch: %s", recorder.Body)
			}
		default:
			t.Fatalf("the answer is %d: %s", recorder.Code, recorder.Body)
		}
	})
}
