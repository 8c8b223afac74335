package pods

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/mount-utils"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
	"github.com/ainode/ainode/nodeagent/internal/images"
	"github.com/ainode/ainode/nodeagent/internal/objects"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/podtest"
	"github.com/ainode/ainode/nodeagent/internal/topology"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// patience bounds every wait of these tests; a pass takes far less. It is longer than
// a binding's last grace, 30 s, which a shell uses up that is told to end before it
// has set its trap, and than the minute after which every pod is looked at.
const patience = 2 * time.Minute

// wink is how often is looked meanwhile.
const wink = 5 * time.Millisecond

// machine is an AI node in small: a real containerd, the real rooms that pods
// uses, and an API in memory.
type machine struct {
	t       testing.TB
	c       *critest.Containerd
	client  *fake.Clientset
	line    *line // the agent's way to it; nil where nothing cuts it
	root    string
	cgroup  string // of all its pods
	epoch   int64
	boots   int
	another atomic.Bool // another machine has its name
	cards   fakeCards
	failed  sync.Map // message by UUID
	gone    sync.Map
	manager *Manager
	events  *recorded
	images  *countedImages
	csi     *csi.Manager
	// stopDrivers ends what looks after CSI drivers, which outlives a binding.
	stopDrivers func()
	stop        context.CancelFunc
	done        chan error
	watches     atomic.Int32 // that have begun
	stored      *versioned
	// unmounting is told before anything is unmounted.
	unmounting func(path string)
	cache      volumes.Cache  // of what is read from buckets; nil: none
	own        podrange.Range // of the pods' addresses; none: they share the machine's
	admit      func(*corev1.Pod) (reason, message string)
	// real are a machine's cards instead of cards and failed.
	real Cards
	// injection is how the runtime gives cards to containers; nil is by CDI.
	injection func() cri.Injection
}

// fakeCards are the UUIDs of whole cards and of slices, which are called CARD_mig-KIND_NAME.
type fakeCards []string

func (c fakeCards) Topology() topology.Map { return topology.Map{} }
func (c fakeCards) CDIDevice(uuid string) string {
	if !slices.Contains(c, uuid) {
		return ""
	}
	return "example.com/gpu=" + uuid
}
func (c fakeCards) Device(uuid string) topology.Device {
	return podtest.Device(uuid)
}

// watchedCards are cards some of which failed.
type watchedCards struct {
	fakeCards
	failed *sync.Map // message by UUID
	gone   *sync.Map // those that the driver does not list for a moment
}

func (c watchedCards) CDIDevice(uuid string) string {
	if _, gone := c.gone.Load(uuid); gone {
		return ""
	}
	return c.fakeCards.CDIDevice(uuid)
}

func (c watchedCards) Devices() []topology.Device {
	var all []topology.Device
	for _, uuid := range c.fakeCards {
		d := c.Device(uuid)
		d.Usable = c.Trouble(uuid) == ""
		all = append(all, d)
	}
	return all
}
func (c watchedCards) Trouble(uuid string) string { _, message := c.Failed(uuid); return message }
func (c watchedCards) Failed(uuid string) (string, string) {
	if message, ok := c.failed.Load(uuid); ok {
		return "XID79", message.(string)
	}
	return "", ""
}

// recorded keeps events as "TYPE REASON MESSAGE". An event is in it when the call
// returns, so what is told before a status is written can be read once that is seen.
type recorded struct {
	mu  sync.Mutex
	all []string
}

var _ record.EventRecorder = &recorded{}

func (r *recorded) Event(_ runtime.Object, kind, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, kind+" "+reason+" "+message)
}

func (r *recorded) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	r.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

func (r *recorded) AnnotatedEventf(object runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	r.Eventf(object, kind, reason, format, args...)
}

// String is read when a wait has failed, not when it begins.
func (r *recorded) String() string { return strings.Join(r.list(), "\n") }

func (r *recorded) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = nil
}

func (r *recorded) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func newMachine(t testing.TB, known ...*corev1.Pod) *machine {
	t.Helper()
	return newMachineOn(t, critest.Setup{}, known...)
}

