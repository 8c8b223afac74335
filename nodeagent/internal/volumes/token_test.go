package volumes

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"
)

// issuer gives tokens of an hour, while it is there.
type issuer struct {
	away   error
	issued int
}

func (i *issuer) Token(_ context.Context, _, _ string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if i.away != nil {
		return nil, i.away
	}
	i.issued++
	answer := request.DeepCopy()
	answer.Status.Token = fmt.Sprintf("token-%d", i.issued)
	return answer, nil
}

// The API is away for longer than a token lives: the old one serves as long as it can,
// a new one is asked for every minute, and had within one.
func TestATokenOverAnOutage(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	clock := testclock.NewFakeClock(began)
	source := &issuer{}
	cache := &tokenCache{clock: clock}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "app", UID: "uid"}}
	at := func(minute int) (string, time.Duration, error) {
		clock.SetTime(began.Add(time.Duration(minute) * time.Minute))
		answer, renew, err := cache.get(t.Context(), source, "ns", "sa", podToken(pod, "", nil))
		if err != nil {
			return "", renew.Sub(clock.Now()), err
		}
		return answer.Status.Token, renew.Sub(clock.Now()), nil
	}
	token, next, err := at(0)
	require.NoError(t, err)
	require.Equal(t, "token-1", token)
	require.Equal(t, 48*time.Minute, next)

	source.away = errors.New("connection refused")
	for minute := 48; minute < 60; minute++ {
		token, next, err = at(minute)
		require.NoError(t, err)
		require.Equal(t, "token-1", token)
		require.Equal(t, time.Minute, next)
	}
	for minute := 60; minute < 75; minute++ {
		_, next, err = at(minute)
		require.ErrorIs(t, err, source.away, "it has expired")
		require.Equal(t, time.Minute, next)
	}
	source.away = nil
	token, next, err = at(75)
	require.NoError(t, err)
	require.Equal(t, "token-2", token)
	require.Equal(t, 48*time.Minute, next, "as if nothing had been")
}
