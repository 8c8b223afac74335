package podfiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestTerminationMessages(t *testing.T) {
	t.Parallel()
	files := Files{Dir: t.TempDir()}
	c := &corev1.Container{Name: "a"}
	log := filepath.Join(t.TempDir(), "3.log")
	require.NoError(t, os.WriteFile(log, []byte("time stdout F one\ntime stderr P tw\ntime stderr F o\ncut off\n"), 0o600))
	ended := &runtimeapi.ContainerStatus{Metadata: &runtimeapi.ContainerMetadata{Attempt: 3}, ExitCode: 1, LogPath: log}

	mount, err := files.MountMessage("u1", c, 3)
	require.NoError(t, err)
	require.Equal(t, corev1.TerminationMessagePathDefault, mount.ContainerPath)
	require.Equal(t, files.MessagePath("u1", "a", 3), mount.HostPath)
	info, err := os.Stat(mount.HostPath)
	require.NoError(t, err)
	require.EqualValues(t, 0o666, info.Mode(), "the container may run as any user")
	require.Empty(t, files.ReadMessage("u1", c, ended), "a log is read for those who ask for it")

	c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	require.Equal(t, "one\ntwo\n", files.ReadMessage("u1", c, ended))
	ended.ExitCode = 0
	require.Empty(t, files.ReadMessage("u1", c, ended), "it ended well")

	require.NoError(t, os.WriteFile(mount.HostPath, []byte("x"+strings.Repeat("y", messageLimit)), 0o600))
	require.Equal(t, strings.Repeat("y", messageLimit), files.ReadMessage("u1", c, ended), "the end of it")
}
