package pods

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/plan"
)

func TestNothingStaysOfContainersThatAreGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("bad", "exit 1")
	w := newWorker(m.manager, pod.UID)
	status := &runtimeapi.ContainerStatus{
		Id: "old", Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: 7}, State: runtimeapi.ContainerState_CONTAINER_EXITED,
	}
	log := filepath.Join(m.manager.logDirectory(pod), "main", "7.log")
	require.NoError(t, os.MkdirAll(filepath.Dir(log), 0o755))
	require.NoError(t, os.WriteFile(log, []byte("x"), 0o600))
	_, err := m.manager.files.MountMessage(pod.UID, &pod.Spec.Containers[0], 7)
	require.NoError(t, err)
	seen := &task{pod: pod, actual: &cri.Pod{Containers: []*runtimeapi.ContainerStatus{status}}, plan: plan.Step{PruneContainers: []string{"old"}}}
	w.readMessages(seen)
	w.killed["old"] = true
	require.Len(t, w.messages, 1)

	w.prune(t.Context(), seen)
	require.NoFileExists(t, log)
	require.NoFileExists(t, m.manager.files.MessagePath(pod.UID, "main", 7))
	w.readMessages(&task{pod: pod, actual: &cri.Pod{}})
	require.Empty(t, w.messages)
	require.Empty(t, w.killed)
}

// A status that the API server does not take keeps no pod from going.
func TestRefusedStatus(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	m.awaitPhase("web", corev1.PodRunning)
	m.client.PrependReactor("patch", "pods/status", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", nil)
	})
	m.delete("web", 1)
	m.awaitGone("web")
}

func TestDeadlineBeforeTheStatusIsWritten(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("slow", obedient)
	pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
	w := newWorker(m.manager, pod.UID)
	require.True(t, w.checkDeadline(pod).IsZero())
	began := metav1.Now()
	w.status = &corev1.PodStatus{StartTime: &began}
	require.Equal(t, began.Add(time.Minute), w.checkDeadline(pod))
}
