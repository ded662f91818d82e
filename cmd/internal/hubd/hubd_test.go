package hubd

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/filelock"
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
		"delete": a.DeleteToken(t.Context(), "01J"), "idempotency": begin} {
		if models.KindOf(err) != models.KindUnavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
}
