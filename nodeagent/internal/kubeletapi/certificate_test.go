package kubeletapi

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/certificate"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/identity"
)

// signer stands for who signs, when he has.
type signer struct {
	certificate.Manager
	signed *tls.Certificate
}

func (s *signer) Current() *tls.Certificate { return s.signed }

// Where nobody signs a certificate, one of our own takes its place after a while, and
// gives it back.
func TestNobodySigns(t *testing.T) {
	t.Parallel()
	clock, signs := testclock.NewFakeClock(time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)), &signer{}
	c := &Certificates{signed: signs, node: "ai-1", ip: net.ParseIP("10.0.0.7"), clock: clock, began: clock.Now()}
	require.Nil(t, c.Current(), "a signed one may still come")
	require.False(t, c.SelfSigned())
	clock.Step(unsigned)
	own := c.Current()
	require.NotNil(t, own)
	require.Same(t, own, c.Current())
	require.True(t, c.SelfSigned())
	require.False(t, c.Signed())
	require.NoError(t, own.Leaf.VerifyHostname("10.0.0.7"))
	require.NoError(t, own.Leaf.VerifyHostname("ai-1"))

	signs.signed = &tls.Certificate{}
	require.Same(t, signs.signed, c.Current())
	require.False(t, c.SelfSigned())
	require.True(t, c.Signed())
	signs.signed = nil // it has expired, and no other came
	require.Same(t, own, c.Current())
}

// What is asked for is what our approver approves.
func TestWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	c, err := NewCertificates(t.Context(), client, "ai-1", "10.0.0.7", t.TempDir(), testclock.NewFakeClock(time.Now()))
	require.NoError(t, err)
	c.Start()
	defer c.Stop()
	var requests []certificatesv1.CertificateSigningRequest
	require.Eventually(t, func() bool {
		list, err := client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		requests = list.Items
		return len(requests) > 0
	}, time.Minute, 5*time.Millisecond)
	spec := requests[0].Spec
	require.Equal(t, certificatesv1.KubeletServingSignerName, spec.SignerName)
	require.EqualValues(t, identity.ServingCertificateLife/time.Second, *spec.ExpirationSeconds)
	require.ElementsMatch(t, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}, spec.Usages)
}
