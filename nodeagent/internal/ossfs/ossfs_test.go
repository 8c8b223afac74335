package ossfs

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	keyID     = "LTAI5tExampleExample"
	keySecret = "hJ7ExampleExampleExample0"
)

// volume is the vendor's, with other attributes over it.
func volume(with map[string]string) *corev1.CSIPersistentVolumeSource {
	attributes := map[string]string{
		"akId": keyID, "akSecret": keySecret, "bucket": "models",
		"otherOpts": "-o max_stat_cache_size=0 -o allow_other", "url": "oss-cn-beijing-internal.aliyuncs.com",
	}
	for name, value := range with {
		attributes[name] = value
	}
	return &corev1.CSIPersistentVolumeSource{Driver: "ossplugin.csi.alibabacloud.com", VolumeHandle: "oss-csi-pv", VolumeAttributes: attributes}
}

var place = Place{Mountpoint: "/state/mnt", PasswordFile: "/state/private/passwd", Spool: "/state/spool"}

func TestCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		with         map[string]string
		mountOptions []string
		secret       map[string][]byte
		pod          Pod
		at           func(*Place)
	}{
		"vendor":       {},
		"public":       {with: map[string]string{"url": "oss-cn-beijing.aliyuncs.com"}},
		"accelerated":  {with: map[string]string{"url": "oss-accelerate.aliyuncs.com"}},
		"overseas":     {with: map[string]string{"url": "https://oss-accelerate-overseas.aliyuncs.com/"}},
		"http":         {with: map[string]string{"url": "http://oss-cn-beijing.aliyuncs.com"}},
		"internal-tls": {with: map[string]string{"url": "https://oss-cn-beijing-internal.aliyuncs.com"}},
		"s3-endpoint":  {with: map[string]string{"url": "s3.oss-ap-southeast-1.aliyuncs.com"}},
		"name":         {with: map[string]string{"url": "http://storage.example.com:9000"}},
		"address":      {with: map[string]string{"url": "http://10.0.0.7:9000", "otherOpts": ""}},
		"address-v6":   {with: map[string]string{"url": "[fd00::7]", "otherOpts": ""}},
		"path":         {with: map[string]string{"path": "/llm/weights/"}},
		"secret":       {with: map[string]string{"akId": "", "akSecret": ""}, secret: map[string][]byte{"akId": []byte(keyID + "\n"), "akSecret": []byte(keySecret)}},
		"read-only":    {pod: Pod{ReadOnly: true}},
		"fs-group":     {pod: Pod{FSGroup: ptr.To[int64](2000)}},
		"own-group":    {with: map[string]string{"otherOpts": "-ogid=7,umask=0022"}, pod: Pod{FSGroup: ptr.To[int64](2000)}},
		// The path is the vendor's driver's matter, room is told once, and a helper that
		// is too old is not told where its spool is.
		"cached": {
			with: map[string]string{"otherOpts": "-o use_cache=/tmp/ossfs -o del_cache,ensure_diskfree=10 -o allow_other"}, pod: Pod{ReadOnly: true},
			at: func(p *Place) { p.Cache, p.EnsureFree = "/state/bucket-cache/used/uid/data/once", 1<<30 },
		},
		"no-cache-here": {with: map[string]string{"otherOpts": "-o use_cache,free_space_ratio=20"}},
		"signature-v4":  {with: map[string]string{"sigVersion": "v4"}},
		"signature-v1":  {with: map[string]string{"sigversion": "v1", "Path": "/llm"}},
		"region":        {with: map[string]string{"url": "http://storage.example.com", "sigVersion": "v4", "region": "cn-x"}},
		"old":           {at: func(p *Place) { p.Spool = "" }},
		"mount-options": {
			mountOptions: []string{"kernel_cache", "-o retries=3"},
			with:         map[string]string{"otherOpts": "-oendpoint=cn-x,connect_timeout=60 -o use_path_request_style"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket, err := Read(volume(test.with), test.mountOptions, test.secret)
			require.NoError(t, err)
			at := place
			if test.at != nil {
				test.at(&at)
			}
			for _, helper := range Helpers {
				c := bucket.Command(helper, test.pod, at)
				require.Equal(t, helper, c.Helper)
				require.NotContains(t, strings.Join(c.Args, " "), keyID)
				require.NotContains(t, strings.Join(c.Args, " "), keySecret)
				text := strings.Join(c.Args, "\n") + "\n\npassword file:\n" + string(c.Password)
				golden := filepath.Join("testdata", name+"."+string(helper)+".golden")
				if *update {
					require.NoError(t, os.WriteFile(golden, []byte(text), 0o600))
				}
				want, err := os.ReadFile(golden)
				require.NoError(t, err)
				require.Equal(t, string(want), text)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		with         map[string]string
		mountOptions []string
		secret       map[string][]byte
		why          []string
	}{
		"no bucket":        {with: map[string]string{"bucket": ""}, why: []string{`volumeAttributes[bucket] "" is not the name of a bucket`}},
		"an option":        {with: map[string]string{"bucket": "-ofoo"}, why: []string{"is not the name of a bucket"}},
		"a path in it":     {with: map[string]string{"bucket": "a:/etc"}, why: []string{"is not the name of a bucket"}},
		"no endpoint":      {with: map[string]string{"url": ""}, why: []string{"volumeAttributes[url] is missing"}},
		"a file":           {with: map[string]string{"url": "file:///etc/passwd"}, why: []string{"volumeAttributes[url] is not an endpoint"}},
		"a strange scheme": {with: map[string]string{"url": "ftp://host"}, why: []string{`has the scheme "ftp"`}},
		"keys in the url":  {with: map[string]string{"url": "https://" + keyID + ":" + keySecret + "@host"}, why: []string{"is not an endpoint"}},
		"one more option":  {with: map[string]string{"url": "host,credlib=/tmp/x"}, why: []string{"is not an endpoint"}},
		"the bucket twice": {with: map[string]string{"url": "models.oss-cn-beijing.aliyuncs.com"}, why: []string{`write "oss-cn-beijing.aliyuncs.com"`}},
		"password file":    {with: map[string]string{"otherOpts": "-o passwd_file=/etc/shadow"}, why: []string{"passwd_file can't be set here: nodePublishSecretRef decides it"}},
		"url":              {with: map[string]string{"otherOpts": "-ourl=http://elsewhere"}, why: []string{"url can't be set here: url decides it"}},
		"bucket":           {with: map[string]string{"otherOpts": "-o allow_other,bucket=other"}, why: []string{"bucket can't be set here: bucket decides it"}},
		"by mountOptions":  {mountOptions: []string{"host=elsewhere"}, why: []string{"mountOptions: host can't be set here"}},
		"a library":        {with: map[string]string{"otherOpts": "-o credlib=/tmp/evil.so"}, why: []string{`"credlib" can't be set on AI nodes`}},
		"a log":            {with: map[string]string{"otherOpts": "-o logfile=/etc/cron.d/x -o curldbg"}, why: []string{`"logfile" can't be set`, `"curldbg" can't be set`}},
		"set-uid programs": {with: map[string]string{"otherOpts": "-o suid,dev"}, why: []string{`"suid" can't be set`, `"dev" can't be set`}},
		"no option":        {with: map[string]string{"otherOpts": "--help -o"}, why: []string{`"--help" is not an option`, "nothing follows the last -o"}},
		"an escape":        {with: map[string]string{"otherOpts": `-o retries=1\`}, why: []string{"the value of retries holds a quote, a backslash"}},
		"a lost key":       {with: map[string]string{"otherOpts": "-o akSecret=" + keySecret}, why: []string{`"akSecret" can't be set`}},
		"no key":           {with: map[string]string{"akId": "", "akSecret": " "}, why: []string{"volumeAttributes has no akId", "volumeAttributes has no akSecret"}},
		"half a secret":    {secret: map[string][]byte{"akId": []byte(keyID)}, why: []string{"the Secret of nodePublishSecretRef has no akSecret"}},
		"two lines":        {with: map[string]string{"akSecret": "a\nb"}, why: []string{"has an akSecret that is no access key"}},
		"no region":        {with: map[string]string{"url": "http://storage.example.com", "sigVersion": "v4"}, why: []string{"v4 needs volumeAttributes[region]"}},
		"a signature":      {with: map[string]string{"sigVersion": "v2"}, why: []string{`volumeAttributes[sigVersion] "v2" is neither`}},
		"a region":         {with: map[string]string{"region": "a,credlib=/tmp/x"}, why: []string{"is not a region"}},
		"all at once":      {with: map[string]string{"bucket": "", "url": "", "akId": ""}, why: []string{"bucket", "url", "akId"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Read(volume(test.with), test.mountOptions, test.secret)
			for _, why := range test.why {
				require.ErrorContains(t, err, why)
			}
			require.NotContains(t, err.Error(), keySecret)
		})
	}
}

// What one mount has cached another reads only if it may: of the same place, by the same
// keys; and only what nobody could write through.
func TestDigest(t *testing.T) {
	t.Parallel()
	read := func(with map[string]string) Bucket {
		with["otherOpts"] += " -o use_cache"
		bucket, err := Read(volume(with), nil, nil)
		require.NoError(t, err)
		require.True(t, bucket.Cached())
		return bucket
	}
	salt := []byte("salt")
	bucket := read(map[string]string{})
	digest := bucket.Digest(S3FS, salt)
	require.Equal(t, digest, read(map[string]string{"otherOpts": "-o retries=3"}).Digest(S3FS, salt))
	require.NotEqual(t, digest, bucket.Digest(OSSFS, salt))
	require.NotEqual(t, digest, bucket.Digest(S3FS, []byte("other")))
	for name, value := range map[string]string{
		"bucket": "other", "url": "oss-cn-hangzhou.aliyuncs.com", "path": "/llm", "akId": "LTAI5tOther", "akSecret": "other",
	} {
		require.NotEqual(t, digest, read(map[string]string{name: value}).Digest(S3FS, salt), name)
	}
	require.EqualValues(t, 50<<20, bucket.StartRoom())
	require.EqualValues(t, 6<<30, read(map[string]string{"otherOpts": "-o multipart_size=512,parallel_count=12"}).StartRoom())
	require.True(t, bucket.Kept(Pod{ReadOnly: true}))
	require.False(t, bucket.Kept(Pod{}))
	require.False(t, read(map[string]string{"otherOpts": "-o del_cache"}).Kept(Pod{ReadOnly: true}))
}

func TestSpools(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		helper  Helper
		printed string
		spools  bool
	}{
		{S3FS, "Amazon Simple Storage Service File System V1.90 (commit:unknown) with GnuTLS(gcrypt)\n", true},
		{S3FS, "Amazon Simple Storage Service File System V1.89 (commit:unknown) with GnuTLS(gcrypt)\n", false},
		{OSSFS, "Aliyun Open Storage Service File System V1.80.7(commit:0e7a2d5) with OpenSSL\n", false},
		{OSSFS, "Alibaba Cloud Open Storage Service File System V1.91.10 (commit:a056705) with OpenSSL\n", true},
		{S3FS, "Amazon Simple Storage Service File System V2.0 (commit:unknown)\n", true},
		{S3FS, "", true},
	} {
		require.Equal(t, test.spools, Spools(test.helper, test.printed), test.printed)
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	bucket, err := Read(volume(nil), nil, nil)
	require.NoError(t, err)
	for said, why := range map[string]string{
		// What a second try by an older signature is refused for is not the cause.
		"<Code>SignatureDoesNotMatch</Code> … <Code>AccessDenied</Code> … invalid credentials": "its secret is another",
		"<Code>RequestTimeTooSkewed</Code> … <Code>AccessDenied</Code>":                        "set the machine's time",
		"<Code>NoSuchBucket</Code> … bucket or key not found":                                  `there is no bucket "models"`,
		"<Code>AccessDenied</Code>":                 "give it the right to list and read",
		"### CURLE_COULDNT_RESOLVE_HOST":            "finds no address for oss-cn-beijing-internal.aliyuncs.com",
		"### CURLE_COULDNT_CONNECT … giving up":     "does not answer this machine",
		"fuse: device not found, try 'modprobe fus": "modprobe fuse",
		"fuse: unknown option `a=1'":                "check otherOpts",
		"Segmentation fault":                        "look at it on the machine",
	} {
		require.Contains(t, bucket.Cause(said), why)
	}
	require.Equal(t, "a (key) and (key)", bucket.Redact("a "+keyID+" and "+keySecret))
}
