package kube

import (
	"context"

	"k8s.io/client-go/rest"
)

type quietly struct{}

// Quietly is a ctx under which what API servers warn of is shown to nobody: for
// requests that no person has written.
func Quietly(ctx context.Context) context.Context { return context.WithValue(ctx, quietly{}, true) }

// warnings passes on what API servers warn of.
type warnings struct{ rest.WarningHandler }

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, agent, text string) {
	if ctx.Value(quietly{}) == nil {
		w.HandleWarningHeader(code, agent, text)
	}
}
