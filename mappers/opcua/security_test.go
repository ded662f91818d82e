package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// attempt opens a device and reads once.
func attempt(t *testing.T, d *Driver, dir, connection string) (models.Value, error) {
	t.Helper()
	return attemptWith(t, d, dir, connection, nil)
}

func attemptWith(t *testing.T, d *Driver, dir, connection string, secrets map[string]mappers.Secret) (models.Value, error) {
	t.Helper()
	dev, err := d.Open(mappers.DeviceConfig{Name: "secured", Secrets: secrets, Connection: json.RawMessage(connection), DataDir: dir,
		Points: []mappers.Point{pt("still", models.TypeInt, models.ReadWrite, `{"node": "ns=2;s=still"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := failed(dev.Write(t.Context(), []mappers.WriteRequest{{Point: 0, Value: models.Int(9)}})); err != nil {
		return models.Null, err
	}
	out := make([]mappers.Result, 1)
	err = dev.Read(t.Context(), []int{0}, out)
	return out[0].Value, err
}

func failed(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func fingerprintOf(sim *opcuasim.Server) string {
	sum := sha256.Sum256(sim.Certificate())
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	sim := counting(t, func(c *opcuasim.Config) {
		c.Security = []string{"all"}
		c.Users = map[string]string{"operator": "s3cret"}
		anonymous := true
		c.Anonymous = &anonymous
	})
	fingerprint, dir := fingerprintOf(sim), t.TempDir()
	for _, policy := range []string{"Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", "auto"} {
		for _, mode := range []string{"Sign", "SignAndEncrypt", "auto"} {
			for _, user := range []string{"", `, "username": "operator", "password": "s3cret"`} {
				connection := fmt.Sprintf(`{"url": %q, "policy": %q, "mode": %q, "trust": [%q]%s}`, sim.URL(), policy, mode, strings.ToUpper(fingerprint[7:]), user)
				connection = strings.Replace(connection, `"trust": ["`, `"trust": ["sha256:`, 1)
				if v, err := attempt(t, New(), dir, connection); err != nil || v != models.Int(9) {
					t.Errorf("%s: %v, %v", connection, v, err)
				}
			}
		}
	}
	info, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the identity's file: %v, %v", info, err)
	}
	// A password is encrypted although nothing else is.
	if v, err := attempt(t, New(), "", fmt.Sprintf(`{"url": %q, "username": "operator", "password": "s3cret"}`, sim.URL())); err != nil || v != models.Int(9) {
		t.Errorf("%v, %v", v, err)
	}
	for _, tc := range []struct {
		fields string
		reason models.Reason
		says   string
	}{
		{`"policy": "auto"`, reasonUntrusted, "whimbrel trust secured " + fingerprint},
		{`"mode": "Sign", "trust": ["sha256:` + strings.Repeat("0", 64) + `"]`, reasonUntrusted, fingerprint},
		{`"username": "operator", "password": "wrong"`, reasonIdentity, `let user "operator" in (BadUserAccessDenied): correct`},
		{`"username": "nobody"`, reasonIdentity, `let user "nobody" in`},
	} {
		_, err := attempt(t, New(), dir, fmt.Sprintf(`{"url": %q, %s}`, sim.URL(), tc.fields))
		if err == nil || mappers.FailureOf(err).Reason != tc.reason || !mappers.FailureOf(err).Unsent || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %s naming %s", tc.fields, err, tc.reason, tc.says)
		}
	}
}

func TestUsersWithSecrets(t *testing.T) {
	t.Parallel()
	identity := func(name string) *wire.Identity {
		id, err := wire.MakeIdentity(wire.Application{Name: name, URI: "urn:" + name})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	operator, stranger := identity("operator"), identity("stranger")
	file := filepath.Join(t.TempDir(), "operator.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: operator.Certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := counting(t, func(c *opcuasim.Config) {
		c.Security = []string{"all"}
		c.Users = map[string]string{"operator": "s3cret"}
		c.UserCertificates = []string{file}
	})
	dir, trust := t.TempDir(), fmt.Sprintf(`"trust": [%q]`, fingerprintOf(sim))
	const password, certificate = `, "username": "operator", "passwordFrom": {"secret": "s", "key": "k"}`, `, "certificateFrom": {"secret": "s", "key": "k"}`
	for _, tc := range []struct {
		fields string
		value  []byte
		reason models.Reason // "" when it works
	}{
		{`"policy": "auto", ` + trust + password, []byte("s3cret"), ""},
		{`"policy": "auto", ` + trust + password, []byte("wrong"), reasonIdentity},
		{`"policy": "Basic256Sha256", "mode": "Sign", ` + trust + certificate, operator.PEM(), ""},
		{`"policy": "Aes128_Sha256_RsaOaep", ` + trust + certificate, operator.PEM(), ""},
		{`"policy": "Aes256_Sha256_RsaPss", "mode": "SignAndEncrypt", ` + trust + certificate, operator.PEM(), ""},
		{trust + certificate, operator.PEM(), ""}, // without security, but for the proof
		{`"policy": "auto", ` + trust + certificate, stranger.PEM(), reasonIdentity},
		{`"policy": "auto", ` + trust, nil, reasonIdentity}, // anonymous
	} {
		secrets := map[string]mappers.Secret{"passwordFrom": mappers.NewSecret(tc.value), "certificateFrom": mappers.NewSecret(tc.value)}
		v, err := attemptWith(t, New(), dir, fmt.Sprintf(`{"url": %q, %s}`, sim.URL(), tc.fields), secrets)
		switch {
		case tc.reason == "" && (err != nil || v != models.Int(9)):
			t.Errorf("%s: %v, %v", tc.fields, v, err)
		case tc.reason != "" && (err == nil || mappers.FailureOf(err).Reason != tc.reason):
			t.Errorf("%s: %v, want %s", tc.fields, err, tc.reason)
		}
	}
	// One that shows a certificate and cannot prove that it is its own.
	thief := &wire.Identity{Key: stranger.Key, Certificate: operator.Certificate}
	still, err := wire.ParseRef("ns=2;s=still")
	if err != nil {
		t.Fatal(err)
	}
	dev := newDevice(target{device: "thief", url: sim.URL(), policy: auto, mode: auto, trust: []string{fingerprintOf(sim)}, user: thief, timeout: defaultTimeout},
		[]point{{node: still, readable: true, kind: models.TypeInt, index: -1}}, func() (*wire.Identity, error) { return operator, nil }, slog.New(slog.DiscardHandler))
	defer dev.Close()
	if err := dev.Read(t.Context(), []int{0}, make([]mappers.Result, 1)); err == nil || mappers.FailureOf(err).Reason != reasonIdentity {
		t.Errorf("a thief: %v", err)
	}
}

func TestSecurityThatIsNotOffered(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	_, err := attempt(t, New(), "", fmt.Sprintf(`{"url": %q, "policy": "Basic256Sha256"}`, sim.URL()))
	if err == nil || !strings.Contains(err.Error(), "only None/None") || mappers.FailureOf(err).Reason != models.ReasonConfiguration {
		t.Errorf("%v", err)
	}
	_, err = attempt(t, New(), "", fmt.Sprintf(`{"url": %q, "username": "operator"}`, sim.URL()))
	if err == nil || mappers.FailureOf(err).Reason != reasonIdentity {
		t.Errorf("%v", err)
	}
}

func TestIdentityIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	var one, two identities
	first, err := one.in(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.in(dir)
	if err != nil || string(first.Certificate) != string(second.Certificate) || !first.Key.Equal(second.Key) {
		t.Errorf("another identity: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	var three identities
	if _, err := three.in(dir); err == nil {
		t.Error("nonsense is an identity")
	}
}

// TestACertificateThatExpired is trusted by its fingerprint, or named as what it is.
func TestACertificateThatExpired(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "server.pem")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(1.2e9, 0), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := counting(t, func(c *opcuasim.Config) { c.Security, c.Certificate = []string{"all"}, file })
	_, err = attempt(t, New(), "", fmt.Sprintf(`{"url": %q, "mode": "Sign"}`, sim.URL()))
	if err == nil || !strings.Contains(err.Error(), "not trusted, and expired on 2008-01-10; if "+fingerprintOf(sim)) {
		t.Errorf("not trusted: %v", err)
	}
	if v, err := attempt(t, New(), "", fmt.Sprintf(`{"url": %q, "mode": "Sign", "trust": [%q]}`, sim.URL(), fingerprintOf(sim))); err != nil || v != models.Int(9) {
		t.Errorf("trusted: %v, %v", v, err)
	}
}
