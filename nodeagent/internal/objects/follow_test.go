package objects

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

const patience = time.Minute

func watches(client *fake.Clientset, resource string) (n int) {
	for _, action := range client.Actions() {
		if action.Matches("watch", resource) {
			n++
		}
	}
	return n
}

func TestFollowIsOneWatchForAllWhoFollow(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", ResourceVersion: "1"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "other", ResourceVersion: "2"}},
	)
	f := NewFollower(client)
	_, err := f.ConfigMap(t.Context(), "ns", "a")
	require.ErrorIs(t, err, ErrNotSeen)
	var one, two atomic.Int32
	first, stopFirst := context.WithCancel(t.Context())
	defer stopFirst()
	second, stopSecond := context.WithCancel(t.Context())
	defer stopSecond()
	a := []Reference{{ConfigMap, "ns", "a"}}
	f.Follow(first, a, func() { one.Add(1) })
	require.Eventually(t, func() bool { return one.Load() == 1 && watches(client, "configmaps") == 1 }, patience, time.Millisecond)
	f.Follow(second, a, func() { two.Add(1) })
	require.EqualValues(t, 1, two.Load(), "told at once of what is known already")

	_, err = client.CoreV1().ConfigMaps("ns").Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", ResourceVersion: "3"}, Data: map[string]string{"k": "v"}}, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return one.Load() == 2 && two.Load() == 2 }, patience, time.Millisecond)
	seen, err := f.ConfigMap(t.Context(), "ns", "a")
	require.NoError(t, err)
	require.Equal(t, "v", seen.Data["k"])

	stopFirst()
	require.NoError(t, client.CoreV1().ConfigMaps("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}))
	require.Eventually(t, func() bool { return two.Load() == 3 }, patience, time.Millisecond)
	_, err = f.ConfigMap(t.Context(), "ns", "a")
	require.True(t, apierrors.IsNotFound(err), "%v", err)
	require.Equal(t, 1, watches(client, "configmaps"))
	require.EqualValues(t, 2, one.Load(), "who has left is not told")

	stopSecond()
	require.Eventually(t, func() bool {
		_, err := f.ConfigMap(t.Context(), "ns", "a")
		return err != nil && !apierrors.IsNotFound(err)
	}, patience, time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.watched, "nothing stays of what nobody follows")
}

func TestImmutableIsWatchedNoMore(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", ResourceVersion: "1"}, Immutable: ptr.To(true), Data: map[string][]byte{"k": []byte("v")}})
	f := NewFollower(client)
	told := make(chan struct{}, 10)
	f.Follow(t.Context(), []Reference{{Secret, "ns", "a"}, {Secret, "ns", "none"}}, func() { told <- struct{}{} })
	<-told
	<-told
	seen, err := f.Secret(t.Context(), "ns", "a")
	require.NoError(t, err)
	require.Equal(t, "v", string(seen.Data["k"]))
	_, err = f.Secret(t.Context(), "ns", "none")
	require.True(t, apierrors.IsNotFound(err), "%v", err)
	require.Eventually(t, func() bool { return watches(client, "secrets") >= 1 }, patience, time.Millisecond, "the missing one is watched")
	f.mu.Lock()
	defer f.mu.Unlock()
	require.True(t, immutable(f.watched[Reference{Secret, "ns", "a"}].object))
}
