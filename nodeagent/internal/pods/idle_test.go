//go:build long

package pods

import (
	"testing"
	"time"
)

// TestStreamsIdleForAnHour leaves every kind of stream alone for longer than an hour.
func TestStreamsIdleForAnHour(t *testing.T) {
	t.Parallel()
	talk(t, 61*time.Minute)
}
