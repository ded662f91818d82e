package outbox

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3" // also registers the driver
	"github.com/oklog/ulid/v2"
	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/migrations"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// file is the SQLite side of the log. One goroutine writes; read may be called
// from any, beside it.
//
// What its pragmas mean for the two promises of the log:
//
//   - journal_mode=WAL: a commit is an append to the -wal file. The kernel has it
//     when COMMIT returns, so it survives a kill of the process.
//   - synchronous=NORMAL: in WAL mode SQLite then syncs only around checkpoints, so
//     that a commit costs no flush of the disk. A power loss may take commits, always
//     the newest ones, and never damages older ones: frames carry checksums.
//   - One commit under synchronous=FULL syncs the -wal file, and with it every
//     commit before. sync makes one now and then, which is what bounds a power loss:
//     one flush of the disk instead of the two of a checkpoint, and no page is
//     written to its place in the database that is deleted before its time comes.
//   - auto_vacuum=INCREMENTAL lets vacuum give pages of forgotten records back to the
//     file system. It has to be set before the first table is made.
//   - cache_size is small: nothing is read twice, and a long log must not take more
//     memory than a short one.
//   - journal_size_limit cuts the -wal file back after a checkpoint.
type file struct {
	db      *sql.DB
	conn    *sql.Conn // the only one of db: pragmas are a connection's
	readers *sql.DB
	every   bool // each commit is synced

	state     state // as of the last commit
	dirty     bool  // commits have not been synced
	vacuuming bool  // there was much to give back, and still is some
}

// state is what is kept of the file in memory. It changes by being replaced when
// a transaction has been committed.
type state struct {
	last    uint64 // newest seq given out
	floor   uint64 // every record up to here is gone
	records int64
	bytes   int64
	dropped int64              // samples, ever
	by      [len(causes)]int64 // samples dropped since the file was opened
	epochs  []epoch
	gaps    []edgelink.Gap // not in a record yet
}

// causes are the reasons for which an outbox drops samples.
var causes = [...]string{edgelink.GapOutboxFull, edgelink.GapOutboxAge, edgelink.GapDiskFull, edgelink.GapUnreadable}

// drop counts the samples of g as dropped and notes the gap.
func (s *state) drop(g edgelink.Gap) {
	s.dropped += int64(g.Samples)
	for i, cause := range causes {
		if cause == g.Reason {
			s.by[i] += int64(g.Samples)
		}
	}
	s.gaps = mergeGap(s.gaps, g)
}

// epoch is one life of the log. It owns the seqs above parentLast up to last.
type epoch struct {
	n          int64
	id         string
	parent     string
	parentLast uint64
	last       uint64 // as far as it has come; for a former epoch, where the next one begins
	acked      uint64
}

func (s *state) current() *epoch { return &s.epochs[len(s.epochs)-1] }

// owner returns the epoch that a seq belongs to, nil when its epoch is gone.
func owner(epochs []epoch, seq uint64) *epoch {
	for i := range epochs {
		if e := &epochs[i]; seq > e.parentLast && seq <= e.last {
			return e
		}
	}
	return nil
}

// row is a record as the file has it.
type row struct {
	seq      uint64
	samples  int
	gaps     int
	created  time.Time
	ran      time.Duration
	from, to int64 // microseconds since 1970
	body     []byte
}

// rowCost is what a record of n bytes counts for: beside its body it has columns
// and a place in a page.
func rowCost(n int) int64 { return int64(n) + 64 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	walLimit  = 4 << 20
	slackPage = 1024 // free pages that are kept for what comes
	// vacuumStep is how many pages are given back in one transaction: more would
	// hold up what is to be stored for as long as they take to be moved and written.
	vacuumStep = 256
)

