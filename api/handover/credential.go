package handover

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/nacl/box"
)

// Keys of the handover Secret's data.
const (
	// SealedKey holds the sealed credential. The agent empties it once it has
	// exchanged the token.
	SealedKey = "sealed"
	// EpochKey holds the bind epoch in decimal.
	EpochKey = "epoch"
)

// Credential is what an agent needs to become a node of the target.
type Credential struct {
	// Node and Epoch are checked by the agent against its AINode: a credential of
	// another epoch is refused.
	Node  string `json:"node"`
	Epoch int64  `json:"epoch"`
	// Server, TLSServerName and CertificateAuthorityData are the target's.
	Server                   string `json:"server"`
	TLSServerName            string `json:"tlsServerName,omitempty"`
	CertificateAuthorityData []byte `json:"certificateAuthorityData"`
	// ServiceAccount is the target account (in the system namespace) that Token,
	// good for ten minutes, is of.
	ServiceAccount string `json:"serviceAccount"`
	Token          string `json:"token"`
	// ClientCAData is the PEM that the API server's client certificates are
	// checked with on :10250. A node may not read it itself, so bind hands it over.
	ClientCAData []byte `json:"clientCAData"`
}

// PublicKey is an X25519 public key.
type PublicKey [32]byte

// ParsePublicKey reads the base64 of AINode.status.publicKey.
func ParsePublicKey(text string) (PublicKey, error) {
	var key PublicKey
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(key) {
		return key, errors.New("not a public key: want 32 bytes in base64")
	}
	copy(key[:], raw)
	return key, nil
}

// String is the base64 that AINode.status.publicKey holds.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Fingerprint is the short form people compare: SHA256 of the key, as OpenSSH
// writes it.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k[:])
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// KeyPair is an agent's key pair. The private half never leaves the machine.
type KeyPair struct {
	Public  PublicKey
	Private [32]byte
}

// GenerateKeyPair makes a key pair from random (crypto/rand.Reader outside tests).
func GenerateKeyPair(random io.Reader) (KeyPair, error) {
	public, private, err := box.GenerateKey(random)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	return KeyPair{Public: *public, Private: *private}, nil
}

// Seal encrypts c so that only the holder of to's private key can read it
// (an anonymous NaCl box: X25519, XSalsa20-Poly1305).
func (c Credential) Seal(to PublicKey) ([]byte, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode credential: %w", err)
	}
	key := [32]byte(to)
	sealed, err := box.SealAnonymous(nil, raw, &key, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("seal credential: %w", err)
	}
	return sealed, nil
}

// Open decrypts what Seal made for this key pair.
func (k KeyPair) Open(sealed []byte) (Credential, error) {
	var c Credential
	public := [32]byte(k.Public)
	raw, ok := box.OpenAnonymous(nil, sealed, &public, &k.Private)
	if !ok {
		return c, errors.New("the credential is not sealed to this machine's key, or is damaged")
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, errors.New("the credential is damaged")
	}
	return c, nil
}
