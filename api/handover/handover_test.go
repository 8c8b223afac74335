package handover

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

func TestJoinSurvivesPasting(t *testing.T) {
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	want := Join{
		Node: "ai-1", Server: "https://hub:6443", CertificateAuthorityData: []byte("pem"),
		Token: "secret-token", Expires: now.Add(time.Hour),
	}
	line, err := want.Encode()
	require.NoError(t, err)

	broken := "  " + line[:20] + "\n   " + line[20:] + "\r\n"
	got, err := DecodeJoin(broken, now)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, got))

	for name, text := range map[string]string{
		"empty": "", "a token": "eyJhbGciOi", "cut short": line[:len(line)-5], "no fields": joinPrefix + "e30",
	} {
		_, err := DecodeJoin(text, now)
		require.ErrorContains(t, err, "kubectl ainode add", name)
		require.NotContains(t, err.Error(), "secret-token", name)
	}

	_, err = DecodeJoin(line, now.Add(time.Hour))
	require.ErrorIs(t, err, ErrExpired)
	require.ErrorContains(t, err, "kubectl ainode add ai-1")
}

func TestOnlyTheMachineOpensItsCredential(t *testing.T) {
	mine, err := GenerateKeyPair(rand.Reader)
	require.NoError(t, err)
	other, err := GenerateKeyPair(rand.Reader)
	require.NoError(t, err)

	key, err := ParsePublicKey(mine.Public.String())
	require.NoError(t, err)
	want := Credential{Node: "ai-1", Epoch: 3, Token: "secret-token"}
	sealed, err := want.Seal(key)
	require.NoError(t, err)
	require.False(t, strings.Contains(string(sealed), "secret-token"))

	got, err := mine.Open(sealed)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, got))

	_, err = other.Open(sealed)
	require.ErrorContains(t, err, "not sealed to this machine's key")
	sealed[len(sealed)-1] ^= 1
	_, err = mine.Open(sealed)
	require.Error(t, err)
}

func TestParsePublicKeyRefusesJunk(t *testing.T) {
	for _, text := range []string{"", "%%%", "aGVsbG8="} {
		_, err := ParsePublicKey(text)
		require.Error(t, err, text)
	}
}
