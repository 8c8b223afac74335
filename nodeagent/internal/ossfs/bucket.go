// Package ossfs turns what a PersistentVolume says of a bucket into the
// command of a FUSE helper, and what a helper said into a cause and its fix. It is
// pure: it starts nothing and writes nothing.
package ossfs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The names of volumeAttributes, and of the keys in a nodePublishSecretRef's Secret,
// as the vendor's driver has them. It does not mind how attributes' names are written in
// capitals.
const (
	attributeBucket    = "bucket"
	attributeURL       = "url"
	attributeOptions   = "otherOpts"
	attributePath      = "path"
	attributeKeyID     = "akId"
	attributeKeySecret = "akSecret"
	attributeRegion    = "region"
	attributeSignature = "sigVersion"
)

// Bucket is what is to be mounted.
type Bucket struct {
	name string
	// path in the bucket, "/" for all of it.
	path     string
	endpoint endpoint
	options  []option
	// cached: a cache is asked for; forgotten: it must not outlive the mount.
	cached, forgotten bool
	// keyID and keySecret stand in the password file alone.
	keyID, keySecret string
}

// bucketName is what object stores allow, and nothing that a helper could take for
// an option or a path.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Read reads the volume. secret is the content of its nodePublishSecretRef, nil where
// it has none; it wins over the attributes. mountOptions are the PersistentVolume's.
// The error tells of all that is wrong, and of no key.
func Read(source *corev1.CSIPersistentVolumeSource, mountOptions []string, secret map[string][]byte) (Bucket, error) {
	a := attributes{}
	for name, value := range source.VolumeAttributes {
		a[strings.ToLower(name)] = value
	}
	b := Bucket{name: strings.TrimSpace(a.get(attributeBucket)), path: path.Join("/", a.get(attributePath))}
	var wrong []error
	if !bucketName.MatchString(b.name) {
		wrong = append(wrong, fmt.Errorf("volumeAttributes[%s] %q is not the name of a bucket", attributeBucket, b.name))
	}
	if strings.ContainsFunc(b.path, isControl) {
		wrong = append(wrong, fmt.Errorf("volumeAttributes[%s] %q holds a control character", attributePath, b.path))
	}
	var err error
	if b.endpoint, err = readEndpoint(a.get(attributeURL), b.name); err != nil {
		wrong = append(wrong, fmt.Errorf("volumeAttributes[%s] %w", attributeURL, err))
	}
	other, err := readOptions(a.get(attributeOptions))
	if err != nil {
		wrong = append(wrong, fmt.Errorf("volumeAttributes[%s]: %w", attributeOptions, err))
	}
	listed, err := readMountOptions(mountOptions)
	if err != nil {
		wrong = append(wrong, fmt.Errorf("mountOptions: %w", err))
	}
	signing, err := b.readSignature(a)
	if err != nil {
		wrong = append(wrong, err)
	}
	b.readOptions(append(append(listed, signing...), other...))
	if err := b.readKeys(a, secret); err != nil {
		wrong = append(wrong, err)
	}
	return b, errors.Join(wrong...)
}

// attributes of a volume by their names in small letters.
type attributes map[string]string

func (a attributes) get(name string) string { return a[strings.ToLower(name)] }

// regionName is as the vendor has them.
var regionName = regexp.MustCompile(`^[a-z0-9-]+$`)

// readSignature reads the region that requests are signed for, where the endpoint does
// not tell it, and how. ossfs signs as it always did where it is not told (v1); the
// vendor's newer accounts take v4 alone, which ossfs knows from 1.91.4 on.
func (b *Bucket) readSignature(a attributes) (options []option, err error) {
	if region := strings.TrimSpace(a.get(attributeRegion)); region != "" {
		if !regionName.MatchString(region) {
			return nil, fmt.Errorf("volumeAttributes[%s] %q is not a region", attributeRegion, region)
		}
		b.endpoint.region = region
	}
	switch version := strings.TrimSpace(a.get(attributeSignature)); version {
	case "":
		return nil, nil
	case "v1":
		return []option{{"sigv1", ""}}, nil
	case "v4":
		if b.endpoint.region == "" {
			return nil, fmt.Errorf("volumeAttributes[%s] v4 needs volumeAttributes[%s], which the endpoint does not tell", attributeSignature, attributeRegion)
		}
		return []option{{"sigv4", ""}}, nil
	default:
		return nil, fmt.Errorf("volumeAttributes[%s] %q is neither v1 nor v4", attributeSignature, version)
	}
}

