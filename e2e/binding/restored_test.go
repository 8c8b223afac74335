package binding

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
)

// stopped changes something of a control plane while it is down.
func (p *plane) stopped(t *testing.T, change func() error) {
	t.Helper()
	ctx := t.Context()
	for _, stop := range [][]string{ // etcd in order: it is copied
		{"--name", "kube-controller-manager", "--signal", "KILL"}, {"--name", "kube-apiserver", "--signal", "KILL"}, {"--name", "etcd"},
	} {
		_, err := p.devcluster(ctx, "stop", stop...)
		require.NoError(t, err)
	}
	require.NoError(t, change())
	require.NoError(t, p.ClusterUpWith(ctx, len(p.Cluster().Machines)))
}

// backup is a cluster's whole store, taken while it is down.
type backup struct {
	p   *plane
	dir string
}

func (b backup) take() error    { return replace(b.dir, filepath.Join(b.p.Dir, "etcd")) }
func (b backup) restore() error { return replace(filepath.Join(b.p.Dir, "etcd"), b.dir) }

func replace(dir, by string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	out, err := exec.CommandContext(context.Background(), "cp", "-a", by, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// rotate replaces the key that the tokens of service accounts are signed with, and
// trusts the old one no more.
func (p *plane) rotate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	for name, block := range map[string]pem.Block{
		"service-account.key": {Type: "EC PRIVATE KEY", Bytes: private}, "service-account.pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		if err := os.WriteFile(filepath.Join(p.Dir, "certs", name), pem.EncodeToMemory(&block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// testRestored rotates the hub's keys and the target's, restores the target and then the
// hub from backups: a 401 stops nothing, what the target shows is the truth, and what a
// hub shows of an earlier epoch is proof of nothing.
func (s *stage) testRestored(t *testing.T) {
	ctx, m, at := t.Context(), s.two, s.b
	epoch := s.record(t, m).Spec.BindEpoch
	stays, ended := at.awaitRunning(t, "stays"), at.run(t, "ended", m)
	hub, target := backup{s.a, filepath.Join(t.TempDir(), "hub")}, backup{s.b, filepath.Join(t.TempDir(), "target")}
	running := s.running(t, m)

	s.a.stopped(t, func() error { return errors.Join(hub.take(), s.a.rotate()) })
	s.joinAnew(t)
	s.requireBound(t, m, at, epoch)
	at.requireSame(t, stays)
	at.requireSame(t, ended)
	require.Equal(t, running, s.running(t, m), "a hub that trusts no machine any more stops nothing, nor does joining anew")

	s.b.stopped(t, s.b.rotate)
	message := s.awaitCondition(t, m, v1alpha1.ConditionCredentialValid, metav1.ConditionFalse, "Unauthorized")
	require.Contains(t, message, "pods are kept")
	require.Equal(t, running, s.running(t, m), "a 401 alone stops nothing")
	s.b.renewWebhook(t)
	s.bind(t, m, at)
	s.requireBound(t, m, at, epoch)
	at.requireSame(t, stays)
	at.requireSame(t, ended)

	// The target, from before one pod ended and another came, and hundreds of writes.
	told := at.tells(t, "told", m, "old")
	s.b.stopped(t, target.take)
	at.awaitNode(t, m, "is Ready again", ready)
	told("new")
	require.NoError(t, at.Delete(ctx, &ended))
	at.awaitGone(t, "ended")
	after := at.run(t, "after", m)
	for i := range 300 {
		require.NoError(t, at.note(ctx, "stays", strconv.Itoa(i)))
	}
	at.requireSame(t, stays)
	s.b.stopped(t, target.restore)
	at.requireSame(t, stays)
	at.awaitGone(t, "after")
	eventually(t, "what the API has lost is stopped, and what it has again runs again", func() error {
		again := at.awaitRunning(t, "ended")
		now := s.running(t, m)
		if again.UID != ended.UID || len(now) != 6 || slices.Contains(now, container(after)) || !slices.Contains(now, container(again)) {
			return fmt.Errorf("%s runs as %s; there are %v", again.UID, container(again), now)
		}
		return nil
	})
	at.requireSame(t, stays)
	told("")
	require.NoError(t, at.Delete(ctx, pod("told", m)))
	at.awaitGone(t, "told")
	require.NoError(t, at.Delete(ctx, pod("ended", m)), "its version is one that the agent has seen before")
	at.awaitGone(t, "ended")
	s.requireBound(t, m, at, epoch)

	// The hub, from before the node was bound anew.
	s.unbind(t, m, at)
	s.bind(t, m, at)
	stays = at.run(t, "stays", m)
	s.requireBound(t, m, at, epoch+1)
	running, released := s.running(t, m), s.released(t, m)
	s.a.stopped(t, hub.restore)
	message = s.awaitCondition(t, m, v1alpha1.ConditionReady, metav1.ConditionFalse, "RecordOutdated")
	require.Contains(t, message, fmt.Sprintf("serves epoch %d and keeps its pods", epoch+1))
	require.Equal(t, running, s.running(t, m), "an old record is no proof")
	at.requireSame(t, stays)
	s.awaitListed(t, m, "Bound") // the Lease is an old one too
	s.bind(t, m, at)
	s.requireBound(t, m, at, epoch+1)
	s.awaitCondition(t, m, v1alpha1.ConditionReady, metav1.ConditionTrue, "AgentRunning")
	at.requireSame(t, stays)
	require.Equal(t, released, s.released(t, m), "nothing was given back")
	s.unbind(t, m, at)
	s.requireNothing(t, m, at)
}

// tells runs a pod that has a ConfigMap mounted, which says what is given, and waits until
// the pod sees it. What it returns changes the ConfigMap and waits again; told nothing, it
// waits until the pod sees what was said first.
func (p *plane) tells(t *testing.T, name string, m machine, first string) func(string) {
	t.Helper()
	says := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault}, Data: map[string]string{"is": first}}
	require.NoError(t, p.Create(t.Context(), says))
	reader := pod(name, m)
	reader.Spec.Volumes = []corev1.Volume{{Name: "says", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
	}}}
	c := &reader.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "says", MountPath: "/says"}}
	c.Command = []string{"sh", "-c", "trap 'exit 0' TERM; while true; do cat /says/is; echo; sleep 1; done"}
	require.NoError(t, p.Create(t.Context(), reader))
	p.awaitRunning(t, name)
	tell := func(text string) {
		t.Helper()
		if text != "" {
			says.Data["is"], says.ResourceVersion = text, ""
			require.NoError(t, p.Update(t.Context(), says))
		} else {
			text = first
		}
		eventually(t, "the pod sees "+text, func() error {
			if out, err := p.Kubectl(t.Context(), "logs", name, "--tail=1"); err != nil || strings.TrimSpace(out) != text {
				return fmt.Errorf("it says %q (%w)", out, err)
			}
			return nil
		})
	}
	tell("")
	return tell
}

