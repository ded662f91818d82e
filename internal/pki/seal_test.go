package pki

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestSeal(t *testing.T) {
	key := NewSealKey()
	for _, plain := range []string{"", "secret", strings.Repeat("long", 1000)} {
		sealed, err := Seal(key, []byte(plain), []byte("ca"))
		if err != nil {
			t.Fatal(err)
		}
		if plain != "" && strings.Contains(string(sealed), plain) {
			t.Error("sealed contains the plaintext")
		}
		have, err := Open(key, sealed, []byte("ca"))
		if err != nil || string(have) != plain {
			t.Fatalf("opened %q, %v", have, err)
		}
		if _, err := Open(NewSealKey(), sealed, []byte("ca")); !errors.Is(err, ErrUnseal) {
			t.Errorf("another key: %v", err)
		}
		if _, err := Open(key, sealed, []byte("other")); !errors.Is(err, ErrUnseal) {
			t.Errorf("another context: %v", err)
		}
		for i := range min(len(sealed), 120) {
			damaged := append([]byte{}, sealed...)
			damaged[i] ^= 0x80
			if _, err := Open(key, damaged, []byte("ca")); !errors.Is(err, ErrUnseal) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
		for n := range min(len(sealed), 94) {
			if _, err := Open(key, sealed[:n], []byte("ca")); !errors.Is(err, ErrUnseal) {
				t.Errorf("cut to %d bytes: %v", n, err)
			}
		}
	}
	a, _ := Seal(key, []byte("x"), nil)
	b, _ := Seal(key, []byte("x"), nil)
	if string(a) == string(b) {
		t.Error("two seals of one text are equal")
	}
}

func TestRotation(t *testing.T) {
	line := func(k SealKey) string { return base64.StdEncoding.EncodeToString(k.bytes[:]) + "\n" }
	old, fresh := NewSealKey(), NewSealKey()
	both, err := ParseSealKey([]byte(line(fresh) + "\n" + line(old)))
	if err != nil {
		t.Fatal(err)
	}
	aad := []byte("here")
	sealed, err := Seal(old, []byte("secret"), aad)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := encrypt([]byte{sealPlain}, old.bytes, []byte("secret"), aad) // as an earlier release sealed
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{"envelope": sealed, "without envelope": plain} {
		if have, err := Open(both, sealed, aad); err != nil || string(have) != "secret" {
			t.Errorf("%s: opened %q, %v", name, have, err)
		}
		if _, err := Open(fresh, sealed, aad); !errors.Is(err, ErrUnseal) {
			t.Errorf("%s: the new key alone: %v", name, err)
		}
		again, changed, err := Reseal(both, sealed, aad)
		if err != nil || !changed {
			t.Fatalf("%s: %v, %v", name, changed, err)
		}
		if have, err := Open(fresh, again, aad); err != nil || string(have) != "secret" {
			t.Errorf("%s: resealed, opened %q, %v", name, have, err)
		}
		if _, err := Open(old, again, aad); !errors.Is(err, ErrUnseal) {
			t.Errorf("%s: resealed, the old key: %v", name, err)
		}
		if same, changed, err := Reseal(both, again, aad); err != nil || changed || string(same) != string(again) {
			t.Errorf("%s: resealed twice: %v, %v", name, changed, err)
		}
		if _, _, err := Reseal(fresh, sealed, aad); !errors.Is(err, ErrUnseal) {
			t.Errorf("%s: resealed without the key: %v", name, err)
		}
		if _, _, err := Reseal(both, sealed, []byte("elsewhere")); !errors.Is(err, ErrUnseal) {
			t.Errorf("%s: resealed elsewhere: %v", name, err)
		}
	}
	if _, err := ParseSealKey([]byte(line(fresh) + "nonsense\n")); err == nil {
		t.Error("a key file with a broken second key was accepted")
	}
	if _, err := ParseSealKey([]byte(strings.Repeat(line(fresh), maxSealKeys+1))); err == nil {
		t.Error("too many keys were accepted")
	}
}

func TestSealKeyDoesNotPrint(t *testing.T) {
	var key SealKey
	copy(key.bytes[:], "0123456789abcdef0123456789abcdef")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if s := fmt.Sprintf(verb, key); strings.Contains(s, "012345") || strings.Contains(s, "303132") || strings.Contains(s, "0x30") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func TestKeyFileForms(t *testing.T) {
	raw := "\xff\xfe23456789abcdef0123456789abcdef"
	var want SealKey
	copy(want.bytes[:], raw)
	for name, text := range map[string]string{
		"raw": raw, "std": base64.StdEncoding.EncodeToString([]byte(raw)) + "\n",
		"url, unpadded": " " + base64.RawURLEncoding.EncodeToString([]byte(raw)),
	} {
		if have, err := ParseSealKey([]byte(text)); err != nil || have.bytes != want.bytes || len(have.older) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "short": raw[:31], "long": raw + "x", "short base64": "c2hvcnQ=", "text": "correct horse battery staple horse",
	} {
		if _, err := ParseSealKey([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestLoadSealKeyMakesOneForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.key")
	keys := make([]SealKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadSealKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k.bytes != keys[0].bytes || k.bytes == [32]byte{} {
			t.Fatal("concurrent starts got different keys")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	damaged := filepath.Join(t.TempDir(), "hub.key")
	if err := os.WriteFile(damaged, []byte("oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSealKey(damaged); err == nil {
		t.Error("a damaged key file was accepted")
	}
	if data, _ := os.ReadFile(damaged); string(data) != "oops" {
		t.Error("a damaged key file was replaced")
	}
	dangling := filepath.Join(t.TempDir(), "hub.key")
	if err := os.Symlink("/nowhere/at/all", dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSealKey(dangling); err == nil {
		t.Error("a dangling link was accepted")
	}
}

func FuzzOpen(f *testing.F) {
	key := NewSealKey()
	sealed, err := Seal(key, []byte("secret"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{sealPlain})
	f.Add([]byte{sealEnvelope})
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, err := Open(NewSealKey(), data, nil); err == nil {
			t.Errorf("opened %q with a random key", plain)
		}
	})
}
