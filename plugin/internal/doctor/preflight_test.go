package doctor

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/diagnosis"
)

func TestASentenceBeginsInUpperCase(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "see": "See", "Or see": "Or see", "éteins-le": "Éteins-le", "…": "…"} {
		require.Equal(t, want, diagnosis.Upper(text))
	}
}
