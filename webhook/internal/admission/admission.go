// Package admission answers the API server's admission reviews about pods and
// workloads. It decodes and encodes; every decision is api/contract's.
package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
)

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
		mux.Handle("POST "+pathMutatePods+suffix, endpoint(h, pathMutatePods, ns, h.mutatePod))
		mux.Handle("POST "+pathValidatePods+suffix, endpoint(h, pathValidatePods, ns, h.validatePod))
		mux.Handle("POST "+pathValidateWorkloads+suffix, endpoint(h, pathValidateWorkloads, ns, h.validateWorkload))
	}
}

// judge answers one request; an error means that the object can't be judged.
type judge[Object any] func(*request[Object], contract.Namespace) (contract.Verdict, error)

func endpoint[Object any](h *Handler, name string, ns contract.Namespace, judge judge[Object]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := h.clock.Now()
		in, refused, unreadable := read[Object](w, r)
		if refused != nil {
			http.Error(w, refused.Error(), refused.code)
			return
		}
		var verdict contract.Verdict
		err := unreadable
		if err == nil {
			verdict, err = judge(in.Request, ns)
		}
		answer := respond(&in.Request.about, verdict, err)
		h.observer.Observe(name, verdict.Findings, h.clock.Since(began))
		write(w, in.APIVersion, answer)
	})
}

// respond turns a verdict into the API server's terms.
func respond(in *about, verdict contract.Verdict, err error) *admissionv1.AdmissionResponse {
	answer := &admissionv1.AdmissionResponse{UID: in.UID, Allowed: true, AuditAnnotations: audit(verdict)}
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
		return &admissionv1.AdmissionResponse{UID: in.UID, Result: &metav1.Status{
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
		if entry := string(f.Feature) + "=" + string(f.Action); !slices.Contains(said, entry) {
			said = append(said, entry)
		}
	}
	if len(said) == 0 {
		return nil
	}
	return map[string]string{"findings": strings.Join(said, " ")}
}

func write(w http.ResponseWriter, apiVersion string, answer *admissionv1.AdmissionResponse) {
	type response struct {
		APIVersion string                         `json:"apiVersion"`
		Kind       string                         `json:"kind"`
		Response   *admissionv1.AdmissionResponse `json:"response"`
	}
	raw, err := json.Marshal(response{APIVersion: apiVersion, Kind: reviewKind, Response: answer})
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Content-Length", strconv.Itoa(len(raw))) // else net/http sends more than 2 KiB in chunks
	if _, err := w.Write(raw); err != nil {
		klog.V(1).InfoS("The API server went away before the answer", "err", err)
	}
}
