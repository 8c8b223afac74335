package binding

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoding/pem"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// miniHub is as much of an API server as one agent speaks to: its record, its
// Secret, its Lease and tokens. It is hub and target at once.
type miniHub struct {
	mu       sync.Mutex
	changed  *sync.Cond
	version  int
	record   v1alpha1.AINode
	secret   corev1.Secret
	lease    coordinationv1.Lease
	closed   bool
	statuses []v1alpha1.BindStatus
	marks    []string // what the node wrote on its Node
	gaveBack []string // what the agent wrote into its record's spec
	away     atomic.Bool
	asked    atomic.Int32 // for its version
	// meanwhile is what somebody does in the moment before the next status arrives.
	meanwhile func()
	// prunes takes from a record what the CRD does not have.
	prunes  func(*v1alpha1.AINode)
	patches int // of the status
}

func newMiniHub(t *testing.T) (*miniHub, *httptest.Server) {
	t.Helper()
	h := &miniHub{version: 1}
	h.changed = sync.NewCond(&h.mu)
	h.record = v1alpha1.AINode{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AINode"},
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1", ResourceVersion: "1"},
	}
	h.secret = corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: identity.HandoverSecret("ai-1"), Namespace: contract.SystemNamespace, ResourceVersion: "1"},
	}
	h.lease = coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: identity.HubLease("ai-1"), Namespace: contract.SystemNamespace},
	}
	server := httptest.NewTLSServer(h)
	t.Cleanup(func() {
		h.mu.Lock()
		h.closed = true
		h.changed.Broadcast()
		h.mu.Unlock()
		server.CloseClientConnections()
		server.Close()
	})
	return h, server
}

// change edits what the hub holds, as a person would.
func (h *miniHub) change(edit func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit()
	h.bump()
}

func (h *miniHub) bump() {
	h.version++
	h.record.ResourceVersion, h.secret.ResourceVersion = strconv.Itoa(h.version), strconv.Itoa(h.version)
	h.changed.Broadcast()
}

func (h *miniHub) status() v1alpha1.AINodeStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.record.Status.DeepCopy()
}

// holder is who holds the Lease.
func (h *miniHub) holder() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ptr.Deref(h.lease.Spec.HolderIdentity, "")
}

// marked is what the node has written on its Node so far.
func (h *miniHub) marked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.marks)
}

func (h *miniHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.away.Load() {
		panic(http.ErrAbortHandler) // which hangs up
	}
	if r.URL.Path == "/version" {
		h.asked.Add(1)
	}
	body, _ := io.ReadAll(r.Body)
	object := func() any { return h.record }
	if strings.Contains(r.URL.Path, "/secrets") {
		object = func() any { return h.secret }
	}
	if r.URL.Query().Get("watch") != "" {
		h.watch(w, r, object)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := any(nil)
	switch {
	case strings.HasSuffix(r.URL.Path, "/token"):
		answer = authenticationv1.TokenRequest{
			TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"},
			Status:   authenticationv1.TokenRequestStatus{Token: "renewed", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))},
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(answer)
		return
	case strings.HasSuffix(r.URL.Path, "/nodes/ai-1"):
		h.marks = append(h.marks, r.Header.Get("Impersonate-User")+" "+string(body))
		answer = corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "ai-1"}}
	case strings.Contains(r.URL.Path, "/leases/"):
		if r.Method == http.MethodPut {
			h.lease = coordinationv1.Lease{}
			_ = runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), body, &h.lease) // whichever encoding client-go has chosen
		}
		answer = h.lease
	case strings.HasSuffix(r.URL.Path, "/status"):
		if h.meanwhile != nil {
			h.meanwhile()
			h.meanwhile = nil
			h.bump()
		}
		if h.conflicts(w, body) {
			return
		}
		before, _ := json.Marshal(h.record)
		after, err := jsonpatch.MergePatch(before, body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		h.patches++
		was := h.record
		h.record = v1alpha1.AINode{}
		_ = json.Unmarshal(after, &h.record)
		if h.prunes != nil {
			h.prunes(&h.record)
		}
		if s := h.record.Status.BindStatus; len(h.statuses) == 0 || h.statuses[len(h.statuses)-1] != s {
			h.statuses = append(h.statuses, s)
		}
		if !apiequality.Semantic.DeepEqual(was, h.record) {
			h.bump()
		}
		answer = h.record
	case strings.HasSuffix(r.URL.Path, "/ainodes/ai-1"):
		if r.Method == http.MethodPatch {
			if h.conflicts(w, body) {
				return
			}
			h.gaveBack = append(h.gaveBack, string(body))
			h.record.Spec = v1alpha1.AINodeSpec{BindEpoch: h.record.Spec.BindEpoch}
			h.bump()
		}
		answer = h.record
	case strings.HasSuffix(r.URL.Path, "/"+h.secret.Name):
		if r.Method == http.MethodPatch {
			h.secret.Data[handover.SealedKey] = nil
			h.bump()
		}
		answer = h.secret
	case strings.HasSuffix(r.URL.Path, "/ainodes"):
		answer = v1alpha1.AINodeList{
			TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AINodeList"},
			ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(h.version)}, Items: []v1alpha1.AINode{h.record},
		}
	default:
		answer = corev1.SecretList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"},
			ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(h.version)}, Items: []corev1.Secret{h.secret},
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// conflicts refuses a patch of a version that the record has no more, as an API server does:
// a watch that lags behind shows the agent one from before its own last write. Callers hold mu.
func (h *miniHub) conflicts(w http.ResponseWriter, patch []byte) bool {
	var of metav1.PartialObjectMetadata
	if _ = json.Unmarshal(patch, &of); of.ResourceVersion == "" || of.ResourceVersion == h.record.ResourceVersion {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("ainodes").GroupResource(), "ai-1", nil).Status())
	return true
}

