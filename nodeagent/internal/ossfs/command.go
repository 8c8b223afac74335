package ossfs

import (
	"slices"
	"strconv"
)

// Helper is a program that mounts buckets.
type Helper string

// The helpers, the better first: the vendor's own, and the distributions'.
const (
	OSSFS Helper = "ossfs"
	S3FS  Helper = "s3fs"
)

// Helpers in the order in which they are looked for.
var Helpers = []Helper{OSSFS, S3FS}

// Pod is what the pod decides of its mount.
type Pod struct {
	// ReadOnly: none of its containers may write.
	ReadOnly bool
	// FSGroup of its security context; nil if it has none.
	FSGroup *int64
}

// Place is where a mount has its parts.
type Place struct {
	// Mountpoint is an empty directory.
	Mountpoint string
	// PasswordFile holds Command.Password, mode 0600.
	PasswordFile string
	// Spool is a directory for what is not uploaded yet: it may grow large. Empty for a
	// helper that can't be told.
	Spool string
	// Cache is a directory for what was read, empty if nothing is to be kept.
	Cache string
	// EnsureFree is how much of Cache's disk stays free, in bytes.
	EnsureFree int64
}

// Command is a helper's command.
type Command struct {
	Helper Helper
	Args   []string
	// Password is the content of the password file.
	Password []byte
}

// connectTimeout in seconds is the helpers' own 300 cut to what a person waits for.
const connectTimeout = "10"

// Command is how helper mounts the bucket for the pod. The helper stays in the
// foreground, so that it is seen when it ends, and tells errors alone.
func (b Bucket) Command(helper Helper, pod Pod, at Place) Command {
	what := b.name
	if b.path != "/" {
		what += ":" + b.path
	}
	c := Command{Helper: helper, Args: []string{what, at.Mountpoint, "-f"}}
	// The volume's first: of two alike, helpers take the last.
	set := slices.DeleteFunc(slices.Clone(b.options), func(o option) bool { return helper == S3FS && o.name == "sigv1" }) // S3 has none
	if at.Cache != "" {
		// A helper that is told of room twice ends (ossfs 1.91).
		set = slices.DeleteFunc(set, func(o option) bool { return room[o.name] })
		set = append(set, option{"use_cache", at.Cache}, option{"ensure_diskfree", strconv.FormatInt(at.EnsureFree>>20, 10)})
	}
	set = append(set, b.fixed(helper, pod, at)...)
	seen := map[option]bool{}
	for _, o := range set {
		if !seen[o] {
			c.Args = append(c.Args, "-o", o.String())
		}
		seen[o] = true
	}
	c.Password = []byte(b.keyID + ":" + b.keySecret + "\n")
	if helper == OSSFS {
		c.Password = []byte(b.name + ":" + b.keyID + ":" + b.keySecret + "\n")
	}
	return c
}

// fixed are the options that no volume decides, and defaults for those that it has
// left open.
func (b Bucket) fixed(helper Helper, pod Pod, at Place) []option {
	set := []option{{"url", b.endpoint.forHelper(helper)}, {"passwd_file", at.PasswordFile}}
	if at.Spool != "" {
		set = append(set, option{"tmpdir", at.Spool})
	}
	set = append(set, []option{
		{"dbglevel", "err"},
		// Whatever user a container has: the mount is in its pod alone.
		{"allow_other", ""},
		// A bucket may hold anything.
		{"nosuid", ""}, {"nodev", ""},
	}...)
	if b.endpoint.address() && !has(b.options, "use_path_request_style") {
		set = append(set, option{"use_path_request_style", ""})
	}
	if helper == S3FS && b.endpoint.region != "" && !has(b.options, "endpoint") {
		set = append(set, option{"endpoint", b.endpoint.region})
	}
	if helper == OSSFS && has(b.options, "sigv4") && !has(b.options, "region") && b.endpoint.region != "" {
		set = append(set, option{"region", b.endpoint.region})
	}
	if !has(b.options, "connect_timeout") {
		set = append(set, option{"connect_timeout", connectTimeout})
	}
	if pod.ReadOnly {
		set = append(set, option{"ro", ""})
	}
	// Helpers look users' groups up on the machine and never see a container's
	// supplementary groups: for the fsGroup to get in, everybody in the pod must.
	if pod.FSGroup != nil && !has(b.options, "uid", "gid", "umask") {
		set = append(set, option{"gid", strconv.FormatInt(*pod.FSGroup, 10)}, option{"umask", "0000"})
	}
	return set
}
