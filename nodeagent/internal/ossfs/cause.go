package ossfs

import (
	"fmt"
	"strings"
)

// causes are what object stores and helpers say, in the order in which they decide: a
// helper that is refused tries an older signature, and tells of that refusal too. The
// codes are S3's and OSS's error codes, CURLE_ ones curl's as both helpers print them.
var causes = []struct {
	said []string
	why  func(b Bucket) string
}{
	{[]string{"RequestTimeTooSkewed"}, func(b Bucket) string {
		return fmt.Sprintf("this machine's clock differs too much from that of %s: set the machine's time (timedatectl set-ntp true)", b.Host())
	}},
	{[]string{"NoSuchBucket"}, func(b Bucket) string {
		return fmt.Sprintf("there is no bucket %q at %s: check bucket and url in the PersistentVolume", b.name, b.Host())
	}},
	{[]string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound", "InvalidSecurityToken"}, func(b Bucket) string {
		return fmt.Sprintf("%s does not know the access key, or its secret is another: check akId and akSecret", b.Host())
	}},
	{[]string{"SecondLevelDomainForbidden"}, func(b Bucket) string {
		return fmt.Sprintf("%s wants the bucket's name before its own: leave use_path_request_style out", b.Host())
	}},
	{[]string{"AccessDenied", "AccountProblem", "invalid credentials"}, func(b Bucket) string {
		return fmt.Sprintf("the access key may not read bucket %q at %s: give it the right to list and read the bucket", b.name, b.Host())
	}},
	{[]string{"CURLE_COULDNT_RESOLVE_HOST"}, func(b Bucket) string {
		return fmt.Sprintf("this machine finds no address for %s: check url in the PersistentVolume, and the machine's name servers", b.Host())
	}},
	{[]string{"CURLE_SSL", "CURLE_PEER_FAILED_VERIFICATION"}, func(b Bucket) string {
		return fmt.Sprintf("this machine does not trust the certificate of %s: check url, or add its authority to the machine's", b.Host())
	}},
	{[]string{"CURLE_COULDNT_CONNECT", "CURLE_OPERATION_TIMEDOUT", "unable to connect"}, func(b Bucket) string {
		return fmt.Sprintf("%s does not answer this machine: check url in the PersistentVolume and the way there; an internal endpoint is reached from its own region's network alone", b.Host())
	}},
	{[]string{"fuse: device not found", "failed to open /dev/fuse", "fuse: failed to open"}, func(Bucket) string {
		return NoFUSE
	}},
	{[]string{"no enough disk space"}, func(Bucket) string {
		return "the machine's disk has no room for what the helper has to keep: free some, or set --bucket-cache-size of ainode-agent higher (df -h shows both)"
	}},
	{[]string{"fuse: unknown option"}, func(Bucket) string {
		return "the helper does not know an option of the volume: check otherOpts and mountOptions in the PersistentVolume"
	}},
}

// NoFUSE says that the machine's kernel has no FUSE.
const NoFUSE = "this machine has no FUSE device: load the kernel's module (modprobe fuse) and check /dev/fuse"

// NoHelper says that no helper is installed.
const NoHelper = "neither ossfs nor s3fs is installed on this machine: install one (apt-get install s3fs)"

// Cause says why a helper failed and what to do, from what it said. It holds no key and
// nothing that differs from one try to the next.
func (b Bucket) Cause(said string) string {
	for _, c := range causes {
		for _, word := range c.said {
			if strings.Contains(said, word) {
				return c.why(b)
			}
		}
	}
	return "the helper could not mount it, and did not say why in words that are known here: look at it on the machine"
}
