package pods

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// byBoth runs the test by each protocol.
func byBoth(t *testing.T, test func(t *testing.T, protocol string)) {
	for protocol := range protocols {
		t.Run(protocol, func(t *testing.T) { test(t, protocol) })
	}
}

// exec runs a command to its end.
func (k *kubelet) exec(protocol, container string, in io.Reader, command ...string) (stdout, stderr string, err error) {
	k.t.Helper()
	var out, errs bytes.Buffer
	err = received(k.t, k.open(protocol, "/exec/default/"+container, command, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Stderr: &errs}))
	return out.String(), errs.String(), err
}

// sizes are what a terminal is told of its window.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

// windows shows its size, once for each change at the least.
const windows = "while :; do busybox stty size; sleep 0.05; done"

// resized checks that the windows follow the sizes.
func resized(t *testing.T, to sizes, out lines) {
	for _, size := range []remotecommand.TerminalSize{{Height: 33, Width: 101}, {Height: 44, Width: 202}} {
		select {
		case to <- size:
		case <-time.After(patience):
			require.FailNow(t, "nobody asks for the window's size")
		}
		line := ""
		for range 1000 {
			if line = out.next(); line == fmt.Sprintf("%d %d", size.Height, size.Width) {
				break
			}
		}
		require.Equal(t, fmt.Sprintf("%d %d", size.Height, size.Width), line)
	}
	close(to)
}

func TestExec(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("p", obedient))
	m.awaitPhase("p", corev1.PodRunning)
	k := m.kubelet()
	byBoth(t, func(t *testing.T, protocol string) {
		out, errs, err := k.exec(protocol, "p/main", nil, "sh", "-c", "echo out; echo err >&2; exit 7")
		var exit utilexec.CodeExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 7, exit.Code)
		require.Equal(t, "out\n", out)
		require.Equal(t, "err\n", errs)
		_, _, err = k.exec(protocol, "p/main", nil, "sh", "-c", "kill -KILL $$")
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 137, exit.Code)

		_, _, err = k.exec(protocol, "p/main", nil, "no-such-program")
		require.ErrorContains(t, err, "no-such-program")
		_, _, err = k.exec(protocol, "p/none", nil, "true")
		require.Error(t, err)

		in := bytes.NewReader([]byte("first\nlast\n"))
		out, _, err = k.exec(protocol, "p/main", in, "sh", "-c", "cat; echo has ended")
		require.NoError(t, err)
		require.Equal(t, "first\nlast\nhas ended\n", out, "the end of stdin is passed on")
	})
}

// What kubectl cp does: tar at both ends.
func TestCopy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("p", obedient))
	m.awaitPhase("p", corev1.PodRunning)
	k := m.kubelet()
	content := make([]byte, 5<<20)
	_, _ = rand.Read(content)
	byBoth(t, func(t *testing.T, protocol string) {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: protocol, Mode: 0o600, Size: int64(len(content))}))
		_, err := w.Write(content)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, errs, err := k.exec(protocol, "p/main", &archive, "busybox", "tar", "xmf", "-", "-C", "/tmp")
		require.NoError(t, err, errs)

		out, errs, err := k.exec(protocol, "p/main", nil, "busybox", "tar", "cf", "-", "-C", "/tmp", protocol)
		require.NoError(t, err, errs)
		r := tar.NewReader(strings.NewReader(out))
		_, err = r.Next()
		require.NoError(t, err)
		back, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, back), "%d bytes came back of %d", len(back), len(content))
	})
}

func TestTerminalOfExec(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("p", obedient))
	m.awaitPhase("p", corev1.PodRunning)
	k := m.kubelet()
	byBoth(t, func(t *testing.T, protocol string) {
		in, typed := io.Pipe()
		shown, out := io.Pipe()
		to := make(sizes, 1)
		done := k.open(protocol, "/exec/default/p/main", []string{"sh", "-c", "trap 'exit 5' INT; test -t 1 && echo a terminal; " + windows},
			remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: true, TerminalSizeQueue: to})
		said := linesOf(shown)
		require.Equal(t, "a terminal", said.next())
		resized(t, to, said)
		go func() { // reads what is shown meanwhile
			for range said {
			}
		}()
		_, err := io.WriteString(typed, "\x03") // of which the terminal makes a signal
		require.NoError(t, err)
		var exit utilexec.CodeExitError
		require.ErrorAs(t, received(t, done), &exit)
		require.Equal(t, 5, exit.Code)
		_ = out.Close()
	})
}

