package nodestatus

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hung is a runtime that does not answer.
type hung struct{}

func (hung) Status(ctx context.Context, _ bool) (*runtimeapi.StatusResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAHungRuntimeIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := Probe(t.Context(), hung{}, false)
		require.Contains(t, h.NotReady, "does not answer")
		require.Equal(t, patience, time.Since(began))
	})
}

func TestTheLeaseHasAClientOfItsOwn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r, heartbeat := registrar(fake.NewClientset()), fake.NewClientset()
	r.Heartbeat = heartbeat
	ended := make(chan struct{})
	go func() { defer close(ended); r.leases().Run(ctx) }()
	require.Eventually(t, func() bool {
		_, err := heartbeat.CoordinationV1().Leases("kube-node-lease").Get(t.Context(), "ai-1", metav1.GetOptions{})
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	cancel()
	<-ended
}