// openFile opens or makes the file and begins an epoch, durably: one after the
// file's newest, or after former when the file is new.
func openFile(ctx context.Context, path string, every bool, now time.Time, former epoch) (_ *file, err error) {
	f, err := attach(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	f.every = every
	if err := f.load(ctx); err != nil {
		return nil, err
	}
	failpoint.Here("outbox.open")
	if err := f.begin(now, former); err != nil {
		return nil, err
	}
	if !every {
		// The epoch is on disk by now: it was committed under FULL.
		if err := pragma(f.conn, "synchronous=NORMAL"); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// attach opens or makes the file, and neither reads nor changes what is in it.
func attach(ctx context.Context, path string) (_ *file, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// SQLite takes over the mode for the files it puts beside this one.
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	made.Close()

	f := &file{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	f.db, err = sql.Open("sqlite3", dsn(path, "_auto_vacuum=incremental&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate&_stmt_cache_size=16&_cache_size=-1024"))
	if err != nil {
		return nil, err
	}
	f.db.SetMaxOpenConns(1)
	if _, err := migrations.EdgeOutbox.Up(ctx, f.db); err != nil {
		return nil, err
	}
	f.readers, err = sql.Open("sqlite3", dsn(path, "mode=ro&_query_only=1&_busy_timeout=5000&_stmt_cache_size=8&_cache_size=-256"))
	if err != nil {
		return nil, err
	}
	f.readers.SetMaxOpenConns(2)
	if f.conn, err = f.db.Conn(ctx); err != nil {
		return nil, err
	}
	if err := pragma(f.conn, fmt.Sprintf("journal_size_limit=%d", walLimit)); err != nil {
		return nil, err
	}
	return f, nil
}

func dsn(path, params string) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: params}).String()
}

// pragma runs a pragma to its end: some do their work row by row, and Exec would
// stop at the first.
func pragma(conn *sql.Conn, text string) error {
	rows, err := conn.QueryContext(context.Background(), "PRAGMA "+text)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func (f *file) close() error {
	var errs []error
	if f.readers != nil {
		errs = append(errs, f.readers.Close())
	}
	if f.conn != nil {
		errs = append(errs, f.conn.Close())
	}
	if f.db != nil {
		errs = append(errs, f.db.Close())
	}
	return errors.Join(errs...)
}

// load reads the state. It costs the same however long the log is: log.records and
// log.bytes know the rows up to log.counted, and few come after.
func (f *file) load(ctx context.Context) error {
	var s state
	var counted, records, bytes uint64
	var newest, first sql.Null[int64]
	var err error
	q := func(query string, args []any, to ...any) error {
		return f.conn.QueryRowContext(ctx, query, args...).Scan(to...)
	}
	if err := q(`SELECT last, counted, records, bytes, dropped FROM log`, nil, &s.last, &counted, &s.records, &s.bytes, &s.dropped); err != nil {
		return err
	}
	if err := q(`SELECT count(*), coalesce(sum(length(body) + ?), 0) FROM record WHERE seq > ?`, []any{rowCost(0), counted}, &records, &bytes); err != nil {
		return err
	}
	s.records += int64(records)
	s.bytes += int64(bytes)
	if err := q(`SELECT max(seq) FROM record`, nil, &newest); err != nil {
		return err
	}
	s.last = max(s.last, uint64(newest.V))
	if err := q(`SELECT min(seq) FROM record`, nil, &first); err != nil {
		return err
	}
	s.floor = s.last
	if first.Valid {
		var below sql.Null[int64]
		if err := q(`SELECT max(seq) FROM record WHERE seq < ?`, []any{first.V}, &below); err != nil {
			return err
		}
		if below.Valid {
			return fmt.Errorf("record %d before the first one, %d: %w", below.V, first.V, errDisorder)
		}
		s.floor = uint64(first.V) - 1
	}

	if s.epochs, err = f.loadEpochs(ctx, s.last); err != nil {
		return err
	}
	if s.gaps, err = f.loadGaps(ctx); err != nil {
		return err
	}
	f.state = s
	return nil
}

func (f *file) loadEpochs(ctx context.Context, last uint64) (epochs []epoch, err error) {
	rows, err := f.conn.QueryContext(ctx, `SELECT n, id, parent, parent_last, acked FROM epoch ORDER BY n`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e epoch
		if err := rows.Scan(&e.n, &e.id, &e.parent, &e.parentLast, &e.acked); err != nil {
			return nil, err
		}
		if n := len(epochs); n > 0 {
			epochs[n-1].last = e.parentLast
		}
		e.last = last
		epochs = append(epochs, e)
	}
	return epochs, rows.Err()
}

func (f *file) loadGaps(ctx context.Context) (gaps []edgelink.Gap, err error) {
	rows, err := f.conn.QueryContext(ctx, `SELECT reason, epoch, first_seq, last_seq, samples, from_us, to_us FROM gap ORDER BY n`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var g edgelink.Gap
		var from, to int64
		if err := rows.Scan(&g.Reason, &g.Epoch, &g.FirstSeq, &g.LastSeq, &g.Samples, &from, &to); err != nil {
			return nil, err
		}
		g.From, g.To = timeOf(from), timeOf(to)
		gaps = append(gaps, g)
	}
	return gaps, rows.Err()
}

func (f *file) begin(now time.Time, former epoch) error {
	id, err := ulid.New(uint64(max(now.UnixMilli(), 0)), rand.Reader)
	if err != nil {
		return fmt.Errorf("epoch id: %w", err)
	}
	return f.write(func(tx *sql.Tx, next *state) error {
		if len(next.epochs) > 0 {
			former = *next.current()
		}
		next.last = max(next.last, former.last)
		if next.records == 0 {
			next.floor = next.last
		}
		e := epoch{n: former.n + 1, id: id.String(), parent: former.id, parentLast: next.last, last: next.last}
		next.epochs = append(next.epochs, e)
		if _, err := tx.Exec(`INSERT INTO epoch (n, id, parent, parent_last, acked) VALUES (?, ?, ?, ?, 0)`, e.n, e.id, e.parent, e.parentLast); err != nil {
			return err
		}
		return forgetEpochs(tx, next)
	})
}

// write runs one transaction and takes over the state it leads to when it has
// been committed.
func (f *file) write(do func(tx *sql.Tx, next *state) error) error {
	// Never under a caller's context: an interrupted commit helps nobody.
	tx, err := f.conn.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	next := f.state
	next.epochs, next.gaps = slices.Clone(next.epochs), slices.Clone(next.gaps)
	if err := do(tx, &next); err != nil {
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		_ = tx.Rollback()
		return err
	}
	f.state = next
	f.dirty = !f.every
	return nil
}

// save writes the state to the log row. A transaction that removes rows has to.
func save(tx *sql.Tx, next *state, ran time.Duration) error {
	_, err := tx.Exec(`UPDATE log SET ran_ms = max(ran_ms, ?), last = ?, counted = ?, records = ?, bytes = ?, dropped = ?, synced = synced + 1`,
		ran.Milliseconds(), next.last, next.last, next.records, next.bytes, next.dropped)
	return err
}

func saveGaps(tx *sql.Tx, next *state) error {
	if _, err := tx.Exec(`DELETE FROM gap`); err != nil {
		return err
	}
	for _, g := range next.gaps {
		if _, err := tx.Exec(`INSERT INTO gap (reason, epoch, first_seq, last_seq, samples, from_us, to_us) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			g.Reason, g.Epoch, g.FirstSeq, g.LastSeq, g.Samples, microseconds(g.From), microseconds(g.To)); err != nil {
			return err
		}
	}
	return nil
}

// append adds a record. When takeGaps, the gaps so far are in it. lost are
// samples that earlier appends could not store. The oldest records go to keep
// the log within maxBytes.
func (f *file) append(r row, takeGaps bool, lost edgelink.Gap, maxBytes int64) error {
	return f.write(func(tx *sql.Tx, next *state) error {
		before := len(next.gaps)
		gapsChanged, removed := takeGaps && before > 0, false
		if takeGaps {
			next.gaps = nil
		}
		if lost.Samples > 0 {
			lost.Epoch = next.current().id
			next.drop(lost)
			gapsChanged, removed = true, true
		}
		if cost := rowCost(len(r.body)); next.bytes+cost > maxBytes {
			// Somewhat more than needed, so that a full log does not drop at each append.
			room := cost + maxBytes/32
			if err := dropOldest(tx, next, edgelink.GapOutboxFull, func(row) bool { return next.bytes+room > maxBytes }); err != nil {
				return err
			}
			gapsChanged, removed = true, true
		}
		next.last = r.seq
		next.current().last = r.seq
		next.records++
		next.bytes += rowCost(len(r.body))
		if _, err := tx.Exec(`INSERT INTO record (seq, epoch, samples, gaps, created_us, ran_ms, from_us, to_us, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.seq, next.current().n, r.samples, r.gaps, r.created.UnixMicro(), r.ran.Milliseconds(),
			r.from, r.to, crc32.Checksum(r.body, castagnoli), r.body); err != nil {
			return err
		}
		if gapsChanged {
			if err := saveGaps(tx, next); err != nil {
				return err
			}
		}
		failpoint.Here("outbox.append")
		if removed {
			return save(tx, next, r.ran)
		}
		return nil
	})
}

// dropOldest removes records from the oldest on while more says so, and counts
// what had not been acknowledged.
func dropOldest(tx *sql.Tx, next *state, reason string, more func(oldest row) bool) error {
	for {
		rows, err := scanRows(tx, `SELECT seq, samples, gaps, ran_ms, from_us, to_us, length(body) FROM record WHERE seq > ? ORDER BY seq LIMIT 256`, next.floor)
		if err != nil {
			return err
		}
		n := 0
		for ; n < len(rows) && more(rows[n].row); n++ {
			r := rows[n]
			next.records--
			next.bytes -= rowCost(r.length)
			next.floor = r.seq
			e := owner(next.epochs, r.seq)
			if e == nil || r.seq <= e.acked {
				continue
			}
			next.drop(edgelink.Gap{Reason: reason, Epoch: e.id, FirstSeq: r.seq, LastSeq: r.seq,
				Samples: uint64(r.samples), From: timeOf(r.from), To: timeOf(r.to)})
			if r.row.gaps > 0 {
				// It told of gaps that the hub has not heard of.
				if err := keepGaps(tx, next, r.seq); err != nil {
					return err
				}
			}
		}
		if n > 0 {
			if _, err := tx.Exec(`DELETE FROM record WHERE seq <= ?`, next.floor); err != nil {
				return err
			}
		}
		if n < len(rows) || len(rows) == 0 {
			return forgetEpochs(tx, next)
		}
	}
}

// keepGaps takes the gaps out of a record that is about to go.
func keepGaps(tx *sql.Tx, next *state, seq uint64) error {
	var body []byte
	if err := tx.QueryRow(`SELECT body FROM record WHERE seq = ?`, seq).Scan(&body); err != nil {
		return err
	}
	d, err := edgelink.DecodeRecord(body)
	if err != nil {
		return nil // damaged; the record's own gap stands for it
	}
	for _, g := range d.Gaps {
		next.gaps = mergeGap(next.gaps, g)
	}
	return nil
}

type scanned struct {
	row
	length int
}

func scanRows(tx *sql.Tx, query string, args ...any) ([]scanned, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []scanned
	for rows.Next() {
		var r scanned
		var ran int64
		if err := rows.Scan(&r.seq, &r.samples, &r.gaps, &ran, &r.from, &r.to, &r.length); err != nil {
			return nil, err
		}
		r.samples, r.ran = max(r.samples, 0), time.Duration(ran)*time.Millisecond
		all = append(all, r)
	}
	return all, rows.Err()
}

// forgetEpochs removes former epochs that hold nothing any more.
func forgetEpochs(tx *sql.Tx, next *state) error {
	for len(next.epochs) > 1 && next.epochs[0].last <= next.floor {
		if _, err := tx.Exec(`DELETE FROM epoch WHERE n = ?`, next.epochs[0].n); err != nil {
			return err
		}
		next.epochs = next.epochs[1:]
	}
	return nil
}

// trimStep is how many records one transaction forgets, so that an append never
// waits long behind the end of a long drain.
const trimStep = 2000

// trim forgets records that were acknowledged and reports whether more are left.
// It syncs: the commit is needed anyway.
func (f *file) trim(acked map[string]uint64, ran time.Duration) (more bool, err error) {
	err = f.synced(func() error {
		return f.write(func(tx *sql.Tx, next *state) error {
			for i := range next.epochs {
				e := &next.epochs[i]
				if seq := acked[e.id]; seq > e.acked {
					e.acked = seq
					if _, err := tx.Exec(`UPDATE epoch SET acked = ? WHERE n = ?`, seq, e.n); err != nil {
						return err
					}
				}
			}
			to := trimmable(next)
			rows, err := scanRows(tx, `SELECT seq, samples, gaps, ran_ms, from_us, to_us, length(body) FROM record WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`,
				next.floor, to, trimStep)
			if err != nil {
				return err
			}
			if more = len(rows) == trimStep; more {
				to = rows[trimStep-1].seq
			}
			if to > next.floor {
				if _, err := tx.Exec(`DELETE FROM record WHERE seq <= ?`, to); err != nil {
					return err
				}
				next.floor = to
			}
			for _, r := range rows {
				next.records--
				next.bytes -= rowCost(r.length)
			}
			failpoint.Here("outbox.trim")
			if err := forgetEpochs(tx, next); err != nil {
				return err
			}
			return save(tx, next, ran)
		})
	})
	return more, err
}

// trimmable returns the seq up to which every record is acknowledged or gone.
func trimmable(s *state) uint64 {
	to := s.floor
	for _, e := range s.epochs {
		if e.last > to && e.acked < e.last {
			return max(to, e.acked)
		}
		to = max(to, e.last)
	}
	return to
}

// expire drops records made before the log had run for so long.
func (f *file) expire(before, ran time.Duration) error {
	var oldest sql.Null[int64]
	err := f.conn.QueryRowContext(context.Background(), `SELECT ran_ms FROM record WHERE seq > ? ORDER BY seq LIMIT 1`, f.state.floor).Scan(&oldest)
	if errors.Is(err, sql.ErrNoRows) || err == nil && oldest.V >= before.Milliseconds() {
		return nil
	}
	if err != nil {
		return err
	}
	return f.write(func(tx *sql.Tx, next *state) error {
		if err := dropOldest(tx, next, edgelink.GapOutboxAge, func(oldest row) bool { return oldest.ran < before }); err != nil {
			return err
		}
		if err := saveGaps(tx, next); err != nil {
			return err
		}
		return save(tx, next, ran)
	})
}

// setAside removes records that cannot be read and notes the gaps.
func (f *file) setAside(seqs []uint64, ran time.Duration) error {
	return f.write(func(tx *sql.Tx, next *state) error {
		for _, seq := range seqs {
			rows, err := scanRows(tx, `SELECT seq, samples, gaps, ran_ms, from_us, to_us, length(body) FROM record WHERE seq = ?`, seq)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if e := owner(next.epochs, seq); e != nil {
					next.drop(edgelink.Gap{Reason: edgelink.GapUnreadable, Epoch: e.id, FirstSeq: seq, LastSeq: seq,
						Samples: uint64(r.samples), From: timeOf(r.from), To: timeOf(r.to)})
				}
				next.records--
				next.bytes -= rowCost(r.length)
				if _, err := tx.Exec(`DELETE FROM record WHERE seq = ?`, seq); err != nil {
					return err
				}
			}
		}
		if err := saveGaps(tx, next); err != nil {
			return err
		}
		return save(tx, next, ran)
	})
}

// note counts and keeps gaps that were found from outside the file.
func (f *file) note(gaps []edgelink.Gap, ran time.Duration) error {
	return f.write(func(tx *sql.Tx, next *state) error {
		for _, g := range gaps {
			next.drop(g)
		}
		if err := saveGaps(tx, next); err != nil {
			return err
		}
		return save(tx, next, ran)
	})
}

// sync makes every commit so far survive a power loss.
func (f *file) sync(ran time.Duration) error {
	if !f.dirty {
		return nil
	}
	return f.synced(func() error {
		return f.write(func(tx *sql.Tx, next *state) error { return save(tx, next, ran) })
	})
}

// synced runs a write whose commit syncs.
func (f *file) synced(write func() error) error {
	if f.every {
		return write()
	}
	if err := pragma(f.conn, "synchronous=FULL"); err != nil {
		return err
	}
	err := write()
	if err == nil {
		f.dirty = false
	}
	if back := pragma(f.conn, "synchronous=NORMAL"); err == nil {
		err = back
	}
	return err
}

// makeRoom moves what is in the -wal file to its place, so that the file can be
// written from its start again.
func (f *file) makeRoom() error { return pragma(f.conn, "wal_checkpoint(TRUNCATE)") }

// vacuum gives free pages back to the file system, a few at a time, and reports
// whether there are more.
func (f *file) vacuum() (more bool, err error) {
	var free int
	if err := f.conn.QueryRowContext(context.Background(), `PRAGMA freelist_count`).Scan(&free); err != nil {
		return false, err
	}
	if free <= slackPage {
		f.vacuuming = false
	} else if free > 2*slackPage {
		f.vacuuming = true
	}
	if !f.vacuuming {
		return false, nil
	}
	if err := pragma(f.conn, fmt.Sprintf("incremental_vacuum(%d)", min(free-slackPage, vacuumStep))); err != nil {
		return false, err
	}
	f.dirty = !f.every
	return true, nil
}

// ran returns the time the log had been open up to the last save.
func (f *file) ran() (time.Duration, error) {
	var ms int64
	err := f.conn.QueryRowContext(context.Background(), `SELECT ran_ms FROM log`).Scan(&ms)
	return time.Duration(ms) * time.Millisecond, err
}

// read returns records in (after, to] in order, up to maxBytes but at least one,
// leaving out what want refuses. Records that are damaged are named instead. at
// is how far it looked.
func (f *file) read(after, to uint64, maxBytes int, want func(seq uint64) (epoch string, ok bool)) (found []Record, damaged []uint64, at uint64, err error) {
	found, damaged, first, at, err := f.readSome(after, to, maxBytes, want)
	if err == nil && first != after+1 && after < to {
		if first == 0 { // there is nothing
			first = to + 1
		}
		if err = noneBetween(context.Background(), f.readers, after, first); err != nil {
			return nil, nil, after, err
		}
	}
	return found, damaged, at, err
}

// errDisorder: the file has records where a search for them does not find them. SQLite
// itself does not notice a number within a page that was changed.
var errDisorder = errors.New("the records are not in their order")

// noneBetween checks a hole in the numbers: coming from its other end, too, there is
// nothing in it.
func noneBetween(ctx context.Context, db *sql.DB, after, before uint64) error {
	var seq sql.Null[int64]
	if err := db.QueryRowContext(ctx, `SELECT max(seq) FROM record WHERE seq < ?`, before).Scan(&seq); err != nil {
		return err
	}
	if seq.Valid && uint64(seq.V) > after {
		return fmt.Errorf("record %d: %w", seq.V, errDisorder)
	}
	return nil
}

// readSome is read up to the first hole in the numbers that is not right behind after;
// first is the first number, 0 when there is none.
func (f *file) readSome(after, to uint64, maxBytes int, want func(seq uint64) (epoch string, ok bool)) (found []Record, damaged []uint64, first, at uint64, err error) {
	rows, err := f.readers.Query(`SELECT seq, samples, created_us, crc, body FROM record WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1000`, after, to)
	if err != nil {
		return nil, nil, 0, after, err
	}
	defer rows.Close()
	at = after
	total := 0
	for rows.Next() {
		var r Record
		var created, crc int64
		var body sql.RawBytes
		if err := rows.Scan(&r.Seq, &r.Samples, &created, &crc, &body); err != nil {
			return nil, nil, 0, at, err
		}
		switch {
		case r.Seq <= at:
			return nil, nil, 0, after, fmt.Errorf("record %d after %d: %w", r.Seq, at, errDisorder)
		case first == 0:
			first = r.Seq
		case r.Seq != at+1:
			return found, damaged, first, at, nil
		}
		epoch, ok := want(r.Seq)
		if ok {
			if len(found) > 0 && total+len(body) > maxBytes {
				return found, damaged, first, at, nil
			}
			if int64(crc32.Checksum(body, castagnoli)) != crc {
				damaged = append(damaged, r.Seq)
			} else {
				total += len(body)
				r.Epoch, r.Data, r.Created = epoch, slices.Clone([]byte(body)), timeOf(created)
				found = append(found, r)
			}
		}
		at = r.Seq
	}
	return found, damaged, first, at, rows.Err()
}

// oldest returns the first seq in (after, to] and when its record was made.
func (f *file) oldest(after, to uint64) (seq uint64, created time.Time, err error) {
	var us int64
	err = f.readers.QueryRow(`SELECT seq, created_us FROM record WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1`, after, to).Scan(&seq, &us)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, time.Time{}, nil
	}
	return seq, timeOf(us), err
}