// joinAnew has the machines join again whose hub does not take their tokens any more, as
// their agents say. Meanwhile they serve their cluster.
func (s *stage) joinAnew(t *testing.T) {
	t.Helper()
	for _, m := range []machine{s.one, s.two} {
		eventually(t, m.node+" is told what to do", func() error {
			log := s.log(t, m)
			if !strings.Contains(log, "The hub does not accept this machine's token any more") || !strings.Contains(log, "join again: kubectl ainode add "+m.node) {
				return errors.New(log[max(0, len(log)-2000):])
			}
			return nil
		})
	}
	late := s.b.run(t, "late", s.two)
	require.NoError(t, s.b.Delete(t.Context(), &late))
	s.b.awaitGone(t, "late")
	for _, m := range []machine{s.one, s.two} {
		s.killAgent(t, m)
		s.join(t, m)
	}
	s.a.renewWebhook(t)
}

// renewWebhook has the webhook's pods made anew: they have tokens of the old key. (A
// kubelet asks for others when these are due, not when they are refused.)
func (p *plane) renewWebhook(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"delete", "pods", "-n", contract.SystemNamespace, "--all", "--wait=true", "--timeout=2m"},
		{"rollout", "status", "deployment/ainode-webhook", "-n", contract.SystemNamespace, "--timeout=2m"},
	} {
		_, err := p.Kubectl(t.Context(), args...)
		require.NoError(t, err)
	}
}

// note writes something that nobody reads into a pod.
func (p *plane) note(ctx context.Context, name, text string) error {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault}}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"note":"`+text+`"}}}`))
	return p.Patch(ctx, &pod, patch)
}
