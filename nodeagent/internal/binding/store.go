package binding

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/curve25519"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// Joined says which AI node this machine is and how its hub is reached.
type Joined struct {
	Node                     string `json:"node"`
	Server                   string `json:"server"`
	CertificateAuthorityData []byte `json:"certificateAuthorityData"`
}

// ErrNotJoined is returned by Store.Joined on a machine that has not joined.
var ErrNotJoined = errors.New("this machine has not joined a pool")

// Credential is what the agent stores of one binding: bind's credential with the
// token exchanged for one that this agent renews.
type Credential struct {
	handover.Credential
	Token Token `json:"nodeToken"`
	// SinceEpoch is the epoch that the binding began in; absent where it was never
	// renewed.
	SinceEpoch int64 `json:"sinceEpoch,omitempty"`
	// NodeLabels are the labels chosen at bind; stored, since a restart must not
	// need the hub.
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
	// PodCIDR is the range of the pods' addresses chosen at bind; empty: the pods share
	// the machine's. Stored for the same reason.
	PodCIDR string `json:"podCIDR,omitempty"`
	// Address is the machine's address chosen at bind; empty: the agent's own choice.
	Address string `json:"address,omitempty"`
}

// since is the epoch that the binding began in.
func (c *Credential) since() int64 {
	if c.SinceEpoch > 0 {
		return c.SinceEpoch
	}
	return c.Epoch
}

// sameWay reports whether both act as the same account at the same place, so that one
// token can take the other's place.
func (c *Credential) sameWay(o *Credential) bool {
	return c.ServiceAccount == o.ServiceAccount && c.Server == o.Server && c.TLSServerName == o.TLSServerName &&
		bytes.Equal(c.CertificateAuthorityData, o.CertificateAuthorityData) && bytes.Equal(c.ClientCAData, o.ClientCAData)
}

// Store keeps what must survive a restart. Its files are readable by root alone.
type Store struct{ State config.State }

// Joined reads what join wrote.
func (s Store) Joined() (Joined, error) {
	var j Joined
	err := readJSON(s.State.Hub(), &j)
	if errors.Is(err, fs.ErrNotExist) {
		return j, fmt.Errorf("%w: %q is missing (print a join file with: kubectl ainode add NAME, then run: ainode-agent join --file PATH)",
			ErrNotJoined, s.State.Hub())
	}
	return j, err
}

// HubToken reads the hub account's token.
func (s Store) HubToken() (Token, error) {
	var t Token
	return t, readJSON(s.State.HubToken(), &t)
}

// SaveHubToken replaces the hub account's token.
func (s Store) SaveHubToken(t Token) error { return writeJSON(s.State.HubToken(), t) }

// Key reads the key pair, or makes it from random if there is none yet.
func (s Store) Key(random io.Reader) (handover.KeyPair, error) {
	var text string
	err := readJSON(s.State.Key(), &text)
	if errors.Is(err, fs.ErrNotExist) {
		pair, err := handover.GenerateKeyPair(random)
		if err != nil {
			return pair, err
		}
		return pair, writeJSON(s.State.Key(), base64.StdEncoding.EncodeToString(pair.Private[:]))
	}
	var pair handover.KeyPair
	if err != nil {
		return pair, err
	}
	private, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(private) != len(pair.Private) {
		return pair, fmt.Errorf("read state: %q is damaged", s.State.Key())
	}
	copy(pair.Private[:], private)
	public, err := curve25519.X25519(private, curve25519.Basepoint)
	if err != nil {
		return pair, fmt.Errorf("derive the public key: %w", err)
	}
	copy(pair.Public[:], public)
	return pair, nil
}

// Credential reads the binding's credential; nil if there is none.
func (s Store) Credential() (*Credential, error) {
	var c Credential
	err := readJSON(s.State.Credential(), &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no credential is an answer, not an error
	}
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// SaveCredential replaces the binding's credential.
func (s Store) SaveCredential(c Credential) error {
	c.Credential.Token = "" // the ten-minute token is spent
	return writeJSON(s.State.Credential(), c)
}

// Wipe removes the credential and everything else of the binding.
func (s Store) Wipe() error {
	if err := os.RemoveAll(s.State.Target()); err != nil {
		return fmt.Errorf("wipe the binding: %w", err)
	}
	return statefile.Sync(string(s.State))
}
