package images

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// credential opens a registry, or a part of it.
type credential struct {
	username, password string
	// from is the secret that holds it; its hash is not filled in.
	from holder
}

// hash tells credentials apart without keeping them.
func (c credential) hash() string {
	sum := sha256.Sum256([]byte(c.username + "\x00" + c.password))
	return hex.EncodeToString(sum[:])
}

// holder is the secret with the credential's hash.
func (c credential) holder() holder {
	h := c.from
	h.Hash = c.hash()
	return h
}

// secrets are the strings that must not be shown.
func (c credential) secrets() []string {
	return []string{
		c.password,
		base64.StdEncoding.EncodeToString([]byte(c.username + ":" + c.password)),
	}
}

// keyring holds credentials by what they open: HOST[:PORT][/PATH], where parts of
// HOST may be patterns. Matching is the kubelet's (pkg/credentialprovider).
type keyring struct{ entries []entry }

type entry struct {
	opens string
	credential
}

// dockerEntry is one registry in a docker configuration.
type dockerEntry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
}

// add takes the credentials of a pull secret; a secret of another type has none.
// The error does not quote what is in it.
func (k *keyring) add(secret *corev1.Secret) error {
	var auths map[string]dockerEntry
	var err error
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]dockerEntry `json:"auths"`
		}
		if json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config) != nil {
			err = fmt.Errorf("image pull secret %q: its %s is not a docker configuration", secret.Name, corev1.DockerConfigJsonKey)
		}
		auths = config.Auths
	case corev1.SecretTypeDockercfg:
		if json.Unmarshal(secret.Data[corev1.DockerConfigKey], &auths) != nil {
			err = fmt.Errorf("image pull secret %q: its %s is not a docker configuration", secret.Name, corev1.DockerConfigKey)
		}
	}
	if err != nil {
		return err
	}
	for _, registry := range slices.Sorted(maps.Keys(auths)) {
		e := auths[registry]
		from := holder{UID: secret.UID, Namespace: secret.Namespace, Name: secret.Name}
		c := credential{username: e.Username, password: e.Password, from: from}
		if e.Auth != "" {
			username, password, ok := decodeAuth(e.Auth)
			if !ok {
				return fmt.Errorf("image pull secret %q: the auth of registry %q is not base64 of USER:PASSWORD", secret.Name, registry)
			}
			c = credential{username: username, password: password, from: from}
		}
		k.entries = append(k.entries, entry{opens: opens(registry), credential: c})
	}
	// The most specific comes first: a longer path sorts after a shorter one.
	slices.SortStableFunc(k.entries, func(a, b entry) int {
		return cmp.Compare(b.opens, a.opens)
	})
	return nil
}

func decodeAuth(auth string) (username, password string, ok bool) {
	encoding := base64.StdEncoding
	if !strings.HasSuffix(strings.TrimSpace(auth), "=") && len(strings.TrimSpace(auth))%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	raw, err := encoding.DecodeString(strings.TrimSpace(auth))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), ":")
}

// opens cuts a registry's name as docker writes it down to HOST[:PORT][/PATH];
// /v1/ and /v2/ stand for the whole host.
func opens(registry string) string {
	registry = strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://")
	host, rest, _ := strings.Cut(registry, "/")
	rest = "/" + rest
	if strings.HasPrefix(rest, "/v1/") || strings.HasPrefix(rest, "/v2/") {
		rest = rest[len("/v1"):]
	}
	if rest == "/" {
		return host
	}
	return host + rest
}

// dockerHub is what docker calls its own registry in configurations; images of it
// are named docker.io.
const dockerHub = "index.docker.io"

// find returns the credentials that may open the repository (a full name, registry
// first), the most specific first.
func (k *keyring) find(repository string) []credential {
	var found []credential
	for _, e := range k.entries {
		if matches(e.opens, repository) {
			found = append(found, e.credential)
		}
	}
	if found == nil && strings.HasPrefix(repository, "docker.io/") {
		for _, e := range k.entries {
			if e.opens == dockerHub {
				found = append(found, e.credential)
			}
		}
	}
	return found
}

// matches compares host name part by part with patterns, ports exactly, and the
// path as a prefix.
func matches(pattern, repository string) bool {
	patternHost, patternPath, _ := strings.Cut(pattern, "/")
	host, rest, _ := strings.Cut(repository, "/")
	if !strings.HasPrefix(rest, patternPath) {
		return false
	}
	patternName, patternPort := splitPort(patternHost)
	name, port := splitPort(host)
	patternParts, parts := strings.Split(patternName, "."), strings.Split(name, ".")
	if patternPort != port || len(patternParts) != len(parts) {
		return false
	}
	for i := range parts {
		if ok, err := path.Match(patternParts[i], parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return host, ""
	}
	return name, port
}
