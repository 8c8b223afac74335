package admission

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"

	diff "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
)

// answerUID does the least that a webhook can do: it reads the review's UID and
// allows everything.
func answerUID(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyAtMost))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var in struct {
		Request struct {
			UID types.UID `json:"uid"`
		} `json:"request"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, &admissionv1.AdmissionResponse{UID: in.Request.UID, Allowed: true})
}

// answerTyped does what webhooks are used to do: everything decoded into types,
// the pod changed and encoded again, the patch found by comparing the two texts.
func answerTyped(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyAtMost))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var in admissionv1.AdmissionReview
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(in.Request.Object.Raw, &pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	changeTyped(&pod)
	after, err := json.Marshal(&pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ops, err := diff.CreatePatch(in.Request.Object.Raw, after)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, &admissionv1.AdmissionResponse{
		UID: in.Request.UID, Allowed: true, Patch: patch, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
	})
}

// changeTyped makes the changes that the benchmark's pods need, and none of the
// findings: less work than ours.
func changeTyped(pod *corev1.Pod) {
	spec := &pod.Spec
	spec.Tolerations = append(spec.Tolerations, contract.Toleration())
	spec.DNSPolicy = corev1.DNSDefault
	spec.AutomountServiceAccountToken = ptr.To(false)
	if spec.SecurityContext != nil && !equality.Semantic.DeepEqual(spec.SecurityContext, &corev1.PodSecurityContext{}) {
		spec.SecurityContext = nil
	}
	tokens := map[string]bool{}
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
		tokens[v.Name] = v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil
		})
		return tokens[v.Name]
	})
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			c.SecurityContext = nil
			c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return tokens[m.Name] })
		}
	}
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.AdmissionAnnotation, `[{"feature":"tolerations","field":"spec.tolerations","action":"inject"}]`)
}

func reply(w http.ResponseWriter, answer *admissionv1.AdmissionResponse) {
	raw, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Response: answer,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	_, _ = w.Write(raw)
}
