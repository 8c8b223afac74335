package gpuhealth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func TestACardComesBackAfterItsProbation(t *testing.T) {
	t.Parallel()
	r := record{}.fault(start, "b1", Fault{Class: Reset, Message: "first"})
	require.True(t, r.back(start.Add(probation-1), "b1").Out)
	r = r.fault(start.Add(probation-1), "b1", Fault{Class: Reset, Message: "again"})
	require.True(t, r.back(start.Add(probation), "b1").Out, "it was not quiet")
	require.Equal(t, "first", r.Text)
	at := start.Add(2 * probation)
	r = r.back(at, "b1")
	require.False(t, r.Out)

	r = r.fault(at.Add(time.Hour), "b1", Fault{Class: Reset, Message: "relapse"})
	require.Equal(t, 2*probation, r.probation())
	require.Equal(t, at.Add(time.Hour), r.Since)
	r = r.back(at.Add(2*time.Hour), "b1").fault(at.Add(100*time.Hour), "b1", Fault{Class: Reset, Message: "much later"})
	require.Equal(t, probation, r.probation(), "it begins anew")
	r.Times = 50
	require.Equal(t, longestProbation, r.probation())
}

func TestWorseClassesNeedMore(t *testing.T) {
	t.Parallel()
	late := start.Add(1000 * time.Hour)
	drained := record{}.fault(start, "b1", Fault{Class: Reset, Message: "reset"}).fault(start, "b1", Fault{Class: Drain, Message: "drain"}).fault(start, "b1", Fault{Class: Reset, Message: "reset"})
	require.Equal(t, "drain", drained.Text, "the worst counts")
	require.True(t, drained.back(late, "b1").Out)
	require.False(t, drained.back(late, "b2").Out, "the machine has booted")
	require.True(t, record{}.fault(start, "b1", Fault{Class: Replace, Message: ""}).back(late, "b2").Out)
	require.False(t, record{}.back(late, "b2").Out)
}

func TestTheCatalogue(t *testing.T) {
	t.Parallel()
	for number, class := range map[uint64]Class{
		13: Application, 31: Application, 43: Application, 45: Application, 63: Application, 94: Application,
		48: Reset, 62: Reset, 64: Reset, 74: Reset, 95: Reset, 109: Reset, 119: Reset, 140: Reset, 145: Reset,
		79: Drain, 151: Drain, 54: Replace, 142: Replace, 9999: Reset,
	} {
		require.Equal(t, class, describe(number).Class, "XID %d", number)
	}
	for number, x := range Catalogue {
		require.NotEmpty(t, x.Text, number)
		require.Contains(t, []Class{Application, Reset, Drain, Replace}, x.Class, number)
	}
}
