package admission

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

const optedIn = `
apiVersion: v1
kind: Pod
metadata: {name: wants-ai, labels: {ainode.dev/schedule: "true"}}
spec: {containers: [{name: a, image: a, resources: {limits: {nvidia.com/gpu: "1"}}}]}
`

// run runs one of the cluster's programs; what it printed on both streams comes
// back.
func (c *cluster) run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.Dir, "bin", name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// testOutage: while no webhook runs, ordinary pods notice nothing, and who wants an
// AI node reads what to look at.
func (c *cluster) testOutage(t *testing.T) {
	ordinary := object(t, `{apiVersion: v1, kind: Pod, metadata: {name: ordinary}, spec: {hostNetwork: true, containers: [{name: a, image: a, resources: {limits: {nvidia.com/gpu: "1"}}}]}}`)
	measure := func() (slowest time.Duration) {
		for range 50 {
			for _, namespace := range []string{"plain", "life", "kube-system", system} {
				began := time.Now()
				require.NoError(t, c.try(t.Context(), pods, namespace, ordinary).err)
				slowest = max(slowest, time.Since(began))
			}
		}
		return slowest
	}
	with := measure()
	c.must(t, "scale", "deployment/ainode-webhook", "-n", system, "--replicas=0")
	c.must(t, "wait", "--for=delete", "pod", "-n", system, "-l", webhookPods, "--timeout=2m")
	before := c.calls(t)
	without := measure()
	t.Logf("the slowest of 200 ordinary pods: %s with the webhook, %s without", with, without)
	// How long they took is the machine's matter; that nobody was waited for is ours.
	require.Equal(t, before, c.calls(t), "an ordinary pod waits for a webhook that is not there")
	require.NoError(t, c.try(t.Context(), pods, "opted-in", object(t, `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, image: a}]}}`)).err)
	require.NoError(t, c.try(t.Context(), deployments, "plain", object(t, stripped)).err, "workloads are only told about")

	file := filepath.Join(t.TempDir(), "pod.yaml")
	require.NoError(t, os.WriteFile(file, []byte(optedIn), 0o600))
	said, err := c.run(t, "kubectl", "apply", "-f", file)
	require.Error(t, err)
	require.Contains(t, said, `failed calling webhook "pods.if-unreachable-check-deployment-ainode-webhook-in-`+system+`.`+contract.Group+`"`)
	require.Contains(t, said, `no endpoints available for service "ainode-webhook"`, "told at once, and not after a timeout")
	t.Log(said)
	c.testCheckOutage(t, file)

	// Guards are the API server's own: they hold.
	c.create(t, configs, "", config, "held")
	require.NoError(t, c.patch(t, configs, "", "held", `{"status":{"boundNodes":["ai-a"]}}`, "status"))
	refused(t, c.delete(t, configs, "", "held"), "still has bound AI nodes")
	require.NoError(t, c.patch(t, configs, "", "held", `{"status":{"boundNodes":[]}}`, "status"))
	require.NoError(t, c.delete(t, configs, "", "held"))

	c.must(t, "scale", "deployment/ainode-webhook", "-n", system, "--replicas=2")
	c.must(t, "rollout", "status", "deployment/ainode-webhook", "-n", system, "--timeout=2m")
	eventually(t, "the AI node's pod is taken again", func() error { return c.try(t.Context(), pods, "plain", object(t, optedIn)).err })
}

