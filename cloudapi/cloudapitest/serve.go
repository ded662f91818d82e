package cloudapitest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
)

// Serve serves the API of a hub on a free port of the loopback for the time of
// a test, and returns its URL. edit may change how.
func Serve(t testing.TB, h *Hub, edit ...func(*cloudapi.Config)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ServeOn(t, l, h, edit...)
}

// ServeOn does so on a listener, which it closes.
func ServeOn(t testing.TB, l net.Listener, h *Hub, edit ...func(*cloudapi.Config)) (url string) {
	t.Helper()
	c := cloudapi.Config{Objects: h, Twins: h, Devices: h, Routes: h, Services: h, Pods: h, History: h, Audit: h, Events: h, Access: h, Idempotency: h, Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, f := range edit {
		f(&c)
	}
	api, err := cloudapi.New(c)
	if err != nil {
		_ = l.Close() // nobody knows of it
		t.Fatal(err)
	}
	s := cloudapi.Server(api)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }() // ends with Shutdown, below
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("the API did not shut down: %v", err)
			_ = s.Close()
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}