// newMachineOn is newMachine with another container runtime.
func newMachineOn(t testing.TB, setup critest.Setup, known ...*corev1.Pod) *machine {
	t.Helper()
	m := &machine{t: t, client: fake.NewClientset(), root: t.TempDir(), epoch: 1, events: &recorded{}}
	t.Cleanup(func() {
		for _, point := range csitest.Below(m.root) { // volumes of pods that a test leaves
			_ = exec.Command("umount", "--lazy", point).Run()
		}
	})
	m.cgroup = "/ainode-" + strings.ReplaceAll(m.root, "/", "-")
	t.Cleanup(func() { require.NoError(t, cgroup.Remove(cgroup.Mount, m.cgroup)) }) // when containerd has ended
	m.c = critest.StartAs(t, setup)
	m.stored = &versioned{ObjectTracker: m.client.Tracker()}
	m.client.PrependReactor("*", "pods", clienttesting.ObjectReaction(m.stored))
	m.client.PrependWatchReactor("pods", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := m.client.Tracker().Watch(action.GetResource(), action.GetNamespace(), action.(clienttesting.WatchActionImpl).ListOptions)
		m.watches.Add(1)
		return true, w, err
	})
	for _, pod := range known {
		m.create(pod)
	}
	return m
}

// versioned gives each stored object the next resource version, as the API server
// does. Without it an agent cannot tell that the answer to a write of its own is
// older than what it has heard meanwhile. Callers hold the clientset's lock.
type versioned struct {
	clienttesting.ObjectTracker
	last int
}

func (v *versioned) next(obj runtime.Object) error {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	v.last++
	accessor.SetResourceVersion(strconv.Itoa(v.last))
	return nil
}

func (v *versioned) Create(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	if err := v.next(obj); err != nil {
		return err
	}
	return v.ObjectTracker.Create(gvr, obj, ns, opts...)
}

func (v *versioned) Update(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	if err := v.next(obj); err != nil {
		return err
	}
	return v.ObjectTracker.Update(gvr, obj, ns, opts...)
}

func (v *versioned) Patch(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	if err := v.next(obj); err != nil {
		return err
	}
	return v.ObjectTracker.Patch(gvr, obj, ns, opts...)
}

// writeCards makes a CDI spec for cards that put an environment variable into the container.
func (m *machine) writeCards(uuids ...string) {
	m.cards = uuids
	spec := "cdiVersion: 0.6.0\nkind: example.com/gpu\ndevices:\n"
	for _, uuid := range uuids {
		spec += "- name: " + uuid + "\n  containerEdits: {env: [\"CARD_" + uuid[len(uuid)-1:] + "=" + uuid + "\"]}\n"
	}
	require.NoError(m.t, os.MkdirAll(m.c.CDIDir(), 0o755))
	require.NoError(m.t, os.WriteFile(filepath.Join(m.c.CDIDir(), "example.yaml"), []byte(spec), 0o600))
}

func (m *machine) node() *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1"},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Gi")},
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"),
				corev1.ResourcePods: resource.MustParse("110"),
			},
		},
	}
	for _, d := range m.given().Devices() {
		q := node.Status.Allocatable[d.Resource]
		q.Add(resource.MustParse("1"))
		node.Status.Allocatable[d.Resource] = q
	}
	return node
}

// given are the cards that pods are given.
func (m *machine) given() Cards {
	if m.real != nil {
		return m.real
	}
	return watchedCards{m.cards, &m.failed, &m.gone}
}

// start runs a new agent on the machine, and returns when it follows the API: the
// API in memory tells nobody what is deleted between an agent's list and its watch.
func (m *machine) start() {
	m.t.Helper()
	before := m.watches.Load()
	m.startAway()
	require.Eventually(m.t, func() bool { return m.watches.Load() > before }, patience, time.Millisecond, "the agent watches the API")
}

