package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// lookAt has the Lease be of these versions in turn, the last for good; "" is no answer.
func lookAt(versions ...string) (*restored, *atomic.Int32) {
	client, looks := fake.NewClientset(), &atomic.Int32{}
	client.PrependReactor("get", "leases", func(k8stesting.Action) (bool, runtime.Object, error) {
		version := versions[min(int(looks.Add(1)), len(versions))-1]
		if version == "" {
			return true, nil, errors.New("no route to host")
		}
		return true, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: "here", ResourceVersion: version}}, nil
	})
	return &restored{client: client, namespace: "here", every: time.Millisecond}, looks
}

func TestAStoreThatWasRestoredEndsTheProgram(t *testing.T) {
	t.Parallel()
	r, looks := lookAt("9", "10", "10", "", "7")
	require.ErrorIs(t, r.Start(t.Context()), errRestored)
	require.EqualValues(t, 5, looks.Load())
}

func TestAStoreThatGrowsEndsNothing(t *testing.T) {
	t.Parallel()
	r, looks := lookAt("", "9", "", "10", "100", "100")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx) }()
	require.Eventually(t, func() bool { return looks.Load() > 10 || len(ended) > 0 }, time.Minute, time.Millisecond)
	require.Empty(t, ended)
	cancel()
	require.NoError(t, <-ended)
}