// Attach shows what is written from then on: the runtime keeps nothing for who comes
// later (containerd's ContainerIO.Attach), through a kubelet as well. kubectl run shows
// the log before it attaches; what is written in between, and what answers stdin at once
// (see greet), is in the log alone.
func TestAttachBeginsWhereItComes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("p", "echo early; exec cat")
	pod.Spec.Containers[0].Stdin = true
	m.create(pod)
	m.awaitPhase("p", corev1.PodRunning)
	k := m.kubelet()
	log := k.logs("default/p/main", url.Values{"follow": {"true"}})
	defer func() { _ = log.Close() }()
	logged := linesOf(log)
	require.Equal(t, "early", logged.next())

	id, err := m.manager.ContainerID("default", "p", "", "main")
	require.NoError(t, err)
	answer, err := m.c.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	require.NoError(t, err)
	direct, err := url.Parse(answer.GetUrl())
	require.NoError(t, err)
	runtime := newKubelet(t, &rest.Config{Host: "http://" + direct.Host})
	for name, open := range map[string]func(remotecommand.StreamOptions) <-chan error{
		"the agent": func(o remotecommand.StreamOptions) <-chan error {
			return k.open("spdy", "/attach/default/p/main", nil, o)
		},
		"the runtime": func(o remotecommand.StreamOptions) <-chan error { return runtime.open("spdy", direct.Path, nil, o) },
	} {
		in, typed := io.Pipe()
		shown, out := io.Pipe()
		open(remotecommand.StreamOptions{Stdin: in, Stdout: out})
		said := linesOf(shown)
		hello := greet(t, typed, said) // and not the early line
		require.Equal(t, hello, logged.until(hello), name)
		require.NoError(t, typed.Close())
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	k := m.kubelet()
	interactive := func(name, command string, change func(*corev1.Container)) {
		pod := shell(name, command)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Spec.Containers[0].Stdin = true
		change(&pod.Spec.Containers[0])
		m.create(pod)
		m.awaitPhase(name, corev1.PodRunning)
	}
	attach := func(protocol, pod string, o remotecommand.StreamOptions) (io.WriteCloser, lines, <-chan error) {
		in, typed := io.Pipe()
		shown, out := io.Pipe()
		o.Stdin, o.Stdout = in, out
		return typed, linesOf(shown), k.open(protocol, "/attach/default/"+pod+"/main", nil, o)
	}
	byBoth(t, func(t *testing.T, protocol string) {
		once := protocol + "-once"
		interactive(once, "exec cat", func(c *corev1.Container) { c.StdinOnce = true })
		typed, out, done := attach(protocol, once, remotecommand.StreamOptions{})
		greet(t, typed, out)
		require.NoError(t, typed.Close())
		require.NoError(t, received(t, done), "the first who is attached ends stdin, and so the container")
		m.awaitPhase(once, corev1.PodSucceeded)

		often := protocol + "-often"
		interactive(often, "exec cat", func(*corev1.Container) {})
		for range 2 { // one after another
			typed, out, _ := attach(protocol, often, remotecommand.StreamOptions{})
			greet(t, typed, out)
			require.NoError(t, typed.Close())
		}
		require.Equal(t, corev1.PodRunning, m.get(often).Status.Phase)

		tty := protocol + "-tty"
		interactive(tty, windows, func(c *corev1.Container) { c.TTY = true })
		to := make(sizes, 1)
		_, out, _ = attach(protocol, tty, remotecommand.StreamOptions{Tty: true, TerminalSizeQueue: to})
		resized(t, to, out)
	})
}