// startAway runs a new agent while the API is away.
func (m *machine) startAway() {
	m.t.Helper()
	var client kubernetes.Interface = m.client
	if m.line != nil {
		client = m.line
	}
	drivers := m.newDrivers()
	services, err := objects.NewServices(client)
	require.NoError(m.t, err)
	m.manager = m.newManager(client, services)
	ctx, cancel := context.WithCancel(m.t.Context())
	m.stop, m.done = cancel, make(chan error, 1)
	manager, done := m.manager, m.done
	go func() { done <- manager.Run(ctx) }()
	go func() { _ = services.Run(ctx) }()
	m.lookAfterDrivers(drivers)
	m.t.Cleanup(m.halt)
}

// bootID is that of its last boot.
func (m *machine) bootID() string { return fmt.Sprint("boot-", m.boots) }

// newDrivers makes what knows the CSI drivers, and what finds them.
func (m *machine) newDrivers() *pluginregistration.Watcher {
	m.t.Helper()
	drivers := csi.NewDrivers(contract.OSSDriver)
	var err error
	m.csi, err = csi.New(csi.Options{Dir: m.kubeletDir(), Node: "ai-1", Boot: m.bootID(), Drivers: drivers, Mounter: mount.New("")})
	require.NoError(m.t, err)
	return &pluginregistration.Watcher{
		Dir: filepath.Join(m.kubeletDir(), "plugins_registry"), Handlers: map[string]pluginregistration.Handler{"CSIPlugin": drivers},
	}
}

// lookAfterDrivers runs until stopDrivers is called.
func (m *machine) lookAfterDrivers(watcher *pluginregistration.Watcher) {
	ctx, cancel := context.WithCancel(m.t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{m.csi.Run, watcher.Run} {
		running.Go(func() { _ = run(ctx) })
	}
	m.stopDrivers = func() { cancel(); running.Wait() }
}

// slowMounter tells before it unmounts.
type slowMounter struct {
	mount.Interface
	unmounting func(path string)
}

func (s slowMounter) Unmount(path string) error {
	if s.unmounting != nil {
		s.unmounting(path)
	}
	return s.Interface.Unmount(path)
}

func (m *machine) newVolumes(client kubernetes.Interface) *volumes.Manager {
	m.t.Helper()
	reader := objects.Reader{Client: client}
	v, err := volumes.New(volumes.Options{
		Root: filepath.Join(m.root, "volumes"), Objects: reader, Followed: objects.NewFollower(client), Tokens: reader, Claims: reader,
		CSI: m.csi, Drivers: reader, Node: m.node, Mounter: slowMounter{mount.New(""), m.unmounting}, Boot: m.bootID(), Cache: m.cache,
	})
	require.NoError(m.t, err)
	return v
}

func (m *machine) newImages(client kubernetes.Interface) *images.Puller {
	m.t.Helper()
	m.images = &countedImages{ImageManagerService: m.c.Runtime.Images}
	puller, err := images.New(images.Options{Images: m.images, Secrets: objects.Reader{Client: client}, Recorder: m.events})
	require.NoError(m.t, err)
	return puller
}

// newManager makes the pods' manager with the rooms that it works with.
func (m *machine) newManager(client kubernetes.Interface, services Services) *Manager {
	m.t.Helper()
	mode := crispec.Host
	if !m.own.IsZero() {
		mode = crispec.CNI
	}
	manager, err := New(Options{
		Client: client, NodeName: "ai-1", Node: m.node, HostIPs: func() []string { return []string{"127.0.0.1"} }, Network: mode, Epoch: m.epoch,
		Runtime: m.c.Runtime, Images: m.newImages(client), Volumes: m.newVolumes(client), Objects: objects.Reader{Client: client}, Services: services,
		Cards: m.given(), Injection: m.injection, Recorder: m.events,
		StateDir: filepath.Join(m.root, "state"), LogDir: filepath.Join(m.root, "logs"), CgroupParent: m.cgroup,
		ReservedPorts: []int32{10250}, Admit: m.admit, Serves: func() bool { return !m.another.Load() },
	})
	require.NoError(m.t, err)
	return manager
}

// halt ends the agent and leaves the containers.
func (m *machine) halt() {
	m.haltPods()
	m.stopDrivers()
}

// haltPods ends what runs pods alone, as the end of a binding does.
func (m *machine) haltPods() {
	m.stop()
	if m.done != nil {
		require.NoError(m.t, received(m.t, m.done))
		m.done = nil
	}
}

// received is what comes from a channel that is sent something soon, or closed. A test that
// waits for ever says nothing for as long as all tests may take.
func received[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case sent := <-from:
		return sent
	case <-time.After(patience):
		require.FailNow(t, "nothing was sent")
		panic("not reached")
	}
}

