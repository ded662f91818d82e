package routes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver
	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/migrations"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Where a queued message is to go.
const (
	toHub  = 0
	toHere = 1 // an app or another broker, from this node
)

// Bounds of the queue. A message beyond them is not taken: who publishes with
// QoS 1 gets no PUBACK and keeps it, who posts gets a 429.
const (
	maxMessages = 100_000
	maxBytes    = 256 << 20
)

// ErrFull says that the queue takes nothing for now.
var ErrFull = errors.New("the queue of routed messages is full: what it holds has to be delivered first")

// queue is the messages that were taken and are not delivered, in one SQLite
// file. A commit survives a kill, and a power loss up to the last checkpoint of
// the file's log.
type queue struct {
	db *sql.DB
	id string
	// Statements of each message. What is in a transaction takes no context, which would
	// cost a goroutine each.
	insert, remove *sql.Stmt
	// The bounds; tests have lower ones.
	maxMessages int
	maxBytes    int64

	mu        sync.Mutex // one transaction at a time; protects all below
	stepwise  bool       // free pages can be given back in steps
	shrinking bool       // there were many, and some are left
	messages  int
	bytes     int64
	totals    map[string]*total // by route's uid
	dirty     map[string]bool   // totals that are not stored
}

// total counts what became of a route's messages.
type total struct {
	delivered, failed, dropped uint64
	queued                     int
	lastError                  string
	lastErrorAt                time.Time
}

// row is a queued message.
type row struct {
	id          int64
	destination int
	lane        string
	accepted    time.Time
	deadline    time.Time
	retries     int
	attempts    int
	m           *pb.RouteMessage
}

func openQueue(ctx context.Context, path string) (_ *queue, err error) {
	path, err = filepath.Abs(path) // a relative one would be taken for a host in the URI
	if err != nil {
		return nil, fmt.Errorf("open queue of routes: %w", err)
	}
	// SQLite gives the files beside this one the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open queue of routes: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open queue of routes: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "_auto_vacuum=incremental&_journal_mode=WAL&_busy_timeout=10000&_txlock=immediate&_synchronous=NORMAL"}
	q := &queue{maxMessages: maxMessages, maxBytes: maxBytes, totals: map[string]*total{}, dirty: map[string]bool{}}
	if q.db, err = sql.Open("sqlite3", dsn.String()); err != nil {
		return nil, fmt.Errorf("open queue of routes: %w", err)
	}
	q.db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("queue of routes %s: %w", path, err), q.db.Close())
		}
	}()
	if _, err := migrations.EdgeRoutes.Up(ctx, q.db); err != nil {
		return nil, err
	}
	if _, err := q.db.ExecContext(ctx, "INSERT OR IGNORE INTO queue (one, id) VALUES (1, ?)", ulid.Make().String()); err != nil {
		return nil, err
	}
	if err := q.db.QueryRowContext(ctx, "SELECT id FROM queue").Scan(&q.id); err != nil {
		return nil, err
	}
	if q.insert, err = q.db.PrepareContext(ctx, `INSERT INTO message (key, route, destination, lane, accepted_us, deadline_us, retries, attempts, bytes, body)
		VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key, destination) DO NOTHING`); err != nil {
		return nil, err
	}
	if q.remove, err = q.db.PrepareContext(ctx, "DELETE FROM message WHERE id = ? RETURNING route, bytes"); err != nil {
		return nil, err
	}
	if err := q.loadTotals(ctx); err != nil {
		return nil, err
	}
	mode, err := q.number(ctx, "auto_vacuum")
	q.stepwise = mode == 2
	return q, err
}

func (q *queue) loadTotals(ctx context.Context) error {
	rows, err := q.db.QueryContext(ctx, "SELECT route, delivered, failed, dropped, last_error, last_error_us FROM total")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var route string
		var t total
		var at int64
		if err := rows.Scan(&route, &t.delivered, &t.failed, &t.dropped, &t.lastError, &at); err != nil {
			return err
		}
		if at != 0 {
			t.lastErrorAt = time.UnixMicro(at)
		}
		q.totals[route] = &t
	}
	if err := rows.Err(); err != nil {
		return err
	}
	waiting, err := q.db.QueryContext(ctx, "SELECT route, count(*), sum(bytes) FROM message GROUP BY route")
	if err != nil {
		return err
	}
	defer waiting.Close()
	for waiting.Next() {
		var route string
		var n int
		var bytes int64
		if err := waiting.Scan(&route, &n, &bytes); err != nil {
			return err
		}
		q.totalLocked(route).queued = n
		q.messages += n
		q.bytes += bytes
	}
	return waiting.Err()
}

