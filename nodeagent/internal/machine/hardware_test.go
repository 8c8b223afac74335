package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOtherHardware(t *testing.T) {
	t.Parallel()
	was := Hardware{ProductUUID: "p1", GPUs: []string{"a", "b"}}
	for name, c := range map[string]struct {
		was, now Hardware
		other    bool
	}{
		"the same":                    {was, was, false},
		"nothing was known":           {Hardware{}, was, false},
		"nothing is known":            {was, Hardware{}, false},
		"a card replaced":             {was, Hardware{ProductUUID: "p1", GPUs: []string{"a", "c"}}, false},
		"all cards replaced":          {was, Hardware{ProductUUID: "p1", GPUs: []string{"c"}}, false},
		"the board replaced":          {was, Hardware{ProductUUID: "p2", GPUs: []string{"b"}}, false},
		"the driver is silent":        {was, Hardware{ProductUUID: "p1"}, false},
		"another machine":             {was, Hardware{ProductUUID: "p2", GPUs: []string{"c", "d"}}, true},
		"another machine, no driver":  {was, Hardware{ProductUUID: "p2"}, true},
		"another machine without DMI": {Hardware{GPUs: []string{"a"}}, Hardware{GPUs: []string{"c"}}, true},
		"DMI can't be read any more":  {was, Hardware{GPUs: []string{"a"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.other, c.was.Other(c.now))
		})
	}
	require.Equal(t, was, was.With(Hardware{}))
	require.Equal(t, Hardware{ProductUUID: "p1", GPUs: []string{"c"}}, was.With(Hardware{GPUs: []string{"c"}}))
}
