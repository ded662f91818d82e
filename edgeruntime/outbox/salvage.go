package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// damaged is a file that was set aside.
type damaged struct {
	path string
	// What was known of it when it was last sound, as far as that is in memory;
	// without epochs it is read from the file.
	state state
	aside bool // it has its name already
}

const (
	// salvageBytes is about how much one transaction takes over.
	salvageBytes = 4 << 20
	// salvageHoles bounds the damages that are stepped over: behind so many
	// nothing is looked for.
	salvageHoles = 1000
)

// hole is a range of seqs of which nothing can be read.
type hole struct{ first, last uint64 }

// restore makes a new file of what can still be read of a damaged one, beside
// which it lies. It appears whole or not at all.
func restore(ctx context.Context, path string, from damaged, now time.Time) (err error) {
	made := path + ".salvage"
	defer func() {
		if err != nil {
			_ = removeFile(made) // it may be what fills the disk; the next attempt removes it, too
		}
	}()
	if err := removeFile(made); err != nil {
		return err
	}
	f, err := attach(ctx, made)
	if err != nil {
		return err
	}
	lost, err := f.salvage(ctx, from, now.UnixMicro())
	if err == nil {
		err = f.load(ctx)
	}
	if err == nil {
		err = f.note(lost, 0)
	}
	if err := errors.Join(err, f.close()); err != nil {
		return err
	}
	return renameFile(made, path)
}

// salvage takes over from a damaged file what can still be read: its epochs, its
// records one by one, and the gaps that no record tells of. Nothing is written to
// the damaged one. The gaps returned say what is lost. When not even the epochs can
// be read it takes over nothing and says so.
func (f *file) salvage(ctx context.Context, from damaged, now int64) (lost []edgelink.Gap, err error) {
	whole := []edgelink.Gap{{Reason: edgelink.GapUnreadable, To: timeOf(now)}}
	old, err := sql.Open("sqlite3", dsn(from.path, "mode=ro&_query_only=1"))
	if err != nil {
		return whole, nil
	}
	defer old.Close()
	old.SetMaxOpenConns(2) // one looks ahead
	known := from.state
	if len(known.epochs) == 0 {
		was := &file{}
		if was.conn, err = old.Conn(ctx); err != nil {
			return whole, nil
		}
		known, err = was.remains(ctx)
		was.conn.Close()
		if err != nil || len(known.epochs) == 0 {
			return whole, nil
		}
	}
	if err := f.inherit(&known); err != nil {
		return nil, err
	}
	start := known.floor
	for _, e := range known.epochs { // what is acknowledged is not needed
		if e.acked < e.last {
			start = max(start, e.parentLast, e.acked)
			break
		}
		start = max(start, e.last)
	}
	holes, err := f.copyRecords(ctx, old, start, known.last)
	if err != nil {
		return nil, err
	}
	for _, h := range holes {
		for _, e := range known.epochs {
			first, last := max(h.first, e.parentLast+1, e.acked+1), min(h.last, e.last)
			if first <= last {
				lost = mergeGap(lost, edgelink.Gap{Reason: edgelink.GapUnreadable, Epoch: e.id, FirstSeq: first, LastSeq: last})
			}
		}
	}
	if len(lost) == 0 {
		// What was broken is not known to be a record. Somebody should hear of it.
		lost = []edgelink.Gap{{Reason: edgelink.GapUnreadable, Epoch: known.current().id, To: timeOf(now)}}
	}
	return lost, nil
}

// remains reads of a damaged file what load reads of a sound one, as far as it
// can.
func (f *file) remains(ctx context.Context) (state, error) {
	if f.load(ctx) == nil {
		return f.state, nil
	}
	// The records are damaged. The rest is on other pages.
	var s state
	if err := f.conn.QueryRowContext(ctx, `SELECT last, dropped FROM log`).Scan(&s.last, &s.dropped); err != nil {
		return s, err
	}
	// log.last is as old as the last sync.
	for _, query := range []string{`SELECT max(seq) FROM record`, `SELECT max(parent_last) FROM epoch`} {
		var n sql.Null[int64]
		if f.conn.QueryRowContext(ctx, query).Scan(&n) == nil {
			s.last = max(s.last, uint64(n.V))
		}
	}
	var err error
	if s.epochs, err = f.loadEpochs(ctx, s.last); err != nil {
		return s, err
	}
	s.gaps, _ = f.loadGaps(ctx) // else they are lost
	return s, nil
}

// inherit begins the file with what another one was about.
func (f *file) inherit(from *state) error {
	tx, err := f.conn.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if _, err := tx.Exec(`UPDATE log SET last = ?, dropped = ?`, from.last, from.dropped); err != nil {
		return err
	}
	for _, e := range from.epochs {
		if _, err := tx.Exec(`INSERT INTO epoch (n, id, parent, parent_last, acked) VALUES (?, ?, ?, ?, ?)`, e.n, e.id, e.parent, e.parentLast, e.acked); err != nil {
			return err
		}
	}
	if err := saveGaps(tx, from); err != nil {
		return err
	}
	return tx.Commit()
}

const recordColumns = `seq, epoch, samples, gaps, created_us, ran_ms, from_us, to_us, crc, body`