func (q *queue) close() error { return errors.Join(q.insert.Close(), q.remove.Close(), q.db.Close()) }

func (q *queue) totalLocked(route string) *total {
	t := q.totals[route]
	if t == nil {
		t = &total{}
		q.totals[route] = t
	}
	return t
}

// size of what a message takes in the bound.
func size(m *pb.RouteMessage) int64 { return int64(m.SizeVT()) + 100 }

// add stores messages, all or none, and fills in their ids. Those that are there
// already, by key and destination, are left out of what it returns.
func (q *queue) add(ctx context.Context, rows []*row) (added []*row, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var bytes int64
	for _, r := range rows {
		bytes += size(r.m)
	}
	if q.messages+len(rows) > q.maxMessages || q.bytes+bytes > q.maxBytes {
		return nil, ErrFull
	}
	put := func(insert *sql.Stmt) error {
		for _, r := range rows {
			body, err := r.m.MarshalVT()
			if err != nil {
				return err
			}
			res, err := insert.Exec(r.m.Key, r.m.Route, r.destination, r.lane, r.accepted.UnixMicro(), r.deadline.UnixMicro(), r.retries, r.attempts, size(r.m), body)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				continue
			}
			if r.id, err = res.LastInsertId(); err != nil {
				return err
			}
			added = append(added, r)
		}
		return nil
	}
	if len(rows) == 1 { // a statement is a transaction
		if err := put(q.insert); err != nil {
			return nil, fmt.Errorf("queue of routes: %w", err)
		}
	} else if err := q.changeLocked(ctx, func(tx *sql.Tx) error { return put(tx.Stmt(q.insert)) }); err != nil {
		return nil, err
	}
	for _, r := range added {
		q.messages++
		q.bytes += size(r.m)
		q.totalLocked(r.m.Route).queued++
	}
	return added, nil
}

