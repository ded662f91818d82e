package hubd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/internal/filelock"
	"github.com/whimbrel-edge/whimbrel/internal/holdport"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Two hubs in one directory, or on one SQLite file, would each take what it
// remembers for the truth.
func TestOneHubAtATime(t *testing.T) {
	dir := t.TempDir()
	at := func(data, database string) Config {
		return Config{Data: filepath.Join(dir, data), Database: database, Listen: "127.0.0.1:0", Link: "127.0.0.1:0", InsecureHTTP: true, Log: slog.New(slog.DiscardHandler)}
	}
	database := "sqlite://" + filepath.Join(dir, "hub.db")
	first, err := Open(t.Context(), at("a", database))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	<-first.Ready()
	for _, second := range []Config{at("a", ""), at("b", database)} {
		if _, err := Open(t.Context(), second); !errors.Is(err, filelock.ErrTaken) {
			t.Errorf("a second hub, data %s, database %s: %v", second.Data, second.Database, err)
		}
	}
	if _, err := ResetAdmin(t.Context(), at("a", database)); !errors.Is(err, filelock.ErrTaken) {
		t.Errorf("reset-admin beside a hub: %v", err)
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if token, err := ResetAdmin(t.Context(), at("a", database)); err != nil || token == "" {
		t.Errorf("reset-admin of a stopped hub: %q, %v", token, err)
	}
	again, err := Open(t.Context(), at("a", database))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := again.Audit(t.Context(), models.AuditOptions{}, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	for _, e := range entries {
		if e.Kind == "Token" && e.By == "reset-admin" && e.Name == "admin" && e.UID != "" {
			did = append(did, e.Action)
		}
	}
	if !slices.Equal(did, []string{"created", "deleted"}) {
		t.Errorf("reset-admin is in the audit as %q", did)
	}
	if err := errors.Join(again.listener.Close(), again.hub.Close(), again.closeStore()); err != nil {
		t.Error(err)
	}
}

// TestWrongKeyFile: who starts a hub with another key file than its database has been
// sealed with is told which flag and file that is, and no file is left behind.
func TestWrongKeyFile(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Data: dir, Listen: "127.0.0.1:0", Link: "127.0.0.1:0", InsecureHTTP: true, Log: slog.New(slog.DiscardHandler)}
	first, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.listener.Close(), first.hub.Close(), first.closeStore()); err != nil {
		t.Fatal(err)
	}
	other, short := filepath.Join(dir, "other.key"), filepath.Join(dir, "short.key")
	if err := errors.Join(os.WriteFile(other, bytes.Repeat([]byte("k"), 32), 0o600), os.WriteFile(short, []byte("k"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for file, say := range map[string]string{other: "is not the one that sealed this database", short: "32 bytes", filepath.Join(dir, "nix.key"): "there is no key file"} {
		cfg.KeyFile = file
		_, before := os.Stat(file)
		_, err := Open(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "--key-file") || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", file, err)
		}
		if _, after := os.Stat(file); (before == nil) != (after == nil) {
			t.Errorf("%s: was there: %v, is there: %v", file, before, after)
		}
	}
	cfg.KeyFile = ""
	if err := os.Rename(filepath.Join(dir, "hub.key"), filepath.Join(dir, "kept.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "hub.key")) {
		t.Errorf("without the file: %v", err)
	}
	cfg.KeyFile = filepath.Join(dir, "kept.key")
	again, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.listener.Close(), again.hub.Close(), again.closeStore()); err != nil {
		t.Error(err)
	}
}

// While the store is down callers are told to come back, not that the hub is
// broken, whatever they ask for first.
func TestStoreDown(t *testing.T) {
	d, err := Open(t.Context(), Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Link: "127.0.0.1:0", InsecureHTTP: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = d.listener.Close(), d.hub.Close() }()
	if err := d.closeStore(); err != nil {
		t.Fatal(err)
	}
	a := access{d}
	_, authenticate := a.Authenticate(t.Context(), "whk_"+strings.Repeat("x", 43), "192.0.2.1:1")
	_, join := a.CreateJoinToken(t.Context(), "gateway-1", time.Hour, "admin")
	_, list := a.Tokens(t.Context())
	_, _, begin := answers{d}.Begin(t.Context(), "admin", "key", "fingerprint")
	for what, err := range map[string]error{"authenticate": authenticate, "join token": join, "list": list,
		"delete": a.DeleteToken(t.Context(), "01J", "admin"), "idempotency": begin} {
		if models.KindOf(err) != models.KindUnavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAnswers: an answer is kept with all that it had, and one that an older release
// has kept is read.
func TestAnswers(t *testing.T) {
	d, err := Open(t.Context(), Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Link: "127.0.0.1:0", InsecureHTTP: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _, _ = d.listener.Close(), d.hub.Close(), d.closeStore() }()
	a := answers{d}
	for key, want := range map[string]cloudapi.StoredAnswer{
		"own":    {Status: 201, ETag: `"5"`, Body: []byte("{}")},
		"bare":   {Status: 204},
		"target": {Status: 418, ContentType: "text/plain; charset=utf-8", FromTarget: true, Body: []byte("\xffpot")},
		"typed":  {Status: 200, ETag: `W/"{}"`, ContentType: `a/b; c="{"`},
	} {
		if _, again, err := a.Begin(t.Context(), "admin", key, "f"); again || err != nil {
			t.Fatal(again, err)
		}
		if err := a.Finish(t.Context(), "admin", key, want); err != nil {
			t.Fatal(err)
		}
		got, again, err := a.Begin(t.Context(), "admin", key, "f")
		if len(got.Body) == 0 {
			got.Body = nil
		}
		if !again || err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", key, got, err, want)
		}
	}
}

// Whoever has the context can reach a hub with a certificate that no system
// trusts.
func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: filepath.Join(dir, "data"), Listen: "127.0.0.1:0", Link: "127.0.0.1:0", TLSCert: filepath.Join(dir, "c.pem"), TLSKey: filepath.Join(dir, "k.pem"),
		Log: slog.New(slog.DiscardHandler)}
	for path, block := range map[string]*pem.Block{cfg.TLSCert: {Type: "CERTIFICATE", Bytes: der}, cfg.TLSKey: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	<-d.Ready()
	text, err := os.ReadFile(d.ContextPath())
	if err != nil {
		t.Fatal(err)
	}
	var c ContextFile
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(c.CA)
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the context's ca, %q: %v", c.CA, err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	answer, err := client.Get(c.Server + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != 200 {
		t.Errorf("status %d, %v", answer.StatusCode, err)
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestDatabaseAway has a hub start while its database does not answer.
func TestDatabaseAway(t *testing.T) {
	port, err := holdport.Hold() // and nobody listens there
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	_, err = Open(t.Context(), Config{Data: t.TempDir(), Database: "postgres://hub@" + port.Addr() + "/hub?connect_timeout=2", Listen: "127.0.0.1:0", Link: "127.0.0.1:0",
		InsecureHTTP: true, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("got %v", err)
	}
}