func (b *Bucket) readKeys(a attributes, secret map[string][]byte) error {
	from := "volumeAttributes"
	b.keyID, b.keySecret = a.get(attributeKeyID), a.get(attributeKeySecret)
	if secret != nil {
		from = "the Secret of nodePublishSecretRef"
		b.keyID, b.keySecret = string(secret[attributeKeyID]), string(secret[attributeKeySecret])
	}
	// As people paste them, and as `echo KEY | base64` has them.
	b.keyID, b.keySecret = strings.TrimSpace(b.keyID), strings.TrimSpace(b.keySecret)
	var wrong []error
	for _, k := range []struct{ name, value string }{{attributeKeyID, b.keyID}, {attributeKeySecret, b.keySecret}} {
		switch {
		case k.value == "":
			wrong = append(wrong, fmt.Errorf("%s has no %s: name a Secret with %s and %s in nodePublishSecretRef", from, k.name, attributeKeyID, attributeKeySecret))
		case strings.ContainsFunc(k.value, isControl) || strings.ContainsAny(k.value, ": "):
			// It would be another line, or another field, of the password file.
			wrong = append(wrong, fmt.Errorf("%s has an %s that is no access key: it holds a space, a colon or a control character", from, k.name))
		}
	}
	return errors.Join(wrong...)
}

// readOptions keeps what is for the helper apart from what asks for a cache.
func (b *Bucket) readOptions(all []option) {
	for _, o := range all {
		if !caching[o.name] {
			b.options = append(b.options, o)
		}
	}
	b.cached, b.forgotten = has(all, "use_cache"), has(all, "del_cache")
}

// Cached reports whether the volume asks for a cache on the machine's disk: otherOpts
// hold use_cache, with whatever path.
func (b Bucket) Cached() bool { return b.cached }

// Kept reports whether what a mount of the pod has cached may serve the next one. Not
// if anything was written through it: a helper that fails to upload a file believes its
// own copy. Nor if the volume says so (del_cache).
func (b Bucket) Kept(pod Pod) bool { return b.cached && !b.forgotten && pod.ReadOnly }

// StartRoom is how much more than Place.EnsureFree must be free on the cache's disk for a
// helper to start, in bytes: multipart_size times parallel_count.
func (b Bucket) StartRoom() int64 {
	megabytes, count := int64(10), int64(5) // the helpers' own
	for _, o := range b.options {
		if n, err := strconv.ParseInt(o.value, 10, 32); err == nil && o.name == "multipart_size" {
			megabytes = n
		} else if err == nil && o.name == "parallel_count" {
			count = n
		}
	}
	return megabytes * count << 20
}

// Digest is the same for two mounts if what one has cached is what the other may read:
// of the same place, by the same keys. Nobody finds them by it who has no salt.
func (b Bucket) Digest(helper Helper, salt []byte) string {
	mac := hmac.New(sha256.New, salt)
	for _, part := range []string{string(helper), b.endpoint.forHelper(helper), b.name, b.path, b.keyID, b.keySecret} {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// Host is where the bucket is asked for, for messages.
func (b Bucket) Host() string { return b.endpoint.host }

// Redact takes the keys out of a text that somebody may read.
func (b Bucket) Redact(text string) string {
	for _, key := range []string{b.keySecret, b.keyID} {
		if key != "" {
			text = strings.ReplaceAll(text, key, "(key)")
		}
	}
	return text
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