// copyRecords copies the records in (after, last] that can be read.
func (f *file) copyRecords(ctx context.Context, old *sql.DB, after, last uint64) (holes []hole, err error) {
	for after < last && len(holes) < salvageHoles {
		at, broken, err := f.copySome(ctx, old, after, last)
		if err != nil {
			return holes, err
		}
		if at == after && !broken {
			// Nothing is found, be it that nothing is there.
			broken = noneBetween(ctx, old, after, last+1) != nil
		}
		switch {
		case broken:
			// It may be one record, or a page of many, or one that leads to many pages.
			next := readableAfter(ctx, old, at, last)
			if holes = append(holes, hole{at + 1, min(next-1, last)}); next > last {
				return holes, nil
			}
			after = next - 1
		case at == after:
			return holes, nil // no more
		default:
			after = at
		}
	}
	if after < last {
		holes = append(holes, hole{after + 1, last})
	}
	return holes, nil
}

// copySome copies records after a seq in one transaction, and reports how far it
// came and whether the next one cannot be read.
func (f *file) copySome(ctx context.Context, old *sql.DB, after, last uint64) (at uint64, broken bool, err error) {
	tx, err := f.conn.BeginTx(ctx, nil)
	if err != nil {
		return after, false, err
	}
	defer tx.Rollback() // does nothing after the commit
	rows, err := old.QueryContext(ctx, `SELECT `+recordColumns+` FROM record WHERE seq > ? AND seq <= ? ORDER BY seq`, after, last)
	if err != nil {
		return after, true, nil
	}
	defer rows.Close()
	at = after
	first := true
	for size := 0; size < salvageBytes && rows.Next(); first = false {
		var seq uint64
		var epoch, samples, gaps, created, ran, from, to, crc int64
		var body sql.RawBytes
		if rows.Scan(&seq, &epoch, &samples, &gaps, &created, &ran, &from, &to, &crc, &body) != nil || seq <= at || seq > last ||
			int64(crc32.Checksum(body, castagnoli)) != crc {
			broken = true
			break
		}
		if seq != at+1 {
			if !first {
				break // the next attempt begins with it
			}
			if noneBetween(ctx, old, at, seq) != nil {
				broken = true
				break
			}
		}
		if _, err := tx.Exec(`INSERT INTO record (`+recordColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			seq, epoch, samples, gaps, created, ran, from, to, crc, []byte(body)); err != nil {
			return after, false, fmt.Errorf("take over record %d: %w", seq, err)
		}
		if _, err := tx.Exec(`UPDATE log SET ran_ms = max(ran_ms, ?)`, ran); err != nil {
			return after, false, err
		}
		size += len(body)
		at = seq
	}
	broken = broken || rows.Err() != nil
	return at, broken, tx.Commit()
}

// readableAfter returns the seq from which on something can be read again, beyond
// last when nothing can. The record after at cannot.
func readableAfter(ctx context.Context, old *sql.DB, at, last uint64) uint64 {
	// The seq of the first record from one on, or ok false.
	first := func(from uint64) (seq uint64, ok bool) {
		var n sql.Null[int64]
		if old.QueryRowContext(ctx, `SELECT min(seq) FROM record WHERE seq >= ?`, from).Scan(&n) != nil {
			return 0, false
		}
		if !n.Valid {
			return math.MaxInt64, noneBetween(ctx, old, from-1, last+1) == nil
		}
		if uint64(n.V) > last || noneBetween(ctx, old, from-1, uint64(n.V)) != nil {
			return 0, false // it is not where it should be
		}
		var sum int64
		if old.QueryRowContext(ctx, `SELECT crc FROM record WHERE seq = ?`, n.V).Scan(&sum) != nil {
			return 0, false
		}
		return uint64(n.V), true
	}
	if seq, ok := first(at + 1); ok {
		// The page is sound, so it is this record's body that is not.
		return seq + 1
	}
	// Far enough ahead there is a sound page. Then halve the way back.
	bad, good, step := at+1, uint64(0), uint64(1)
	for good == 0 && bad < last {
		try := min(bad+step, last+1)
		if _, ok := first(try); ok {
			good = try
		} else {
			bad, step = try, step*2
		}
	}
	if good == 0 {
		return last + 1
	}
	for good-bad > 1 {
		if try := bad + (good-bad)/2; isTrue(first(try)) {
			good = try
		} else {
			bad = try
		}
	}
	return good
}

func isTrue(_ uint64, ok bool) bool { return ok }

// asideSuffix is added to the name of a file that is set aside.
const asideSuffix = ".corrupt"

// suffixes of the files that make one log.
var suffixes = [...]string{"", "-wal", "-shm"}

// setAsideFile gives the log's files another name. An earlier one set aside gives
// way: two of them might fill the disk. An attempt that has come half way may be
// repeated.
func setAsideFile(path string) error {
	if !exists(path) {
		return renameFile(path, path+asideSuffix) // what is left of it
	}
	if err := removeFile(path + asideSuffix); err != nil {
		return err
	}
	return renameFile(path, path+asideSuffix)
}

func renameFile(from, to string) error {
	for _, suffix := range suffixes {
		if err := os.Rename(from+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func removeFile(path string) error {
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
