package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
)

// A SealKey seals what is kept in a database. It may hold older keys beside its
// own, which open what they sealed and seal nothing any more. It does not print.
type SealKey struct {
	bytes [32]byte
	older [][32]byte
}

// String hides the key.
func (SealKey) String() string { return "(seal key)" }

// GoString hides the key.
func (SealKey) GoString() string { return "(seal key)" }

// LogValue hides the key.
func (SealKey) LogValue() slog.Value { return slog.StringValue("(seal key)") }

// What Seal returns is an envelope: a key of its own encrypts the text, and the
// SealKey encrypts that key. So a new SealKey takes over without the text being
// touched.
//
//	1 B  version, 2
//	4 B  id of the SealKey: the first bytes of its SHA-256
//	12 B nonce, 48 B the envelope's key, AES-256-GCM with its tag
//	12 B nonce, n+16 B the text, AES-256-GCM with its tag
//
// Version 1, which is only read, has no envelope: version, nonce, text.
const (
	sealPlain    = 1
	sealEnvelope = 2

	keyIDSize   = 4
	nonceSize   = 12
	tagSize     = 16
	wrappedSize = nonceSize + 32 + tagSize
	headSize    = 1 + keyIDSize + wrappedSize
)

// ErrUnseal: no key is the one that sealed, the context differs, or the data was
// changed. There is no telling which.
var ErrUnseal = errors.New("cannot unseal: another key file, or damaged data")

// NewSealKey makes a random key.
func NewSealKey() SealKey {
	var k SealKey
	rand.Read(k.bytes[:]) // never fails
	return k
}

func keyID(key [32]byte) []byte {
	sum := sha256.Sum256(key[:])
	return sum[:keyIDSize]
}

// all returns the keys, the one that seals first.
func (k SealKey) all() [][32]byte { return append([][32]byte{k.bytes}, k.older...) }

// Seal encrypts plaintext. aad says what and where it is, and must be the same to
// Open: a sealed blob moved under another name does not open.
func Seal(key SealKey, plaintext, aad []byte) ([]byte, error) {
	own := NewSealKey().bytes
	head, err := wrap(key, own, aad)
	if err != nil {
		return nil, err
	}
	return encrypt(head, own, plaintext, aad)
}

// wrap makes the head of an envelope whose own key is own.
func wrap(key SealKey, own [32]byte, aad []byte) ([]byte, error) {
	head := append([]byte{sealEnvelope}, keyID(key.bytes)...)
	return encrypt(head, key.bytes, own[:], wrapContext(head, aad))
}

// wrapContext ties an envelope's key to its head and context.
func wrapContext(head, aad []byte) []byte {
	return slices.Concat([]byte("envelope\x00"), head[:1+keyIDSize], aad)
}

// encrypt appends a nonce and the encrypted text.
func encrypt(out []byte, key [32]byte, text, aad []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	return gcm.Seal(append(out, nonce...), nonce, text, aad), nil
}

// decrypt is the way back from encrypt.
func decrypt(key [32]byte, data, aad []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	if len(data) < nonceSize+tagSize {
		return nil, ErrUnseal
	}
	text, err := gcm.Open(nil, data[:nonceSize], data[nonceSize:], aad)
	if err != nil {
		return nil, ErrUnseal
	}
	return text, nil
}

// Open decrypts what Seal returned, or returns ErrUnseal.
func Open(key SealKey, sealed, aad []byte) ([]byte, error) {
	switch {
	case len(sealed) > 0 && sealed[0] == sealPlain:
		for _, k := range key.all() {
			if text, err := decrypt(k, sealed[1:], aad); err == nil {
				return text, nil
			}
		}
	case len(sealed) >= headSize && sealed[0] == sealEnvelope:
		own, err := unwrap(key, sealed, aad)
		if err != nil {
			return nil, err
		}
		return decrypt(own, sealed[headSize:], aad)
	}
	return nil, ErrUnseal
}

// unwrap returns an envelope's own key.
func unwrap(key SealKey, sealed, aad []byte) (own [32]byte, err error) {
	for _, k := range key.all() {
		if !bytes.Equal(keyID(k), sealed[1:1+keyIDSize]) {
			continue
		}
		if text, err := decrypt(k, sealed[1+keyIDSize:headSize], wrapContext(sealed, aad)); err == nil && len(text) == len(own) {
			copy(own[:], text)
			return own, nil
		}
	}
	return own, ErrUnseal
}

// Reseal makes what an older key has sealed the first key's, and reports whether
// it was. The text of an envelope is not touched.
func Reseal(key SealKey, sealed, aad []byte) (fresh []byte, changed bool, err error) {
	if len(sealed) < headSize || sealed[0] != sealEnvelope {
		text, err := Open(key, sealed, aad)
		if err != nil {
			return nil, false, err
		}
		fresh, err = Seal(key, text, aad)
		return fresh, true, err
	}
	if bytes.Equal(keyID(key.bytes), sealed[1:1+keyIDSize]) {
		return sealed, false, nil
	}
	own, err := unwrap(key, sealed, aad)
	if err != nil {
		return nil, false, err
	}
	if fresh, err = wrap(key, own, aad); err != nil {
		return nil, false, err
	}
	return append(fresh, sealed[headSize:]...), true, nil
}

func newGCM(key [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm, nil
}

// maxSealKeys bounds the keys of a key file.
const maxSealKeys = 16

// ParseSealKey reads 32 bytes: raw, or in base64 of any common form with space
// around it. Of several keys in base64, a line each, the first seals and the
// others open what they sealed before.
func ParseSealKey(data []byte) (SealKey, error) {
	var k SealKey
	if len(data) == len(k.bytes) {
		copy(k.bytes[:], data)
		return k, nil
	}
	var keys [][32]byte
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(bytes.TrimSpace(line), "=")
		if len(line) == 0 {
			continue
		}
		key, ok := decodeSealKey(string(line))
		if !ok || len(keys) == maxSealKeys {
			return SealKey{}, fmt.Errorf("a key file holds 32 bytes, raw or in base64, or at most %d such keys in base64, a line each", maxSealKeys)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return SealKey{}, errors.New("the key file holds no key: 32 bytes, raw or in base64")
	}
	return SealKey{bytes: keys[0], older: keys[1:]}, nil
}

func decodeSealKey(text string) (key [32]byte, ok bool) {
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(text); err == nil && len(raw) == len(key) {
			copy(key[:], raw)
			return key, true
		}
	}
	return key, false
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
