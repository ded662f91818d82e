package routes

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/migrations"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// TestShrink: what a backlog took is given back when it has been delivered, also of
// the file of a release before that had no way to, and while others go on.
func TestShrink(t *testing.T) {
	for _, former := range []bool{false, true} {
		t.Run(fmt.Sprintf("former=%t", former), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "routes.db")
			if former {
				db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := migrations.EdgeRoutes.Up(t.Context(), db); err != nil {
					t.Fatal(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			q, err := openQueue(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := q.close(); err != nil {
					t.Error(err)
				}
			}()
			if q.stepwise == former {
				t.Fatalf("space is given back in steps: %t", q.stepwise)
			}
			body := bytes.Repeat([]byte("x"), 64<<10)
			var outcomes []outcome
			put := func(n int) {
				t.Helper()
				var rows []*row
				for range n {
					now := time.Now()
					rows = append(rows, &row{destination: toHub, accepted: now, deadline: now.Add(time.Hour), m: &pb.RouteMessage{Key: fmt.Sprint(len(outcomes), "-", len(rows)), Route: "r", Payload: body}})
				}
				added, err := q.add(t.Context(), rows)
				if err != nil || len(added) != n {
					t.Fatal(len(added), err)
				}
				for _, a := range added {
					outcomes = append(outcomes, outcome{id: a.id, handed: true})
				}
			}
			for range 20 {
				put(25) // 32 MB in all
			}
			if onDisk(t, path) < 30<<20 {
				t.Fatalf("the files have %d bytes with a backlog", onDisk(t, path))
			}
			if pause, err := q.shrink(t.Context()); err != nil || pause != shrinkEvery {
				t.Fatalf("with a backlog: pause %v, %v", pause, err)
			}
			kept := outcomes[len(outcomes)-10:]
			if err := q.settle(t.Context(), time.Now(), outcomes[:len(outcomes)-10]); err != nil {
				t.Fatal(err)
			}
			outcomes = outcomes[len(outcomes)-10:]
			steps := 0
			for pause := time.Duration(0); pause < shrinkEvery; steps++ {
				if pause, err = q.shrink(t.Context()); err != nil {
					t.Fatal(err)
				}
				if steps == 3 {
					put(1) // in between
				}
			}
			if is := onDisk(t, path); is > 7<<20 {
				t.Errorf("the files have %d bytes after %d steps", is, steps)
			}
			if !q.stepwise || q.shrinking || former != (steps == 1) {
				t.Errorf("after %d steps: stepwise %t, shrinking %t", steps, q.stepwise, q.shrinking)
			}
			rows, err := q.page(context.Background(), toHub, 0, 100)
			if err != nil || len(rows) != len(outcomes) || rows[0].id != kept[0].id || !bytes.Equal(rows[9].m.Payload, body) {
				t.Errorf("%d are left, want %d: %v", len(rows), len(outcomes), err)
			}
			var sound string
			if err := q.db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
				t.Error(sound, err)
			}
			// What comes next goes on with the numbers.
			if put(1); outcomes[len(outcomes)-1].id <= kept[9].id {
				t.Errorf("id %d after %d", outcomes[len(outcomes)-1].id, kept[9].id)
			}
		})
	}
}

// onDisk is how many bytes a database has on the disk.
func onDisk(t *testing.T, path string) (n int64) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}
