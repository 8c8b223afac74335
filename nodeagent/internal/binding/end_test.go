package binding

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// timed is a tenant that looks after its binding's end, as the agent's does; it has no
// pods.
type timed struct{ recorder }

func (n *timed) Serve(ctx context.Context, target Target, registered func()) error {
	manager := term.New(term.Options{
		Known: target.End, HubTime: target.HubTime, Clock: clock.RealClock{},
		Evict: func(context.Context, *corev1.Pod) error { return nil },
		Node:  func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: target.Node} },
	})
	ended := make(chan error, 1)
	go func() { ended <- manager.Run(ctx, n, &record.FakeRecorder{}) }()
	err := n.recorder.Serve(ctx, target, registered)
	<-ended
	return err
}

func (n *timed) Active() []*corev1.Pod                            { return nil }
func (n *timed) End(types.UID, podstatus.Verdict) <-chan struct{} { return nil }
func (n *timed) Flush(context.Context) error                      { return nil }
func until(spec *v1alpha1.AINodeSpec, at time.Time, g time.Duration) {
	spec.Until, spec.DrainGrace = ptr.To(metav1.NewTime(at)), &metav1.Duration{Duration: g}
}

// A binding with an end is given back by the agent itself, and everything of it is
// gone then; what it knows of the end outlives a restart.
func TestABindingWithAnEnd(t *testing.T) {
	t.Parallel()
	h, server := newMiniHub(t)
	store := testStore(t)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, store.SaveHubToken(Token{Value: "hub", Issued: time.Now(), Expires: time.Now().Add(time.Hour)}))
	key, err := store.Key(rand.Reader)
	require.NoError(t, err)
	tenant := &timed{}
	b, err := New(Options{
		Store: store, Joined: Joined{Node: "ai-1", Server: server.URL, CertificateAuthorityData: ca}, Key: key, Holder: "me",
		Tenant: tenant, Clock: clock.RealClock{}, Facts: func() Facts { return Facts{Address: "10.0.0.7"} },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	reports := func(status v1alpha1.BindStatus, epoch int64) {
		t.Helper()
		require.Eventually(t, func() bool {
			s := h.status()
			return s.BindStatus == status && s.ObservedEpoch == epoch
		}, time.Minute, 5*time.Millisecond, "want %s %d", status, epoch)
	}
	sealed, err := handover.Credential{
		Node: "ai-1", Epoch: 1, Server: server.URL, CertificateAuthorityData: ca, Token: "short", ServiceAccount: identity.Target("ai-1", 1),
	}.Seal(key.Public)
	require.NoError(t, err)
	far := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	h.change(func() {
		h.record.Spec.ClusterConfigName, h.record.Spec.BindEpoch = "prod", 1
		until(&h.record.Spec, far, time.Minute)
		h.secret.Data = map[string][]byte{handover.SealedKey: sealed, handover.EpochKey: []byte(strconv.Itoa(1))}
	})
	reports(v1alpha1.Bound, 1)
	require.Eventually(t, func() bool {
		end, err := store.End()
		return err == nil && end.Equal(term.End{Until: far, DrainGrace: time.Minute})
	}, time.Minute, 5*time.Millisecond, "it is stored beside the credential")
	require.Eventually(t, func() bool {
		return meta.IsStatusConditionTrue(h.status().Conditions, v1alpha1.ConditionClockAgrees)
	}, time.Minute, 5*time.Millisecond)

	// Somebody shortens it.
	h.change(func() { until(&h.record.Spec, time.Now().Add(time.Hour), 2*time.Hour) })
	reports(v1alpha1.Draining, 1)
	h.change(func() { until(&h.record.Spec, time.Now().Add(time.Second), time.Second) })
	reports(v1alpha1.Unbound, 1)
	require.NoDirExists(t, store.State.Target())
	cancel()
	require.NoError(t, <-done)
	_, stopped := tenant.now()
	require.Equal(t, 2, stopped, "once at the start, once at the end")

	h.mu.Lock()
	defer h.mu.Unlock()
	require.Len(t, h.gaveBack, 1)
	var patch struct {
		Metadata map[string]string `json:"metadata"`
		Spec     map[string]any    `json:"spec"`
	}
	require.NoError(t, json.Unmarshal([]byte(h.gaveBack[0]), &patch))
	require.NotEmpty(t, patch.Metadata["resourceVersion"], "of the version that was seen")
	require.Equal(t, map[string]any{
		"clusterConfigName": nil, "draining": nil, "nodeLabels": nil, "podCIDR": nil, "address": nil, "sinceEpoch": nil, "until": nil, "drainGrace": nil,
	}, patch.Spec)
	require.Len(t, h.marks, 1, "and it is told on the Node")
}
