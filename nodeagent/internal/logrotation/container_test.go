package logrotation

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

const patience = time.Minute

// batch is how many lines are written between two rotations.
const batch = 100

// follower collects what kubectl logs -f would show.
type follower struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.Write(p)
}

func (f *follower) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Split(strings.TrimSuffix(f.text.String(), "\n"), "\n")
}

// writer is a container that writes a batch of lines for each file that appears.
func writer(t *testing.T, c *critest.Containerd) (status func() *runtimeapi.ContainerStatus, next func(n int)) {
	t.Helper()
	ctx, orders, folder := t.Context(), t.TempDir(), t.TempDir()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}, LogDirectory: folder,
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	pod, err := c.Runtime.RunPodSandbox(ctx, sandbox, "")
	require.NoError(t, err)
	id, err := c.Runtime.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: critest.Busybox}, LogPath: "0.log",
		Command: []string{"sh", "-c", fmt.Sprintf("b=0 i=0; while :; do until test -e /orders/$b; do sleep 0.01; done; b=$((b+1)); "+
			"while test $i -lt $((b*%d)); do echo line $i; i=$((i+1)); done; done", batch)},
		Mounts: []*runtimeapi.Mount{{ContainerPath: "/orders", HostPath: orders}},
	}, sandbox)
	require.NoError(t, err)
	require.NoError(t, c.Runtime.StartContainer(ctx, id))
	status = func() *runtimeapi.ContainerStatus {
		answer, err := c.Runtime.ContainerStatus(ctx, id, false)
		require.NoError(t, err)
		return answer.Status
	}
	return status, func(n int) {
		require.NoError(t, os.WriteFile(filepath.Join(orders, fmt.Sprint(n)), nil, 0o600))
	}
}

// watching reports whether this process watches a folder for changes.
func watching() bool {
	infos, _ := filepath.Glob("/proc/self/fdinfo/*")
	for _, info := range infos {
		if text, err := os.ReadFile(info); err == nil && bytes.Contains(text, []byte("inotify wd:")) {
			return true
		}
	}
	return false
}

func TestFollowersGoOnAcrossARotation(t *testing.T) {
	c := critest.Start(t)
	status, next := writer(t, c)
	path := status().LogPath
	clock := testclock.NewFakeClock(start)
	r, err := New(Options{Runtime: c.Runtime, MaxSize: 1, MaxFiles: 3, Clock: clock, Containers: func() []*runtimeapi.ContainerStatus {
		return []*runtimeapi.ContainerStatus{status()}
	}})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	f, ended := &follower{}, make(chan error, 1)
	go func() {
		ended <- logs.ReadLogs(ctx, path, status().Id, &logs.LogOptions{Follow: true}, c.Runtime, f, f)
	}()
	defer func() { cancel(); <-ended }()
	require.Eventually(t, watching, patience, time.Millisecond)

	const rotations = 4
	for n := range rotations + 1 {
		next(n)
		require.Eventually(t, func() bool { return len(f.lines()) == (n+1)*batch }, patience, time.Millisecond)
		if n < rotations {
			clock.Step(time.Second)
			r.pass(t.Context())
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Zero(t, info.Size())
		}
	}
	for i, line := range f.lines() {
		require.Equal(t, fmt.Sprintf("line %d", i), line)
	}
	files, err := Files(path)
	require.NoError(t, err)
	require.Len(t, files, 3)

	// What kubectl logs --tail sees: the current file.
	tail := &follower{}
	require.NoError(t, logs.ReadLogs(t.Context(), path, "", &logs.LogOptions{TailLines: ptr.To[int64](2)}, c.Runtime, tail, tail))
	require.Equal(t, f.lines()[(rotations+1)*batch-2:], tail.lines())
}
