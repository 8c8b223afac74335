package cri

import (
	"context"
	"errors"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Quiet is logger without the errors of calls that their caller gave up: the
// client logs each as a failure of the runtime, many of them whenever an agent stops
// or a pod's deletion ends a wait.
func Quiet(logger logr.Logger) logr.Logger {
	return logger.WithSink(quiet{logger.GetSink()})
}

type quiet struct{ logr.LogSink }

var _ logr.CallDepthLogSink = quiet{}

func (q quiet) Error(err error, message string, pairs ...any) {
	if status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
		q.LogSink.Error(err, message, pairs...)
	}
}

func (q quiet) WithValues(pairs ...any) logr.LogSink { return quiet{q.LogSink.WithValues(pairs...)} }

func (q quiet) WithName(name string) logr.LogSink { return quiet{q.LogSink.WithName(name)} }

func (q quiet) WithCallDepth(depth int) logr.LogSink {
	if sink, ok := q.LogSink.(logr.CallDepthLogSink); ok {
		return quiet{sink.WithCallDepth(depth)}
	}
	return q
}
