package podrange

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                    "is no range",
		"10.64.3.0":           "is no range",
		"10.64.3.0/33":        "is no range",
		"10.64.3.7/24":        "the range itself is 10.64.3.0/24",
		"fd00::/64":           "IPv6",
		"::ffff:10.0.0.0/104": "IPv6",
		"10.0.0.0/7":          "not between /8 and /29",
		"0.0.0.0/0":           "not between /8 and /29",
		"10.64.3.0/30":        "not between /8 and /29",
		"127.0.0.0/8":         "no addresses that pods could have",
		"169.254.0.0/16":      "no addresses that pods could have",
		"224.0.0.0/8":         "no addresses that pods could have",
		"240.0.0.0/8":         "no addresses that pods could have",
		"0.0.0.0/8":           "no addresses that pods could have",
	} {
		_, err := Parse(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	for text, pods := range map[string]int{"10.64.3.0/24": 252, "10.64.3.0/29": 4, "10.0.0.0/8": 1 << 16} {
		r, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, text, r.String())
		require.Equal(t, pods, r.Pods(), text)
	}
	r, err := Parse("10.64.3.0/24")
	require.NoError(t, err)
	require.Equal(t, "10.64.3.1", r.Gateway().String())
	require.False(t, r.IsZero())
	require.True(t, Range{}.IsZero())
	require.Empty(t, Range{}.String())
}