// load asks for AI-node pods without a pause until stop is called, which returns
// how many were asked for and what failed.
func (c *cluster) load(t *testing.T) (stop func() (int, []error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pod := object(t, optedIn)
	var mu sync.Mutex
	var asked int
	var failures []error
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for ctx.Err() == nil {
				got := c.try(ctx, pods, "plain", clone(t, pod))
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				asked++
				if got.err != nil {
					failures = append(failures, got.err)
				} else if len(got.warnings) == 0 {
					failures = append(failures, errors.New("the pod was stored unchanged"))
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		cancel()
		workers.Wait()
		return asked, failures
	}
}

// testRotation: certificate, authority and all pods are replaced, and no request
// is dropped.
func (c *cluster) testRotation(t *testing.T) {
	stop := c.load(t)
	first := c.secret(t).Data

	// The serving certificate, by taking it out of the Secret.
	c.secretPatch(t, map[string][]byte{"tls.crt": nil, "tls.key": nil})
	second := c.followed(t, "the serving certificate", func(data map[string][]byte) bool {
		return len(data["tls.crt"]) > 0 && !bytes.Equal(data["tls.crt"], first["tls.crt"])
	})
	require.Equal(t, first["ca.crt"], second["ca.crt"])

	// The authority, by taking its key out: the new one is trusted before it signs.
	c.secretPatch(t, map[string][]byte{"ca.key": nil})
	third := c.followed(t, "a second authority", func(data map[string][]byte) bool {
		return len(data["ca.key"]) > 0 && bytes.HasSuffix(data["ca.crt"], second["ca.crt"]) && len(data["ca.crt"]) > len(second["ca.crt"])
	})
	require.Equal(t, second["tls.crt"], third["tls.crt"], "shown before every API server knows the authority")

	// Two hours later it signs.
	c.secretPatch(t, map[string][]byte{"ca.crt": append(aged(t, third, 2*time.Hour, 10*365*24*time.Hour), second["ca.crt"]...)})
	fourth := c.followed(t, "a certificate of the second authority", func(data map[string][]byte) bool {
		return len(data["tls.crt"]) > 0 && !bytes.Equal(data["tls.crt"], third["tls.crt"])
	})

	// Years later its end is near.
	c.secretPatch(t, map[string][]byte{"ca.crt": aged(t, fourth, 9*365*24*time.Hour, 365*24*time.Hour)})
	c.followed(t, "a third authority", func(data map[string][]byte) bool { return !bytes.Equal(data["ca.key"], fourth["ca.key"]) })

	// All pods, one after the other.
	c.must(t, "rollout", "restart", "deployment/ainode-webhook", "-n", system)
	c.must(t, "rollout", "status", "deployment/ainode-webhook", "-n", system, "--timeout=2m")
	eventually(t, "the pods from before are gone", func() error {
		list, err := c.kube.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: webhookPods})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})
	asked, failures := stop()
	t.Logf("%d pods admitted meanwhile, %d failures", asked, len(failures))
	require.Empty(t, failures)
	require.Greater(t, asked, 100)

	// The whole Secret lost is no rotation but an accident: it is over by itself.
	stop = c.load(t)
	began := time.Now()
	require.NoError(t, c.kube.CoreV1().Secrets(system).Delete(t.Context(), "ainode-webhook-certs", metav1.DeleteOptions{}))
	eventually(t, "a Secret", func() error {
		_, err := c.kube.CoreV1().Secrets(system).Get(t.Context(), "ainode-webhook-certs", metav1.GetOptions{})
		return err
	})
	c.followed(t, "the Secret made again", func(data map[string][]byte) bool { return len(data["tls.crt"]) > 0 })
	took := time.Since(began)
	asked, failures = stop()
	t.Logf("the Secret deleted: made again and served everywhere after %s; %d of %d pods refused meanwhile", took.Round(time.Millisecond), len(failures), asked)
	eventually(t, "pods are admitted again", func() error { return c.try(t.Context(), pods, "plain", object(t, optedIn)).err })
}

// followed waits until the Secret is so, and then until every replica serves its
// certificate and a client that knows only the bundle in the webhook
// configurations accepts it.
func (c *cluster) followed(t *testing.T, what string, so func(map[string][]byte) bool) map[string][]byte {
	t.Helper()
	var data map[string][]byte
	eventually(t, what+" in the Secret", func() error {
		if data = c.secret(t).Data; !so(data) {
			return errors.New("not yet")
		}
		return nil
	})
	eventually(t, what+" served and trusted", func() error {
		want, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
		if err != nil {
			return err
		}
		mutating, err := c.kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "ainode-webhook", metav1.GetOptions{})
		if err != nil {
			return err
		}
		validating, err := c.kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "ainode-webhook", metav1.GetOptions{})
		if err != nil {
			return err
		}
		bundles := [][]byte{}
		for _, w := range mutating.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, w := range validating.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, bundle := range bundles {
			if !bytes.Equal(bundle, data["ca.crt"]) {
				return errors.New("a webhook configuration has another bundle")
			}
		}
		list, err := c.kube.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: webhookPods})
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundles[0])
		for _, pod := range list.Items {
			conn, err := tls.Dial("tcp", net.JoinHostPort(pod.Status.PodIP, "9443"), &tls.Config{RootCAs: roots, ServerName: "ainode-webhook." + system + ".svc"})
			if err != nil {
				return fmt.Errorf("%s: %w", pod.Name, err)
			}
			served := conn.ConnectionState().PeerCertificates[0]
			conn.Close()
			if !served.Equal(want.Leaf) {
				return fmt.Errorf("%s serves another certificate", pod.Name)
			}
		}
		return nil
	})
	return data
}

// aged is the Secret's authority as if it had been made age ago and ended in left.
func aged(t *testing.T, data map[string][]byte, age, left time.Duration) []byte {
	t.Helper()
	block, _ := pem.Decode(data["ca.crt"])
	ca, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	block, _ = pem.Decode(data["ca.key"])
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	ca.NotBefore, ca.NotAfter, ca.SerialNumber = time.Now().Add(-age), time.Now().Add(left), big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.(crypto.Signer).Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