func (h *miniHub) watch(w http.ResponseWriter, r *http.Request, object func() any) {
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		// An API server without streaming lists: the client lists instead.
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
			Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity,
		})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	seen, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	for {
		h.mu.Lock()
		for h.version <= seen && !h.closed {
			h.changed.Wait()
		}
		seen = h.version
		raw, _ := json.Marshal(map[string]any{"type": "MODIFIED", "object": object()})
		closed := h.closed
		h.mu.Unlock()
		if closed {
			return
		}
		if _, err := w.Write(raw); err != nil {
			return
		}
		_ = flush.Flush()
	}
}

// recorder is a tenant that notes what is asked of it.
type recorder struct {
	mu      sync.Mutex
	serving int64
	since   int64
	stopped int
	pods    string // the range of the binding that is served
	address string // that was chosen for it
	answer  *Answer
	// certificate is what :10250 is served with.
	certificate Certificate
}

func (r *recorder) Serve(ctx context.Context, target Target, registered func()) error {
	r.mu.Lock()
	r.address = target.Address
	r.mu.Unlock()
	r.set(target.Epoch, target.Since)
	registered()
	if target.PodCIDR != "" {
		r.answered(target.PodCIDR, &Answer{Trouble: "no answer"})
		registered()
	}
	<-ctx.Done()
	r.set(0, 0)
	return nil
}

func (r *recorder) set(epoch, since int64) {
	r.mu.Lock()
	r.serving, r.since = epoch, since
	r.mu.Unlock()
}

func (r *recorder) now() (serving int64, stopped int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving, r.stopped
}

func (r *recorder) StopAll(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving != 0 {
		panic("pods are stopped while they are served")
	}
	r.stopped++
	return nil
}

func (r *recorder) GPUsInUse() int { return 1 }

func (r *recorder) answered(pods string, a *Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods, r.answer = pods, a
}

func (r *recorder) ServingCertificate() Certificate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.certificate
}

func (r *recorder) podRange() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods
}

func (r *recorder) PodsAnswered() *Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer
}

// box is one agent's state, and the hub that it speaks to.
type box struct {
	*testing.T
	hub    *miniHub
	server *httptest.Server
	ca     []byte
	store  Store
	key    handover.KeyPair
	holder string
	// fenceAfter is the agent's option.
	fenceAfter time.Duration
	// lacks is what the machine has lost.
	lacks atomic.Pointer[string]
}

func newBox(t *testing.T) *box {
	t.Helper()
	h, server := newMiniHub(t)
	m := &box{T: t, hub: h, server: server, store: testStore(t), holder: "me"}
	m.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	m.join()
	return m
}

// join gives the machine what it has once it has joined.
func (m *box) join() {
	m.Helper()
	require.NoError(m, m.store.SaveHubToken(Token{Value: "hub", Issued: time.Now(), Expires: time.Now().Add(time.Hour)}))
	var err error
	m.key, err = m.store.Key(rand.Reader)
	require.NoError(m, err)
}

