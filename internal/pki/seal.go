package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
)

// A SealKey seals what is kept in a database. It does not print.
type SealKey struct{ bytes [32]byte }

// String hides the key.
func (SealKey) String() string { return "(seal key)" }

// GoString hides the key.
func (SealKey) GoString() string { return "(seal key)" }

// LogValue hides the key.
func (SealKey) LogValue() slog.Value { return slog.StringValue("(seal key)") }

// sealVersion begins what Seal returns: version, 12 bytes of nonce, and the
// AES-256-GCM ciphertext with its 16-byte tag.
const sealVersion = 1

// ErrUnseal: the key is not the one that sealed, the context differs, or the data was
// changed. There is no telling which.
var ErrUnseal = errors.New("cannot unseal: another key file, or damaged data")

// NewSealKey makes a random key.
func NewSealKey() SealKey {
	var k SealKey
	rand.Read(k.bytes[:]) // never fails
	return k
}

// Seal encrypts plaintext. aad says what and where it is, and must be the same to
// Open: a sealed blob moved under another name does not open.
func Seal(key SealKey, plaintext, aad []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+len(plaintext)+gcm.Overhead())
	head[0] = sealVersion
	rand.Read(head[1:]) // never fails
	return gcm.Seal(head, head[1:], plaintext, aad), nil
}

// Open decrypts what Seal returned, or returns ErrUnseal.
func Open(key SealKey, sealed, aad []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	n := 1 + gcm.NonceSize()
	if len(sealed) < n+gcm.Overhead() || sealed[0] != sealVersion {
		return nil, ErrUnseal
	}
	plaintext, err := gcm.Open(nil, sealed[1:n], sealed[n:], aad)
	if err != nil {
		return nil, ErrUnseal
	}
	return plaintext, nil
}

func newGCM(key SealKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key.bytes[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm, nil
}

// ParseSealKey reads 32 bytes: raw, or in base64 of any common form with space
// around it.
func ParseSealKey(data []byte) (SealKey, error) {
	var k SealKey
	if len(data) == len(k.bytes) {
		copy(k.bytes[:], data)
		return k, nil
	}
	text := string(bytes.TrimRight(bytes.TrimSpace(data), "="))
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(text); err == nil && len(raw) == len(k.bytes) {
			copy(k.bytes[:], raw)
			return k, nil
		}
	}
	return SealKey{}, fmt.Errorf("a key file holds 32 bytes, raw or in base64")
}

// LoadSealKey reads the key file, or makes one with a new key, mode 0600, when
// there is none. Of several processes that find none, one makes it and all get
// its key.
func LoadSealKey(path string) (SealKey, error) {
	for range 3 {
		data, err := os.ReadFile(path)
		if err == nil {
			key, err := ParseSealKey(data)
			if err != nil {
				return SealKey{}, fmt.Errorf("%s: %w", path, err)
			}
			return key, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return SealKey{}, fmt.Errorf("read key file: %w", err)
		}
		if err := createSealKey(path); err != nil && !errors.Is(err, os.ErrExist) {
			return SealKey{}, fmt.Errorf("create key file: %w", err)
		}
	}
	// A dangling symbolic link does this.
	return SealKey{}, fmt.Errorf("key file %s can neither be read nor created", path)
}

// createSealKey writes a complete file under another name and links it into
// place, which fails with os.ErrExist instead of replacing one.
func createSealKey(path string) error {
	key := NewSealKey()
	text := base64.StdEncoding.EncodeToString(key.bytes[:]) + "\n"
	temp := path + "." + rand.Text()
	if err := atomicfile.WriteFile(temp, []byte(text), 0o600); err != nil {
		return err
	}
	linkErr := os.Link(temp, path)
	if err := errors.Join(linkErr, os.Remove(temp)); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}
