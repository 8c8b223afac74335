package podfiles

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of termination messages, the kubelet's own: 4 KiB from the file; from
// the log the last 2 KiB or 80 lines.
const (
	messageLimit     = 4096
	messageLogLimit  = 2048
	messageLogLines  = 80
	messageReadLimit = 64 << 10
)

// MessagePath is the file into which a container writes why it ended:
// DIR/UID/containers/NAME/ATTEMPT.
func (f Files) MessagePath(uid types.UID, container string, attempt uint32) string {
	return filepath.Join(f.Dir, string(uid), "containers", container, strconv.FormatUint(uint64(attempt), 10))
}

// MountMessage makes that file, empty, and returns its mount.
func (f Files) MountMessage(uid types.UID, c *corev1.Container, attempt uint32) (*runtimeapi.Mount, error) {
	path := f.MessagePath(uid, c.Name, attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the termination message's folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666) // the container may run as any user
	if err != nil {
		return nil, fmt.Errorf("make the termination message file: %w", err)
	}
	// The umask must not keep the container's user from writing.
	err = file.Chmod(0o666)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("make the termination message file: %w", err)
	}
	target := c.TerminationMessagePath
	if target == "" {
		target = corev1.TerminationMessagePathDefault
	}
	if !filepath.IsAbs(target) {
		target = "/" + target
	}
	return &runtimeapi.Mount{ContainerPath: target, HostPath: path}, nil
}

// ReadMessage returns the termination message of a container that has ended.
func (f Files) ReadMessage(uid types.UID, c *corev1.Container, status *runtimeapi.ContainerStatus) string {
	data, err := readTail(f.MessagePath(uid, c.Name, status.GetMetadata().GetAttempt()), messageLimit)
	if err == nil && len(data) > 0 {
		return string(data)
	}
	if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || status.ExitCode == 0 {
		return ""
	}
	raw, err := readTail(status.LogPath, messageReadLimit)
	if err != nil {
		return ""
	}
	return logTail(raw)
}

// readTail reads at most the last limit bytes of a file.
func readTail(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		if _, err := file.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// logTail takes the text out of the last lines of a CRI log, each
// "TIME STREAM FLAG TEXT".
func logTail(raw []byte) string {
	var lines []string
	scanner := bufio.NewScanner(bytes.NewReader(raw))
	scanner.Buffer(nil, messageReadLimit+1)
	for scanner.Scan() {
		parts := strings.SplitN(scanner.Text(), " ", 4)
		if len(parts) != 4 {
			continue
		}
		text := parts[3]
		if parts[2] != "P" { // P: the line goes on
			text += "\n"
		}
		lines = append(lines, text)
	}
	if len(lines) > messageLogLines {
		lines = lines[len(lines)-messageLogLines:]
	}
	text := strings.Join(lines, "")
	if len(text) > messageLogLimit {
		text = text[len(text)-messageLogLimit:]
	}
	return text
}
