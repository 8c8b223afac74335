package cri

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// The stream is opened again after a break, this soon at first and no later
// than that after repeated breaks.
const (
	reconnectFirst = 100 * time.Millisecond
	reconnectLast  = 5 * time.Second
	// subscribes is how long the runtime may take to follow its own events once the
	// stream is open; it does not say when it does.
	subscribes = time.Second
)

// Watch calls changed with the UID of each pod of which the runtime reports a
// container or sandbox event, until ctx is done. It opens the stream again for
// ever; since events are lost in between, it calls changed with the empty UID
// ("look at every pod") after each opening, and once more when the runtime follows
// for certain. changed must not block.
func Watch(ctx context.Context, service criapi.RuntimeService, clock clock.Clock, changed func(types.UID)) {
	delay := reconnectFirst
	for ctx.Err() == nil {
		opened := false
		err := watchOnce(ctx, service, clock, changed, func() { opened = true })
		if ctx.Err() != nil {
			return
		}
		if opened {
			delay = reconnectFirst
		}
		klog.FromContext(ctx).V(1).Info("the runtime's event stream broke, opening it again", "after", delay, "cause", err)
		select {
		case <-ctx.Done():
			return
		case <-clock.After(delay):
		}
		delay = min(2*delay, reconnectLast)
	}
}

func watchOnce(ctx context.Context, service criapi.RuntimeService, clock clock.Clock, changed func(types.UID), opened func()) error {
	events := make(chan *runtimeapi.ContainerEventResponse, 64)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for event := range events {
			changed(types.UID(event.GetPodSandboxStatus().GetMetadata().GetUid()))
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	var again sync.WaitGroup
	err := service.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) {
		opened()
		changed("")
		again.Go(func() {
			select {
			case <-ctx.Done():
			case <-clock.After(subscribes):
				changed("")
			}
		})
	})
	cancel()
	again.Wait()
	close(events)
	<-drained
	return err
}
