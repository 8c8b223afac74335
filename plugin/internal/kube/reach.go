package kube

import (
	"context"
	"errors"
	"strings"
)

// Unreached reports whether the API server came to nothing on its way to a node's port: the
// answer of Healthz is that it could not dial, or there was none while it tried. Who does
// come to something says so in other words.
func Unreached(answer error) bool {
	return answer != nil && (errors.Is(answer, context.DeadlineExceeded) || strings.Contains(answer.Error(), "dial tcp "))
}

// Untrusted reports whether the API server did not take the certificate of what it came to.
func Untrusted(answer error) bool {
	return answer != nil && (strings.Contains(answer.Error(), "x509: ") || strings.Contains(answer.Error(), "tls: "))
}
