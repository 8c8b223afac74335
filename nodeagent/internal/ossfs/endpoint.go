package ossfs

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// endpoint is where a bucket is asked for.
type endpoint struct {
	scheme string
	// host with a port where one was given.
	host string
	// region that signatures are made for; empty where the host does not tell it.
	region string
	// vendor: it is one of the vendor's.
	vendor bool
}

// vendorHost is an endpoint of the vendor: a region's, public or internal, or an
// accelerated one. With s3. before it, it speaks S3.
var vendorHost = regexp.MustCompile(`^(?:s3\.)?oss-([a-z0-9-]+?)(-internal)?\.aliyuncs\.com$`)

// readEndpoint reads a url with or without a scheme. Without one an internal endpoint
// is asked by http, since it never leaves the vendor's network, and any other by https.
func readEndpoint(text, bucket string) (endpoint, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return endpoint{}, errors.New("is missing: name the endpoint, such as oss-cn-beijing-internal.aliyuncs.com")
	}
	given := strings.Contains(text, "://")
	if !given {
		text = "//" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		// Not quoted: what stands there may be a password.
		return endpoint{}, errors.New("is not an endpoint: it must be [http[s]://]HOST[:PORT]")
	}
	host := strings.ToLower(u.Host)
	if strings.HasPrefix(host, bucket+".") && bucket != "" {
		return endpoint{}, fmt.Errorf("%q begins with the bucket's name, which stands before it by itself: write %q", host, strings.TrimPrefix(host, bucket+"."))
	}
	if strings.ContainsAny(host, ", \\") || strings.ContainsFunc(host, isControl) {
		return endpoint{}, errors.New("is not an endpoint: it must be [http[s]://]HOST[:PORT]")
	}
	e := endpoint{scheme: u.Scheme, host: host}
	internal := false
	if m := vendorHost.FindStringSubmatch(host); m != nil {
		e.vendor, internal = true, m[2] != ""
		if !strings.HasPrefix(m[1], "accelerate") {
			e.region = m[1]
		}
	}
	switch {
	case given && e.scheme != "http" && e.scheme != "https":
		return endpoint{}, fmt.Errorf("has the scheme %q: it must be http or https", e.scheme)
	case given:
	case internal:
		e.scheme = "http"
	default:
		e.scheme = "https"
	}
	return e, nil
}

// address reports whether the host is an address: nothing can stand before it, so the
// bucket stands in the path. Names have the bucket before them, since the vendor's
// refuse the other way.
func (e endpoint) address() bool {
	host := e.host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return net.ParseIP(strings.Trim(host, "[]")) != nil
}

// forHelper is the URL as the helper is to have it.
func (e endpoint) forHelper(h Helper) string {
	host := e.host
	if h == S3FS && e.vendor && !strings.HasPrefix(host, "s3.") {
		host = "s3." + host // where the vendor speaks S3
	}
	return e.scheme + "://" + host
}