// kubeletDir is short: the path of a socket below it has 107 bytes at most.
func (m *machine) kubeletDir() string { return filepath.Join(m.root, "k") }

func (m *machine) create(pod *corev1.Pod) {
	m.t.Helper()
	_, err := m.client.CoreV1().Pods(pod.Namespace).Create(m.t.Context(), pod, metav1.CreateOptions{})
	require.NoError(m.t, err)
}

func (m *machine) get(name string) *corev1.Pod {
	m.t.Helper()
	pod, err := m.client.CoreV1().Pods("default").Get(m.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(m.t, err)
	return pod
}

// delete marks the pod as the API server does for a graceful deletion.
func (m *machine) delete(name string, grace int64) {
	m.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"deletionTimestamp":%q,"deletionGracePeriodSeconds":%d,"generation":%d}}`,
		time.Now().UTC().Format(time.RFC3339), grace, m.get(name).Generation+1)
	_, err := m.client.CoreV1().Pods("default").Patch(m.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(m.t, err)
}

// await waits until the pod (nil if it is gone) is as said.
func (m *machine) await(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	m.t.Helper()
	var pod *corev1.Pod
	require.Eventually(m.t, func() bool { pod = m.get(name); return ok(pod) }, patience, 5*time.Millisecond,
		"pod %q should be %s; events: %v", name, what, m.events)
	return pod
}

func (m *machine) awaitPhase(name string, phase corev1.PodPhase) *corev1.Pod {
	m.t.Helper()
	return m.await(name, string(phase), func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == phase })
}

func (m *machine) awaitGone(name string) {
	m.t.Helper()
	m.await(name, "gone", func(p *corev1.Pod) bool { return p == nil })
}

// awaitEnded waits until the API knows that the pod has ended, of itself or killed: on a
// loaded machine a grace may be too short for anything.
func (m *machine) awaitEnded(name string) *corev1.Pod {
	m.t.Helper()
	return m.await(name, "ended", func(p *corev1.Pod) bool { return p != nil && podstatus.Terminal(p.Status.Phase) })
}

// awaitOutput waits until the pod's container has written the text: that its trap is
// set, say, before which a signal to a container's first process is lost.
func (m *machine) awaitOutput(name, text string) {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		path, err := m.manager.LogPath("default", name, "", "main", false)
		written, _ := os.ReadFile(path)
		return err == nil && strings.Contains(string(written), text)
	}, patience, wink, "pod %q should have written %q", name, text)
}

// patches counts status writes so far.
func (m *machine) patches() int {
	n := 0
	for _, action := range m.client.Actions() {
		if patch, ok := action.(clienttesting.PatchAction); ok && patch.GetSubresource() == "status" {
			n++
		}
	}
	return n
}

// shell is a pod that runs one shell command.
func shell(name, command string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1, CreationTimestamp: metav1.Now()},
		Spec: corev1.PodSpec{
			NodeName: "ai-1", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSDefault,
			TerminationGracePeriodSeconds: ptr.To[int64](5),
			Containers: []corev1.Container{{
				Name: "main", Image: critest.Busybox, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", command},
			}},
		},
	}
}

// obedient waits and ends at once on TERM.
const obedient = "trap 'exit 0' TERM; while :; do sleep 0.05; done"

// unavailable answers every call as an API server that is away.
func unavailable(clienttesting.Action) (bool, runtime.Object, error) {
	return true, nil, apierrors.NewServiceUnavailable("away")
}
