// Package handover holds the two things that are handed from the plugin to a node
// agent: the join file (printed by add, read by join) and the target credential
// (sealed by bind, opened by the agent).
package handover

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Join is the content of a join file: how a machine reaches the hub and proves
// once that it was invited. It is a secret until it was used or has expired.
type Join struct {
	// Node is the AI node's name.
	Node string `json:"node"`
	// Server is the hub's URL as the machine reaches it.
	Server string `json:"server"`
	// CertificateAuthorityData is the PEM of the hub's CA.
	CertificateAuthorityData []byte `json:"certificateAuthorityData"`
	// Token authenticates as the node's joiner ServiceAccount.
	Token string `json:"token"`
	// Expires is when the token ends.
	Expires time.Time `json:"expires"`
}

// joinPrefix begins every join file, so that a wrong paste is told apart from a
// damaged one.
const joinPrefix = "ainode-join-v1."

// ErrExpired is returned by DecodeJoin for a token whose time is over.
var ErrExpired = errors.New("the join file has expired")

// Encode writes j as one line of text.
func (j Join) Encode() (string, error) {
	raw, err := json.Marshal(j)
	if err != nil {
		return "", fmt.Errorf("encode join file: %w", err)
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(raw), nil
}

// DecodeJoin reads what Encode wrote, surrounding white space aside. It never
// quotes the text in an error, since the text is a secret.
func DecodeJoin(text string, now time.Time) (Join, error) {
	var j Join
	body, ok := strings.CutPrefix(strings.Join(strings.Fields(text), ""), joinPrefix)
	if !ok {
		return j, fmt.Errorf("not a join file: it begins with %q (print one with: kubectl ainode add NAME)", joinPrefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return j, errors.New("the join file is damaged or cut short (print one with: kubectl ainode add NAME)")
	}
	if err := json.Unmarshal(raw, &j); err != nil {
		return j, errors.New("the join file is damaged (print one with: kubectl ainode add NAME)")
	}
	if j.Node == "" || j.Server == "" || j.Token == "" || len(j.CertificateAuthorityData) == 0 {
		return j, errors.New("the join file lacks a node, server, CA or token (print one with: kubectl ainode add NAME)")
	}
	if !j.Expires.After(now) {
		return j, fmt.Errorf("%w at %s (print a new one with: kubectl ainode add %s)",
			ErrExpired, j.Expires.UTC().Format(time.RFC3339), j.Node)
	}
	return j, nil
}