// maxGaps bounds the gaps that wait for a record.
const maxGaps = 512

// mergeGap adds g to the list, as part of the one it continues where there is one.
func mergeGap(list []edgelink.Gap, g edgelink.Gap) []edgelink.Gap {
	for i := len(list) - 1; i >= 0; i-- {
		have := &list[i]
		if have.Reason != g.Reason {
			continue
		}
		// Beyond the bound only the number of samples stays exact.
		neighbours := have.Epoch == g.Epoch && have.LastSeq+1 >= g.FirstSeq && g.LastSeq+1 >= have.FirstSeq
		if !neighbours && len(list) < maxGaps {
			continue
		}
		if have.Epoch == g.Epoch {
			have.FirstSeq, have.LastSeq = min(have.FirstSeq, g.FirstSeq), max(have.LastSeq, g.LastSeq)
		}
		have.Samples += g.Samples
		if have.From.IsZero() || !g.From.IsZero() && g.From.Before(have.From) {
			have.From = g.From
		}
		if g.To.After(have.To) {
			have.To = g.To
		}
		return list
	}
	return append(list, g)
}

// DiskFull reports whether err, of this package or of another that works with files
// or SQLite, says that there is no space left.
func DiskFull(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrFull || e.SystemErrno == syscall.ENOSPC) || errors.Is(err, syscall.ENOSPC)
}

// corrupt reports whether err says that the file is no sound database.
func corrupt(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB) || errors.Is(err, errDisorder)
}

// microseconds and timeOf keep a time in an integer column; 0 is none.
func microseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
