package ossfs

import (
	"regexp"
	"strconv"
)

var version = regexp.MustCompile(`\bV(\d+)\.(\d+)`)

// spools is the first version, of 1.x, that can be told where to put what it has not
// uploaded yet (tmpdir). Older ones put it into /tmp, and end at an option that they do
// not know. Debian 11 has s3fs 1.89, and ossfs 1.80 is still installed in many places.
var spools = map[Helper]int{OSSFS: 91, S3FS: 90}

// Spools reports whether a helper takes Place.Spool, by what it prints at --version.
func Spools(helper Helper, printed string) bool {
	m := version.FindStringSubmatch(printed)
	if m == nil {
		return true
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > 1 || minor >= spools[helper]
}
