package pods

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/network"
)

// withRange gives each pod of the machine an address of its own.
func (m *machine) withRange() {
	m.t.Helper()
	m.c.WithPlugins(m.t)
	bridge, cidr := critest.Bridge(m.t)
	r, err := podrange.Parse(cidr)
	require.NoError(m.t, err)
	m.own = r
	place := network.Place{BinDir: m.c.CNIBinDir(), ConfDir: m.c.CNIConfDir(), LeaseDir: filepath.Join(m.root, "leases"), Bridge: bridge}
	net := network.New(network.Options{Place: place, Range: r, Address: "127.0.0.1", Runtime: m.c.Runtime, Clock: clock.RealClock{}})
	require.NoError(m.t, net.Configure(m.t.Context()))
}

// sandboxInfo is what containerd tells of a pod's sandbox to whoever wants all.
type sandboxInfo struct {
	Pid         int
	RuntimeSpec struct {
		Linux struct{ Namespaces []struct{ Type, Path string } }
	}
}

func (m *machine) sandboxInfo(pod string) (info sandboxInfo) {
	m.t.Helper()
	sandbox, err := m.manager.SandboxID("default", pod, "")
	require.NoError(m.t, err)
	answer, err := m.c.Runtime.PodSandboxStatus(m.t.Context(), sandbox, true)
	require.NoError(m.t, err)
	require.NoError(m.t, json.Unmarshal([]byte(answer.GetInfo()["info"]), &info))
	return info
}

// leases are the addresses that are taken.
func (m *machine) leases() []string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.root, "leases", network.Name))
	require.NoError(m.t, err)
	var all []string
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			all = append(all, e.Name())
		}
	}
	return all
}

// serving is a pod that answers at port 8080 with its name, the address that it was
// told and its host name.
func serving(name string) *corev1.Pod {
	pod := shell(name, `mkdir -p /www && echo "$HOSTNAME $(cat /proc/sys/kernel/hostname) $POD_IP" >/www/index.html; httpd -f -p 8080 -h /www & trap 'exit 0' TERM; while :; do sleep 0.05; done`)
	c := &pod.Spec.Containers[0]
	c.Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
	c.Env = []corev1.EnvVar{{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	return pod
}

func TestEachPodHasAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	addresses := map[string]string{}
	for _, name := range []string{"one", "two"} { // which listen at one port
		m.create(serving(name))
		pod := m.await(name, "ready, asked at its own address", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].Ready
		})
		require.True(t, m.own.Prefix().Contains(netip.MustParseAddr(pod.Status.PodIP)), pod.Status.PodIP)
		require.Equal(t, []corev1.PodIP{{IP: pod.Status.PodIP}}, pod.Status.PodIPs)
		require.Equal(t, "127.0.0.1", pod.Status.HostIP)
		addresses[name] = pod.Status.PodIP
	}
	require.NotEqual(t, addresses["one"], addresses["two"])
	id, err := m.manager.ContainerID("default", "one", "", "main")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		out, _, err := m.c.Runtime.ExecSync(t.Context(), id, []string{"wget", "-qO-", "http://" + addresses["two"] + ":8080/"}, patience)
		return err == nil && string(out) == "two two "+addresses["two"]+"\n"
	}, patience, wink, "pods reach each other, and know their names and addresses")

	hosts, _, err := m.c.Runtime.ExecSync(t.Context(), id, []string{"cat", "/etc/hosts"}, patience)
	require.NoError(t, err)
	require.Contains(t, string(hosts), addresses["one"]+"\tone\n")

	// The agent is killed: the pods keep their addresses.
	m.halt()
	m.start()
	m.create(serving("three"))
	addresses["three"] = m.awaitPhase("three", corev1.PodRunning).Status.PodIP
	for name, ip := range addresses {
		require.Equal(t, ip, m.get(name).Status.PodIP)
	}
	require.Len(t, m.leases(), 3)

	m.delete("one", 1)
	m.awaitGone("one")
	require.NotContains(t, m.leases(), addresses["one"], "it is free before the pod is gone from the API")
	m.halt()
	require.NoError(t, m.manager.StopAll(t.Context(), time.Second))
	require.Empty(t, m.leases())
}

func TestHooksAskThePodsOwnAddress(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	for name, port := range map[string]int32{"answers": 8080, "does-not": 8081} {
		pod := serving(name)
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(port)},
		}}
		m.create(pod)
		m.awaitPhase(name, corev1.PodRunning)
		id, err := m.manager.ContainerID("default", name, "", "main")
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, _, err := m.c.Runtime.ExecSync(t.Context(), id, []string{"wget", "-qO-", "http://127.0.0.1:8080/"}, patience)
			return err == nil
		}, patience, wink)
		m.delete(name, 30)
		m.awaitGone(name)
		failed := 0
		for _, event := range m.events.list() {
			if event == "Warning FailedPreStopHook PreStopHook failed" {
				failed++
			}
		}
		require.Equal(t, map[int32]int{8080: 0, 8081: 1}[port], failed, "hook of %q", name)
		m.events.forget()
	}
}

// A sandbox without a network is none: its pod gets another, and the old address is
// free again.
func TestANetworkThatVanishedIsMadeAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	m.create(serving("web"))
	before := m.awaitPhase("web", corev1.PodRunning)
	for _, ns := range m.sandboxInfo("web").RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			require.NoError(t, unix.Unmount(ns.Path, unix.MNT_DETACH))
			if err := os.Remove(ns.Path); !errors.Is(err, fs.ErrNotExist) { // the agent may have seen it already
				require.NoError(t, err)
			}
		}
	}
	m.manager.runtimeChanged("") // as each minute; the runtime tells nobody
	after := m.await("web", "running in another sandbox", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	require.NotEqual(t, before.Status.PodIP, after.Status.PodIP)
	require.Equal(t, []string{after.Status.PodIP}, m.leases())
	require.Contains(t, m.events.list(), "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.")
}

func TestADeadSandboxGivesItsAddressBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	m.create(serving("web"))
	m.awaitPhase("web", corev1.PodRunning)
	require.NoError(t, unix.Kill(m.sandboxInfo("web").Pid, unix.SIGKILL))
	after := m.await("web", "running in another sandbox", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	require.Equal(t, []string{after.Status.PodIP}, m.leases())
}
