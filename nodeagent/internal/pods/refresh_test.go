package pods

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// run runs a command in the pod's first container and returns what it says.
func (m *machine) run(pod *corev1.Pod, command string) (string, error) {
	id, err := m.manager.ContainerID(pod.Namespace, pod.Name, "", pod.Spec.Containers[0].Name)
	if err != nil {
		return "", err
	}
	stdout, stderr, err := m.c.Runtime.ExecSync(m.t.Context(), id, []string{"busybox", "sh", "-c", command}, time.Minute)
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", command, stderr, err)
	}
	return strings.TrimSpace(string(stdout)), nil
}

// sh is run where nothing may fail.
func (m *machine) sh(pod *corev1.Pod, command string) string {
	m.t.Helper()
	said, err := m.run(pod, command)
	require.NoError(m.t, err)
	return said
}

// awaitSaid waits until a command in the pod's container says want.
func (m *machine) awaitSaid(pod *corev1.Pod, command, want string) {
	m.t.Helper()
	said, err := "", error(nil)
	if !assert.Eventually(m.t, func() bool { said, err = m.run(pod, command); return said == want }, patience, 50*time.Millisecond) {
		m.t.Fatalf("%s said %q, not %q (%v); events: %v", command, said, want, err, m.events)
	}
}

// end deletes the pod and waits until nothing is left of it.
func (m *machine) end(name string) {
	m.t.Helper()
	m.delete(name, 1)
	m.awaitGone(name)
}

// asked counts calls of the API.
func (m *machine) asked(verb, resource string) (n int) {
	for _, action := range m.client.Actions() {
		if action.Matches(verb, resource) {
			n++
		}
	}
	return n
}

func (m *machine) configMap(name string, data map[string]string) {
	m.t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
	api := m.client.CoreV1().ConfigMaps("default")
	_, err := api.Update(m.t.Context(), object, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(m.t.Context(), object, metav1.CreateOptions{})
	}
	require.NoError(m.t, err)
}

func (m *machine) secret(name, value string, immutable bool) {
	m.t.Helper()
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string][]byte{"key": []byte(value)}, Immutable: &immutable}
	_, err := m.client.CoreV1().Secrets("default").Create(m.t.Context(), object, metav1.CreateOptions{})
	require.NoError(m.t, err)
}

func configMapVolume(name, object string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: object}}}}
}

func secretVolume(name, object string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: object}}}
}

