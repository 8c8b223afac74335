package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestIDsAreEachOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, id := range IDs() {
		require.False(t, seen[id], id)
		require.Regexp(t, `^[a-z][a-z-]*$`, id, "people write it in scripts")
		seen[id] = true
	}
	for _, id := range alone {
		require.True(t, seen[id], "%s is no check", id)
	}
	require.NotContains(t, PreflightIDs(), "binding", "what bind judges by itself can't be ignored")
}

func daemonSet(spec corev1.PodSpec) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: spec}}}
}

func affinity(key string, op corev1.NodeSelectorOperator, values ...string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}},
	}}}
}

func TestWhichDaemonSetsCome(t *testing.T) {
	t.Parallel()
	everything := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	for name, test := range map[string]struct {
		spec  corev1.PodSpec
		comes bool
	}{
		"tolerates nothing":      {corev1.PodSpec{}, false},
		"tolerates everything":   {corev1.PodSpec{Tolerations: everything}, true},
		"of another system":      {corev1.PodSpec{Tolerations: everything, NodeSelector: map[string]string{corev1.LabelOSStable: "windows"}}, false},
		"selects GPUs by label":  {corev1.PodSpec{Tolerations: everything, NodeSelector: map[string]string{"nvidia.com/gpu.present": "true"}}, false},
		"keeps off by type":      {corev1.PodSpec{Tolerations: everything, Affinity: affinity("type", corev1.NodeSelectorOpNotIn, "virtual-kubelet")}, false},
		"keeps off by our label": {corev1.PodSpec{Tolerations: everything, Affinity: affinity("alibabacloud.com/virtual-node", corev1.NodeSelectorOpDoesNotExist)}, false},
		"tolerates NoExecute":    {corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}}, false},
	} {
		require.Equal(t, test.comes, comes(daemonSet(test.spec)), name)
	}
}

func TestNewestRequest(t *testing.T) {
	t.Parallel()
	request := func(name, user, signer string, minute int, conditions ...certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequest {
		r := certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))},
			Spec:       certificatesv1.CertificateSigningRequestSpec{Username: user, SignerName: signer},
		}
		for _, c := range conditions {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: c})
		}
		return r
	}
	me, serving := "system:node:ai-1", certificatesv1.KubeletServingSignerName
	state, name := newest([]certificatesv1.CertificateSigningRequest{
		request("old", me, serving, 1, certificatesv1.CertificateApproved),
		request("new", me, serving, 2, certificatesv1.CertificateDenied),
		request("other", "system:node:ai-2", serving, 3),
		request("client", me, certificatesv1.KubeAPIServerClientKubeletSignerName, 4),
	}, me)
	require.Equal(t, "new", name)
	require.Equal(t, "denied", state)
	state, _ = newest([]certificatesv1.CertificateSigningRequest{request("a", me, serving, 1)}, me)
	require.Equal(t, "pending", state)
	state, _ = newest(nil, me)
	require.Empty(t, state)
}
