package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	names = []string{"ainode-webhook.ainode-system.svc"}
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func renew(t *testing.T, data map[string][]byte, now time.Time) (map[string][]byte, bool) {
	t.Helper()
	renewed, changed, err := Renew(data, names, now)
	require.NoError(t, err)
	return renewed, changed
}

// trusts reports whether an API server that knows bundle accepts what data serves.
func trusts(t *testing.T, bundle []byte, data map[string][]byte, now time.Time) bool {
	t.Helper()
	pair, err := tls.X509KeyPair(data[keyCert], data[keyKey])
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(bundle))
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: names[0], CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err == nil
}

func TestFirstCertificate(t *testing.T) {
	t.Parallel()
	data, changed := renew(t, nil, start)
	require.True(t, changed)
	require.True(t, trusts(t, data[keyCACert], data, start))
	again, changed := renew(t, data, start.Add(time.Hour))
	require.False(t, changed)
	require.Equal(t, data, again)
}

func TestDamageIsRepaired(t *testing.T) {
	t.Parallel()
	sound, _ := renew(t, nil, start)
	foreign, _ := renew(t, nil, start)
	for name, damage := range map[string]func(map[string][]byte){
		"no CA":       func(d map[string][]byte) { delete(d, keyCACert) },
		"no CA key":   func(d map[string][]byte) { delete(d, keyCAKey) },
		"junk":        func(d map[string][]byte) { d[keyCAKey], d[keyCert] = []byte("x"), []byte("x") },
		"foreign key": func(d map[string][]byte) { d[keyCAKey] = foreign[keyCAKey] },
		"other leaf":  func(d map[string][]byte) { d[keyCert], d[keyKey] = foreign[keyCert], foreign[keyKey] },
		"no leaf key": func(d map[string][]byte) { delete(d, keyKey) },
	} {
		data := maps.Clone(sound)
		damage(data)
		renewed, changed := renew(t, data, start)
		require.True(t, changed, name)
		require.True(t, trusts(t, renewed[keyCACert], renewed, start), name)
	}
	other, changed, err := Renew(sound, []string{"another.ns.svc"}, start)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, sound[keyCACert], other[keyCACert])
}

// Whoever takes the CA's key out of the Secret gets a new CA, and no handshake
// fails for it: the old one is trusted on until the new one is known.
func TestCAWithoutItsKeyIsFollowed(t *testing.T) {
	t.Parallel()
	data, _ := renew(t, nil, start)
	asked := maps.Clone(data)
	delete(asked, keyCAKey)
	renewed, changed := renew(t, asked, start)
	require.True(t, changed)
	require.True(t, bytes.HasSuffix(renewed[keyCACert], data[keyCACert]))
	require.Equal(t, data[keyCert], renewed[keyCert])
	require.True(t, trusts(t, data[keyCACert], renewed, start), "shown before it is known")

	settled, changed := renew(t, renewed, start.Add(settle+skew+time.Minute))
	require.True(t, changed)
	require.NotEqual(t, data[keyCert], settled[keyCert])
	require.True(t, trusts(t, renewed[keyCACert], settled, start.Add(2*time.Hour)))
}

// Over thirty years, looked at again and again: every handshake succeeds, also against
// API servers that learn of a new bundle half an hour late.
func TestRotationDropsNoHandshake(t *testing.T) {
	t.Parallel()
	data, _ := renew(t, nil, start)
	known := data[keyCACert]
	bundles := 1
	for now := start; now.Before(start.AddDate(30, 0, 0)); now = now.Add(20 * 24 * time.Hour) {
		for _, later := range []time.Duration{0, 30 * time.Minute, settle + skew + time.Minute} {
			at := now.Add(later)
			renewed, changed := renew(t, data, at)
			if changed && !bytes.Equal(renewed[keyCACert], known) {
				bundles++
				require.True(t, trusts(t, known, renewed, at), "%s: shown before it is known", at)
			}
			require.True(t, trusts(t, renewed[keyCACert], renewed, at), at)
			require.True(t, trusts(t, known, renewed, at), at)
			data, known = renewed, renewed[keyCACert]
		}
	}
	require.Greater(t, bundles, 4)
	require.LessOrEqual(t, len(parse(data[keyCACert])), 3, "expired CAs go")
}