func TestMountedVolumesFollowTheAPI(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.configMap("settings", map[string]string{"a": "one", "gone": "x"})
	m.secret("keys", "s3cret", true)
	m.start()
	pod := shell("app", obedient)
	pod.Labels = map[string]string{"colour": "red"}
	pod.Spec.Volumes = []corev1.Volume{
		configMapVolume("config", "settings"), secretVolume("secret", "keys"),
		{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "colour", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['colour']"}}}}},
		}}}},
	}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "config", MountPath: "/config"}, {Name: "secret", MountPath: "/secret"}, {Name: "all", MountPath: "/all"},
		{Name: "config", MountPath: "/file", SubPath: "a"},
	}
	m.create(pod)
	m.awaitPhase("app", corev1.PodRunning)
	require.Equal(t, "one one s3cret red", m.sh(pod, "echo $(cat /config/a) $(cat /file) $(cat /secret/key) $(cat /all/colour)"))
	require.Eventually(t, func() bool { return m.asked("watch", "configmaps") == 1 && m.asked("watch", "secrets") <= 1 }, patience, wink)
	require.Equal(t, 1, m.asked("get", "configmaps"), "two volumes of one object ask once")

	m.configMap("settings", map[string]string{"a": "two", "new": "y"})
	m.awaitSaid(pod, "cat /config/a /all/a", "twotwo")
	require.Equal(t, "one", m.sh(pod, "cat /file"), "a subPath never changes")
	require.Equal(t, "y no", m.sh(pod, "echo $(cat /config/new) $(test -e /config/gone || echo no)"))

	_, err := m.client.CoreV1().Pods("default").Patch(t.Context(), "app", types.MergePatchType, []byte(`{"metadata":{"labels":{"colour":"green"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	m.awaitSaid(pod, "cat /all/colour", "green")

	// Deleted meanwhile: told once, and nothing is taken from the pod.
	require.NoError(t, m.client.CoreV1().ConfigMaps("default").Delete(t.Context(), "settings", metav1.DeleteOptions{}))
	missing := `MountVolume.SetUp failed for volume "config" : configmap "settings" not found`
	require.Eventually(t, func() bool { return strings.Contains(m.events.String(), missing) }, patience, wink, "%v", m.events)
	require.Equal(t, "two", m.sh(pod, "cat /config/a"))
	m.configMap("settings", map[string]string{"a": "three"})
	m.awaitSaid(pod, "cat /config/a", "three")
	told := 0
	for _, event := range m.events.list() {
		if strings.Contains(event, missing) {
			told++
		}
	}
	require.Equal(t, 1, told)

	require.Equal(t, 1, m.asked("get", "configmaps"), "what runs is told, it does not ask")
	require.Equal(t, 1, m.asked("watch", "configmaps"), "two volumes of one object are one watch")
	require.LessOrEqual(t, m.asked("watch", "secrets"), 1)
	require.Equal(t, 1, m.asked("list", "secrets"), "what is immutable is not asked for again")

	m.end("app")
}

// An agent that was killed writes what has changed meanwhile, and while the API is
// away leaves alone what is mounted.
func TestMountedVolumesOverARestart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.configMap("settings", map[string]string{"a": "one"})
	m.start()
	pod := shell("app", obedient)
	pod.Labels = map[string]string{"colour": "red"}
	pod.Spec.Volumes = []corev1.Volume{configMapVolume("config", "settings"), {Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "colour", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['colour']"}}},
	}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "down", MountPath: "/down"}}
	m.create(pod)
	m.awaitPhase("app", corev1.PodRunning)
	_, err := m.client.CoreV1().Pods("default").Patch(t.Context(), "app", types.MergePatchType, []byte(`{"metadata":{"labels":{"colour":"green"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	m.awaitSaid(pod, "cat /down/colour", "green")
	m.halt()
	m.configMap("settings", map[string]string{"a": "two"})

	m.start()
	m.awaitSaid(pod, "cat /config/a", "two")
	require.Equal(t, "green", m.sh(pod, "cat /down/colour"))
	require.NotContains(t, m.events.String(), "FailedMount")
	m.end("app")
}

func TestTokensOfServiceAccounts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	type request struct {
		account string
		spec    authenticationv1.TokenRequestSpec
	}
	requests := make(chan request, 1000) // one every second or two, and the API must not wait for the test
	refuse := true
	m.client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create := action.(clienttesting.CreateActionImpl)
		asked := create.Object.(*authenticationv1.TokenRequest)
		if refuse {
			refuse = false
			return true, nil, apierrors.NewForbidden(corev1.Resource("serviceaccounts"), create.Name, fmt.Errorf("an AI node gets no tokens here"))
		}
		answer := asked.DeepCopy()
		answer.Status.Token = fmt.Sprintf("token-%d", len(requests)+1)
		requests <- request{create.Name, asked.Spec}
		return true, answer, nil
	})
	m.start()
	pod := shell("app", obedient)
	pod.Spec.ServiceAccountName = "robot"
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: ptr.To[int64](2000)}
	pod.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To[int32](0o644),
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: "vault", ExpirationSeconds: ptr.To[int64](2), Path: "token",
		}}},
	}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/token"}}
	m.create(pod)
	m.awaitPhase("app", corev1.PodRunning)
	require.True(t, slices.ContainsFunc(m.events.list(), func(e string) bool {
		return strings.HasPrefix(e, `Warning FailedMount MountVolume.SetUp failed for volume "token" : failed to fetch token of service account "default/robot"`) &&
			strings.Contains(e, "an AI node gets no tokens here")
	}), "%v", m.events)
	first := received(t, requests)
	require.Equal(t, "robot", first.account)
	require.Equal(t, []string{"vault"}, first.spec.Audiences)
	require.Equal(t, &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "app", UID: pod.UID}, first.spec.BoundObjectRef)
	require.Equal(t, "1000 2000 640", m.sh(pod, "busybox stat -L -c '%u %g %a' /token/token"), "its user's, and the group's to read")
	require.Contains(t, m.sh(pod, "cat /token/token"), "token-")
	// At 80 % of two seconds: renewed while the pod runs.
	select {
	case <-requests:
	case <-time.After(patience):
		t.Fatal("the token is not renewed")
	}
	m.end("app")
}
