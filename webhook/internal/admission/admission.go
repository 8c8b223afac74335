// Package admission answers the API server's admission reviews about pods and
// workloads. It decodes and encodes; every decision is api/contract's.
package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
)

// bodyAtMost bounds a review; the API server takes objects up to 3 MiB, and a
// review of an update holds two.
const bodyAtMost = 8 << 20

// Observer is told what was found and how long an answer took. It must not block.
type Observer interface {
	Observe(endpoint string, findings []contract.Finding, took time.Duration)
}

// Handler answers admission reviews.
type Handler struct {
	policy   contract.Policy
	observer Observer
	clock    clock.PassiveClock
	// assumeRestricted is for clusters whose default level is restricted: their
	// namespaces carry no label that says so.
	assumeRestricted bool
}

// Options of a Handler; all but AssumeRestricted are required.
type Options struct {
	Policy           contract.Policy
	Observer         Observer
	Clock            clock.PassiveClock
	AssumeRestricted bool
}

// New makes a Handler.
func New(o Options) (*Handler, error) {
	if o.Observer == nil || o.Clock == nil {
		return nil, errors.New("make the admission handler: observer and clock are required")
	}
	if err := o.Policy.Validate(); err != nil {
		return nil, err
	}
	return &Handler{policy: o.Policy, observer: o.Observer, clock: o.Clock, assumeRestricted: o.AssumeRestricted}, nil
}

// The webhook configuration has an entry for each fact about a namespace: the
// facts come as path segments, so no look-up is needed.
const (
	pathMutatePods        = "/mutate/pods"
	pathValidatePods      = "/validate/pods"
	pathValidateWorkloads = "/validate/workloads"
	factOptedIn           = "/opted-in"
	factRestricted        = "/restricted"
)

// Register adds every path to mux.
func (h *Handler) Register(mux *http.ServeMux) {
	for suffix, ns := range map[string]contract.Namespace{
		"":                           {},
		factOptedIn:                  {OptedIn: true},
		factRestricted:               {Restricted: true},
		factOptedIn + factRestricted: {OptedIn: true, Restricted: true},
	} {
		ns.Restricted = ns.Restricted || h.assumeRestricted
		for path, judge := range map[string]judge{
			pathMutatePods: h.mutatePod, pathValidatePods: h.validatePod, pathValidateWorkloads: h.validateWorkload,
		} {
			mux.Handle("POST "+path+suffix, h.endpoint(path, ns, judge))
		}
	}
}

// review is what is read of an AdmissionReview.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request"`
}

type request struct {
	UID       string                  `json:"uid"`
	Kind      metav1.GroupVersionKind `json:"kind"`
	Operation string                  `json:"operation"`
	Namespace string                  `json:"namespace"`
	Object    json.RawMessage         `json:"object"`
}

// judge answers one request; an error means that the object can't be read.
type judge func(*request, contract.Namespace) (contract.Verdict, error)

func (h *Handler) endpoint(name string, ns contract.Namespace, judge judge) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := h.clock.Now()
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyAtMost))
		if err != nil {
			http.Error(w, "read the admission review: "+err.Error(), http.StatusBadRequest)
			return
		}
		var in review
		if err := json.Unmarshal(raw, &in); err != nil {
			http.Error(w, "decode the admission review: "+err.Error(), http.StatusBadRequest)
			return
		}
		if in.Kind != "AdmissionReview" || in.Request == nil || in.Request.UID == "" {
			http.Error(w, "this is no AdmissionReview with a request", http.StatusBadRequest)
			return
		}
		verdict, err := judge(in.Request, ns)
		answer := respond(in.Request, verdict, err)
		h.observer.Observe(name, verdict.Findings, h.clock.Since(began))
		write(w, in, answer)
	})
}

// respond turns a verdict into the API server's terms.
func respond(in *request, verdict contract.Verdict, err error) *admissionv1.AdmissionResponse {
	answer := &admissionv1.AdmissionResponse{Allowed: true, AuditAnnotations: audit(verdict)}
	if err == nil && verdict.Denied() {
		answer.Allowed = false
		answer.Result = &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: verdict.Refusal()}
		return answer
	}
	if err == nil && len(verdict.Patch) > 0 {
		kind := admissionv1.PatchTypeJSONPatch
		answer.PatchType = &kind
		answer.Patch, err = json.Marshal(verdict.Patch)
	}
	if err != nil {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{
			Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest,
			Message: fmt.Sprintf("judge %s by the AI nodes' support table: %v", in.Kind.Kind, err),
		}}
	}
	answer.Warnings = verdict.Warnings()
	return answer
}

// audit is what the API server writes into its audit log beside the request: each
// feature with what was done by it, once, and nothing of the pod.
//
//	findings: host-network=strip tolerations=inject
func audit(verdict contract.Verdict) map[string]string {
	var said []string
	for _, f := range verdict.Findings {
		if entry := fmt.Sprintf("%s=%s", f.Feature, f.Action); !slices.Contains(said, entry) {
			said = append(said, entry)
		}
	}
	if len(said) == 0 {
		return nil
	}
	return map[string]string{"findings": strings.Join(said, " ")}
}

func write(w http.ResponseWriter, in review, answer *admissionv1.AdmissionResponse) {
	type response struct {
		APIVersion string                         `json:"apiVersion"`
		Kind       string                         `json:"kind"`
		Response   *admissionv1.AdmissionResponse `json:"response"`
	}
	answer.UID = uid(in.Request.UID)
	raw, err := json.Marshal(response{APIVersion: in.APIVersion, Kind: in.Kind, Response: answer})
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(raw); err != nil {
		klog.V(1).InfoS("The API server went away before the answer", "err", err)
	}
}
