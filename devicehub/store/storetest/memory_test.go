package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) Database {
		m := NewMemory()
		return Database{
			Open: func(*testing.T) store.Store { return m.Reopen() },
			// Everything is one step to Memory: what breaks is the call.
			Break: func(*testing.T, string) func() {
				m.Fault(func(step string) error {
					if step == "Commit" || step == "Ingest" {
						return errors.New("injected")
					}
					return nil
				})
				return func() { m.Fault(nil) }
			},
		}
	})
}

func TestFaultAfterwards(t *testing.T) {
	m := NewMemory()
	injected := errors.New("injected")
	m.Fault(func(step string) error {
		if strings.HasSuffix(step, ":done") {
			return injected
		}
		return nil
	})
	wantErr(t, "commit", m.Commit(t.Context(), store.Commit{Revision: 3}), injected)
	m.Fault(nil)
	if r := load(t, m).Revision; r != 3 {
		t.Fatalf("revision %d: the commit was to succeed before it failed", r)
	}
}

func TestClosed(t *testing.T) {
	m := NewMemory()
	must(t, m.Close())
	wantErr(t, "commit", m.Commit(t.Context(), store.Commit{Revision: 1}), errClosed)
}
