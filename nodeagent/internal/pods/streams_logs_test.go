package pods

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/utils/ptr"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	// It runs one order after another: what is written to two outputs at once is logged in any order.
	pod := shell("p", "test -e /m/x || { echo first life; touch /m/x; exit 3; }; n=0; while :; do until test -e /m/$n; do sleep 0.05; done; . /m/$n; n=$((n+1)); done")
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	pod.Spec.Volumes = []corev1.Volume{{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "m", MountPath: "/m"}}
	m.create(pod)
	m.await("p", "in its second life", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil
	})
	k := m.kubelet()
	read := func(query url.Values) string {
		body := k.logs("default/p/main", query)
		defer func() { _ = body.Close() }()
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		return string(text)
	}
	orders := 0
	do := func(order string) error {
		_, _, err := k.exec("spdy", "p/main", nil, "sh", "-c", `echo "$1" >/m/new && busybox mv /m/new /m/$0`, fmt.Sprint(orders), order)
		orders++
		return err
	}
	now := ""
	for _, o := range [][2]string{{"echo one", "one\n"}, {"echo two >&2", "two\n"}, {"echo three", "three\n"}} {
		require.NoError(t, do(o[0]))
		now += o[1]
		require.Eventually(t, func() bool { return read(nil) == now }, patience, wink)
	}
	stamped := strings.Fields(read(url.Values{"timestamps": {"true"}}))
	require.Len(t, stamped, 6)
	second, err := time.Parse(time.RFC3339Nano, stamped[2])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), second, patience)
	for want, query := range map[string]url.Values{
		"first life\n": {"previous": {"true"}},
		"two\nthree\n": {"tailLines": {"2"}},
		"one\ntw":      {"limitBytes": {"6"}},
		"one\nthree\n": {"stream": {"Stdout"}},
		"two\n":        {"stream": {"Stderr"}},
		"three\n":      {"sinceTime": {second.Add(time.Nanosecond).Format(time.RFC3339Nano)}},
		"":             {"sinceTime": {time.Now().Add(time.Hour).Format(time.RFC3339)}},
		now:            {"sinceSeconds": {"3600"}},
		"thre":         {"tailLines": {"1"}, "limitBytes": {"4"}, "sinceSeconds": {"3600"}},
	} {
		require.Equal(t, want, read(query), "%v", query)
	}

	log := k.logs("default/p/main", url.Values{"follow": {"true"}, "tailLines": {"1"}})
	defer func() { _ = log.Close() }()
	followed := linesOf(log)
	silent := k.logs("default/p/main", url.Values{"follow": {"true"}, "tailLines": {"0"}}) // which answers though nothing is written
	defer func() { _ = silent.Close() }()
	require.Equal(t, "three", followed.next())
	require.NoError(t, do("echo four"))
	require.Equal(t, "four", followed.next())
	_ = do("echo five; exit 0") // which may be killed with the container that it ends
	require.Equal(t, "five", followed.next())
	m.awaitPhase("p", corev1.PodSucceeded)
	require.Equal(t, "(the stream has ended)", followed.next(), "with the container")
	rest, err := io.ReadAll(silent)
	require.NoError(t, err)
	require.Equal(t, "four\nfive\n", string(rest))
	require.Equal(t, now+"four\nfive\n", read(nil), "of a container that has ended")
}

// echoing is a pod that gives back what it is sent at port 7, and started when it does.
func echoing(name string) *corev1.Pod {
	pod := shell(name, "exec nc -ll -p 7 -e cat")
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	pod.Spec.Containers[0].StartupProbe = &corev1.Probe{
		PeriodSeconds: 1, FailureThreshold: 100, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(7)}},
	}
	return pod
}

func (m *machine) awaitStarted(name string) {
	m.t.Helper()
	m.await(name, "started", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
			return !ptr.Deref(s.Started, false)
		})
	})
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	m.create(echoing("p"))
	m.awaitStarted("p")
	k := m.kubelet()
	byBoth(t, func(t *testing.T, protocol string) {
		dial := func(local string) net.Conn {
			conn, err := net.Dial("tcp", local)
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		said := func(conn net.Conn, text string) {
			t.Helper()
			_, err := io.WriteString(conn, text)
			require.NoError(t, err)
			back := make([]byte, len(text))
			_, err = io.ReadFull(conn, back)
			require.NoError(t, err)
			require.Equal(t, text, string(back))
		}
		local, _ := k.forward(protocol, "default/p", 7)
		first := dial(local)
		for i := range 3 { // several at once
			said(dial(local), fmt.Sprint("connection ", i))
			said(first, "still there")
		}

		nobody, lost := k.forward(protocol, "default/p", 8)
		_, err := dial(nobody).Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, received(t, lost), portforward.ErrLostConnectionToPod, "kubectl ends where nobody listens")
		said(first, "and this one lives")
	})
}