// changeLocked runs f in one transaction.
func (q *queue) changeLocked(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := q.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("queue of routes: %w", err)
	}
	if err := f(tx); err != nil {
		return fmt.Errorf("queue of routes: %w", errors.Join(err, tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("queue of routes: %w", err)
	}
	return nil
}

// scan reads what a query for rows found.
func scan(rows *sql.Rows, err error) (out []*row, _ error) {
	if err != nil {
		return nil, fmt.Errorf("queue of routes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r := &row{m: &pb.RouteMessage{}}
		var accepted, deadline int64
		var body []byte
		if err := rows.Scan(&r.id, &r.destination, &r.lane, &accepted, &deadline, &r.retries, &r.attempts, &body); err != nil {
			return nil, fmt.Errorf("queue of routes: %w", err)
		}
		if err := r.m.UnmarshalVT(body); err != nil {
			return nil, fmt.Errorf("queue of routes: message %d: %w", r.id, err)
		}
		r.accepted, r.deadline = time.UnixMicro(accepted), time.UnixMicro(deadline)
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("queue of routes: %w", err)
	}
	return out, nil
}

const columns = "SELECT id, destination, lane, accepted_us, deadline_us, retries, attempts, body FROM message "

// page returns messages with a destination after an id, in order.
func (q *queue) page(ctx context.Context, destination int, after int64, limit int) ([]*row, error) {
	return scan(q.db.QueryContext(ctx, columns+"WHERE destination = ? AND id > ? ORDER BY id LIMIT ?", destination, after, limit))
}

// get returns a message, nil when it is there no more.
func (q *queue) get(ctx context.Context, id int64) (*row, error) {
	rows, err := scan(q.db.QueryContext(ctx, columns+"WHERE id = ?", id))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// outcome is what is to be stored of a message.
type outcome struct {
	id        int64
	delivered bool // here; counted
	handed    bool // to the hub, which counts
	attempts  int
	error     string
	dead      *pb.RouteMessage // it becomes a dead letter, for the hub to keep
}

// settle stores outcomes.
func (q *queue) settle(ctx context.Context, now time.Time, outcomes []outcome) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	type gone struct {
		route string
		bytes int64
	}
	var left []gone
	var grown int64
	staged := map[string]*total{} // shown when it is stored
	err := q.changeLocked(ctx, func(tx *sql.Tx) error {
		remove := tx.Stmt(q.remove)
		for _, o := range outcomes {
			var g gone
			var err error
			if o.delivered || o.handed {
				err = remove.QueryRow(o.id).Scan(&g.route, &g.bytes)
			} else {
				err = tx.QueryRow("SELECT route, bytes FROM message WHERE id = ?", o.id).Scan(&g.route, &g.bytes)
			}
			if errors.Is(err, sql.ErrNoRows) {
				continue // settled before: the store of it was not heard of
			}
			if err != nil {
				return err
			}
			switch {
			case o.delivered || o.handed:
				left = append(left, g)
			case o.dead != nil:
				body, err := o.dead.MarshalVT()
				if err != nil {
					return err
				}
				if _, err := tx.Exec("UPDATE OR REPLACE message SET destination = ?, attempts = ?, bytes = ?, body = ? WHERE id = ?", toHub, o.attempts, size(o.dead), body, o.id); err != nil {
					return err
				}
				grown += size(o.dead) - g.bytes
			default:
				if _, err := tx.Exec("UPDATE message SET attempts = ? WHERE id = ?", o.attempts, o.id); err != nil {
					return err
				}
			}
			t := staged[g.route]
			if t == nil {
				t = new(*q.totalLocked(g.route))
				staged[g.route] = t
			}
			t.count(o, now)
		}
		for route, t := range staged {
			if err := storeTotal(tx, route, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for route, t := range staged {
		*q.totals[route] = *t
	}
	q.bytes += grown
	for _, g := range left {
		q.messages--
		q.bytes -= g.bytes
		q.totals[g.route].queued--
	}
	return nil
}

func (t *total) count(o outcome, now time.Time) {
	switch {
	case o.delivered:
		t.delivered++
	case o.dead != nil:
		t.failed++
	}
	if o.error != "" {
		t.lastError, t.lastErrorAt = o.error, now
	}
}

func storeTotal(tx *sql.Tx, route string, t *total) error {
	var at int64
	if !t.lastErrorAt.IsZero() {
		at = t.lastErrorAt.UnixMicro()
	}
	_, err := tx.Exec("INSERT OR REPLACE INTO total (route, delivered, failed, dropped, last_error, last_error_us) VALUES (?,?,?,?,?,?)",
		route, int64(t.delivered), int64(t.failed), int64(t.dropped), t.lastError, at)
	return err
}

// count notes in memory what became of a message that was never queued; flush
// stores it.
func (q *queue) count(route string, f func(*total)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f(q.totalLocked(route))
	q.dirty[route] = true
}

func (q *queue) flush(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.dirty) == 0 {
		return nil
	}
	err := q.changeLocked(ctx, func(tx *sql.Tx) error {
		for route := range q.dirty {
			if err := storeTotal(tx, route, q.totals[route]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		clear(q.dirty)
	}
	return err
}

// forget drops the totals of routes that keep does not name and of which nothing
// waits.
func (q *queue) forget(ctx context.Context, keep map[string]bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var gone []string
	for route, t := range q.totals {
		if !keep[route] && t.queued == 0 {
			gone = append(gone, route)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	err := q.changeLocked(ctx, func(tx *sql.Tx) error {
		for _, route := range gone {
			if _, err := tx.ExecContext(ctx, "DELETE FROM total WHERE route = ?", route); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, route := range gone {
			delete(q.totals, route)
			delete(q.dirty, route)
		}
	}
	return err
}

// counts returns all totals as the hub is told them.
func (q *queue) counts() *pb.RouteCounts {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &pb.RouteCounts{Queue: q.id}
	for route, t := range q.totals {
		c := &pb.RouteCount{Route: route, Delivered: t.delivered, Failed: t.failed, Dropped: t.dropped, Queued: uint64(max(t.queued, 0)), LastError: t.lastError}
		if !t.lastErrorAt.IsZero() {
			c.LastErrorUs = t.lastErrorAt.UnixMicro()
		}
		out.Routes = append(out.Routes, c)
	}
	return out
}