// begin starts the agent; the function it returns ends it.
func (m *box) begin() (*recorder, func()) {
	tenant := &recorder{}
	b, err := New(Options{
		Store: m.store, Joined: Joined{Node: "ai-1", Server: m.server.URL, CertificateAuthorityData: m.ca}, Key: m.key, Holder: m.holder,
		Tenant: tenant, Clock: clock.RealClock{}, Facts: m.facts,
		FenceAfter: m.fenceAfter,
	})
	require.NoError(m, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return tenant, func() { cancel(); require.NoError(m, <-done) }
}

func (m *box) facts() Facts {
	return Facts{
		Address: "10.0.0.7", Addresses: []string{"10.0.0.7", "10.9.0.7"},
		Lacks: func(address string) bool { return address == ptr.Deref(m.lacks.Load(), "") },
	}
}

func (m *box) reports(status v1alpha1.BindStatus, epoch int64) {
	m.Helper()
	require.Eventually(m, func() bool {
		s := m.hub.status()
		return s.BindStatus == status && s.ObservedEpoch == epoch
	}, time.Minute, 5*time.Millisecond, "want %s %d", status, epoch)
}

// handOver lays a credential of epoch into the hub, as bind does.
func (m *box) handOver(epoch int64) {
	m.Helper()
	sealed, err := handover.Credential{
		Node: "ai-1", Epoch: epoch, Server: m.server.URL, CertificateAuthorityData: m.ca, Token: "short",
		ServiceAccount: identity.Target("ai-1", epoch),
	}.Seal(m.key.Public)
	require.NoError(m, err)
	m.hub.change(func() {
		m.hub.secret.Data = map[string][]byte{handover.SealedKey: sealed, handover.EpochKey: []byte(strconv.FormatInt(epoch, 10))}
	})
}

func (m *box) bind(epoch int64) {
	m.Helper()
	m.hub.change(func() { m.hub.record.Spec.ClusterConfigName, m.hub.record.Spec.BindEpoch = "prod", epoch })
	m.reports(v1alpha1.Binding, epoch)
	m.handOver(epoch)
}

// The whole walk: unbound, bound, the agent starts again, released, bound anew.
func TestTheWalk(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	h := m.hub

	tenant, end := m.begin()
	m.reports(v1alpha1.Unbound, 0)
	require.Equal(t, m.key.Public.String(), h.status().PublicKey)
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	end()
	serving, stopped := tenant.now()
	require.Zero(t, serving)
	require.Equal(t, 1, stopped, "ending the agent stops no pod")

	tenant, end = m.begin()
	require.Eventually(t, func() bool { s, _ := tenant.now(); return s == 1 }, time.Minute, 5*time.Millisecond)
	h.change(func() { h.record.Spec.Draining = true })
	m.reports(v1alpha1.Draining, 1)
	h.change(func() { h.record.Spec.Draining, h.record.Spec.ClusterConfigName = false, "" })
	m.reports(v1alpha1.Unbound, 1)
	_, stopped = tenant.now()
	require.Equal(t, 1, stopped)
	require.NoDirExists(t, m.store.State.Target())
	h.change(func() { h.record.Spec.PodCIDR = "10.64.3.0/24" })
	m.bind(2)
	m.reports(v1alpha1.Bound, 2)
	serving, _ = tenant.now()
	require.EqualValues(t, 2, serving)
	// What came of asking the target from an address of the pods is told at once.
	says := func(status metav1.ConditionStatus, message string) {
		t.Helper()
		require.Eventually(t, func() bool {
			c := meta.FindStatusCondition(h.status().Conditions, v1alpha1.ConditionPodsAnswered)
			return c != nil && c.Status == status && c.Message == message
		}, time.Minute, 5*time.Millisecond)
	}
	says(metav1.ConditionFalse, "no answer")
	require.Equal(t, "10.64.3.0/24", tenant.podRange())

	// The hub is restored from a backup and knows the binding before alone: no proof.
	_, stopped = tenant.now()
	ready := func(reason string) {
		t.Helper()
		require.Eventually(t, func() bool {
			c := meta.FindStatusCondition(h.status().Conditions, v1alpha1.ConditionReady)
			return c != nil && c.Reason == reason
		}, time.Minute, 5*time.Millisecond)
	}
	h.change(func() { h.record.Spec, h.record.Status.ObservedEpoch = v1alpha1.AINodeSpec{BindEpoch: 1}, 1 })
	m.reports(v1alpha1.Bound, 2)
	ready(v1alpha1.ReasonRecordOutdated)
	serving, after := tenant.now()
	require.EqualValues(t, 2, serving)
	require.Equal(t, stopped, after)
	h.change(func() { h.record.Spec = v1alpha1.AINodeSpec{BindEpoch: 2, SinceEpoch: 2, ClusterConfigName: "prod"} })
	ready(reasonRunning)
	end()

	h.mu.Lock()
	defer h.mu.Unlock()
	require.Equal(t, []string{`system:node:ai-1 {"metadata":{"annotations":{"ainode.dev/released-epoch":"1"}}}`}, h.marks,
		"a release is told on the Node, by the node; nothing else is")
	require.Empty(t, h.secret.Data[handover.SealedKey])
	require.Equal(t, []v1alpha1.BindStatus{
		v1alpha1.Unbound, v1alpha1.Binding, v1alpha1.Bound, v1alpha1.Draining, v1alpha1.Unbinding, v1alpha1.Unbound, v1alpha1.Binding, v1alpha1.Bound,
	}, h.statuses)
}
