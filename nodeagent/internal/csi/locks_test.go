package csi

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLocksThatNobodyHasAreForgotten(t *testing.T) {
	t.Parallel()
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	require.NoError(t, err)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.lock(gone, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, l.all, 1, "it is held still")
	next := make(chan func())
	go func() {
		unlock, _ := l.lock(context.Background(), "a")
		next <- unlock
	}()
	unlock()
	(<-next)()
	require.Empty(t, l.all)
}
