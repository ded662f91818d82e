package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
)

// A JoinToken is what an edge needs to join, in one line of text:
//
//	wt1.{64 hex digits: SHA-256 of the CA certificate}.{32 bytes of secret, base64url}
//
// The hash lets the edge know the hub, the secret lets the hub know the edge.
// It does not print; see Encode.
type JoinToken struct {
	CAHash string // as CertHash has it
	secret [32]byte
}

// NewJoinToken makes one with a random secret.
func NewJoinToken(caHash string) JoinToken {
	t := JoinToken{CAHash: caHash}
	rand.Read(t.secret[:]) // never fails
	return t
}

// Encode returns the text, secret included.
func (t JoinToken) Encode() string {
	return "wt1." + strings.TrimPrefix(t.CAHash, "sha256:") + "." + base64.RawURLEncoding.EncodeToString(t.secret[:])
}

// SecretHash is what the hub keeps of the secret.
func (t JoinToken) SecretHash() string { return hash(t.secret[:]) }

// String hides the secret.
func (JoinToken) String() string { return "(join token)" }

// GoString hides the secret.
func (JoinToken) GoString() string { return "(join token)" }

// LogValue hides the secret.
func (JoinToken) LogValue() slog.Value { return slog.StringValue("(join token)") }

// ErrJoinToken: the text is not a join token. It does not repeat the text, which
// may be one with a slip in it.
var ErrJoinToken = errors.New("not a join token: want wt1.HASH.SECRET, as token create prints it")

// ParseJoinToken reads what Encode wrote, with space around it forgiven.
func ParseJoinToken(text string) (JoinToken, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 3 || parts[0] != "wt1" {
		return JoinToken{}, ErrJoinToken
	}
	sum, err := hex.DecodeString(parts[1])
	if err != nil || len(sum) != sha256.Size {
		return JoinToken{}, ErrJoinToken
	}
	t := JoinToken{CAHash: "sha256:" + hex.EncodeToString(sum)}
	// The decoder would skip line ends.
	if strings.ContainsAny(parts[2], "\r\n") {
		return JoinToken{}, ErrJoinToken
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(secret) != len(t.secret) {
		return JoinToken{}, ErrJoinToken
	}
	copy(t.secret[:], secret)
	return t, nil
}
