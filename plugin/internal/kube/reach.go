package kube

import (
	"context"
	"errors"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Unreached reports whether the API server came to nothing on its way to a node's port: the
// answer of Healthz is that it could not dial, or there was none while it tried. Who does
// come to something says so in other words.
func Unreached(answer error) bool {
	return errors.Is(answer, context.DeadlineExceeded) || itsOwn(answer, "dial tcp ") && !Refused(answer)
}

// Refused reports whether the API server came to a machine where nobody listens.
func Refused(answer error) bool { return itsOwn(answer, "connection refused") }

// Untrusted reports whether the API server did not take the certificate of what it came to.
func Untrusted(answer error) bool { return itsOwn(answer, "x509: ") || itsOwn(answer, "tls: ") }

// itsOwn reports whether the API server says so: what it takes to come to the API server
// itself fails in the same words.
func itsOwn(answer error, words string) bool {
	var status apierrors.APIStatus
	return errors.As(answer, &status) && strings.Contains(answer.Error(), words)
}
