package cri

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	first, second := &runtimeapi.ContainerMetadata{Name: "c"}, &runtimeapi.ContainerMetadata{Name: "c", Attempt: 1}
	require.Positive(t, newestFirst(first, second, 200, 100), "a later attempt is newer, whatever the clock said")
	require.Positive(t, newestFirst(first, first, 100, 200))
	require.Zero(t, newestFirst(first, first, 100, 100))
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	lines := 0
	logger := Quiet(funcr.New(func(string, string) { lines++ }, funcr.Options{})).WithValues("a", "b").WithName("n")
	logger.Error(status.FromContextError(context.Canceled).Err(), "Given up")
	logger.Error(fmt.Errorf("call: %w", context.Canceled), "Given up")
	require.Zero(t, lines)
	logger.Error(status.Error(codes.DeadlineExceeded, "too late"), "Failed")
	logger.Error(errors.New("broken"), "Failed")
	logger.Error(nil, "Failed")
	require.Equal(t, 3, lines)
}
