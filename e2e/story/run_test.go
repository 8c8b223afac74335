package story

import (
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// testRun: one command runs an image with a card and what is typed at it, tells what the
// pod waits for and what the webhook changes, ends as the container does, and leaves no
// pod that holds the card.
func (s *Story) testRun(t *testing.T) {
	// What is printed right after the input was read may come before the output is attached.
	const program = "read line; sleep 1; echo got $line; nvidia-smi -L; exit 3"
	_, err := s.run(t.Context(), "a line\n", false, s.bin("kubectl"), "ainode", "run", "try", "--image", toolsImage, "--image-pull-policy=Never",
		"--node", Node, "--restart=Never", "-i", "--rm", "--command", "--", "sh", "-c", program)
	var failed *Failed
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 3, failed.Code, "%v", err)
	require.Contains(t, failed.Stdout, "got a line")
	cards := regexp.MustCompile(`GPU-[0-9a-f-]+`).FindAllString(failed.Stdout, -1)
	slices.Sort(cards)
	require.Len(t, slices.Compact(cards), 1, failed.Stdout)
	for _, told := range []string{`(?m)^Scheduled +Successfully assigned default/try to ` + Node, `(?m)^Warning: placement: `, `(?m)^error: pod default/try terminated \(Error\)$`} {
		require.Regexp(t, told, failed.Stderr)
	}
	require.Contains(t, s.refused(t, "get", "pod", "try"), "NotFound")
}
