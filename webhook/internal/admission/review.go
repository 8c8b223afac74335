package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
)

const (
	// bodyAtMost bounds a review; the API server takes objects up to 3 MiB, and a
	// review of an update holds two.
	bodyAtMost = 8 << 20
	// bodyKept is the room for a review that is kept for the next one.
	bodyKept = 64 << 10

	reviewKind = "AdmissionReview"
	jsonType   = "application/json"
)

// review is what is read of an AdmissionReview. Its object is decoded along with
// it, into what is read of an Object: every further pass over a pod of some kB
// costs as much as all the judging.
type review[Object any] struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Request    *request[Object] `json:"request"`
}

type request[Object any] struct {
	about
	Object Object `json:"object"`
}

// about is what a request says besides its object.
type about struct {
	UID       types.UID               `json:"uid"`
	Kind      metav1.GroupVersionKind `json:"kind"`
	Operation string                  `json:"operation"`
	Namespace string                  `json:"namespace"`
}

// refusal is why a request is none that can be answered by a review.
type refusal struct {
	error
	code int // of HTTP
}

// bodies are the rooms for reviews as they come. Nothing that is decoded points
// into them.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// read reads a review. What is wrong with its object alone comes back as
// unreadable: that can be answered, and the object's owner reads the reason.
func read[Object any](w http.ResponseWriter, r *http.Request) (in review[Object], refused *refusal, unreadable error) {
	if t := r.Header.Get("Content-Type"); t != jsonType {
		if parsed, _, err := mime.ParseMediaType(t); err != nil || parsed != jsonType {
			return in, &refusal{fmt.Errorf("read the admission review: content type %q is not %s", t, jsonType), http.StatusUnsupportedMediaType}, nil
		}
	}
	body := bodies.Get().(*bytes.Buffer)
	defer func() {
		if body.Cap() <= bodyKept {
			body.Reset()
			bodies.Put(body)
		}
	}()
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, bodyAtMost)); err != nil {
		return in, &refusal{fmt.Errorf("read the admission review: %w", err), http.StatusBadRequest}, nil
	}
	if err := contract.Unmarshal(body.Bytes(), &in); err != nil {
		var rest review[json.RawMessage]
		if contract.Unmarshal(body.Bytes(), &rest) != nil {
			return in, &refusal{fmt.Errorf("decode the admission review: %w", err), http.StatusBadRequest}, nil
		}
		unreadable = err
		in.APIVersion, in.Kind, in.Request = rest.APIVersion, rest.Kind, nil
		if rest.Request != nil {
			in.Request = &request[Object]{about: rest.Request.about}
		}
	}
	if in.Kind != reviewKind || in.Request == nil || in.Request.UID == "" {
		return in, &refusal{errors.New("this is no AdmissionReview with a request"), http.StatusBadRequest}, nil
	}
	return in, nil, unreadable
}
