// Package store is what an edge must find again to work without its hub: what
// the hub wants of it, the twins of its devices, and its own settings, in one
// SQLite file. The log of what it has to tell is elsewhere (package outbox), and
// so are its keys, which are files.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mattn/go-sqlite3" // also registers the driver

	"github.com/whimbrel-edge/whimbrel/internal/failpoint"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/migrations"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// ErrDamaged is wrapped by errors about a file that SQLite cannot trust.
var ErrDamaged = errors.New("the file is damaged")

// Item is one thing the hub wants this edge to know. Its JSON is the hub's, and
// may be of a newer release.
type Item struct {
	Kind       string // Secret, DeviceModel, Device, Desired, or one of a newer hub
	Namespace  string
	Name       string
	UID        string
	Revision   uint64
	Assignment uint64 // of a Device
	JSON       []byte
}

// The kinds that this release knows.
const (
	KindSecret      = "Secret"
	KindDeviceModel = "DeviceModel"
	KindDevice      = "Device"
	KindDesired     = "Desired"
	KindRoute       = "Route" // JSON of models.NodeRoute
)

// Store is an open file. All methods are safe for concurrent use.
type Store struct {
	path    string
	key     pki.SealKey // seals Secrets
	synced  *sql.DB     // synchronous=FULL: a commit survives a power loss
	relaxed *sql.DB     // synchronous=NORMAL: a commit survives a kill, and costs no flush of the disk

	// writing keeps the two from waiting for each other inside SQLite, where the
	// wait is a poll.
	writing sync.Mutex

	mu     sync.Mutex
	commit *commit // the next one, still open to be joined; nil when there is none
}

// commit is intents on their way to the disk together: many devices that change
// at once cost one flush.
type commit struct {
	intents map[string][]byte
	done    chan struct{}
	err     error
}

// Open opens the file or makes it, mode 0600. A file that is damaged is an error
// that wraps ErrDamaged. Secrets are sealed with the key; those that it does not
// open are as if they were not there, and the hub sends them anew.
func Open(ctx context.Context, path string, key pki.SealKey) (_ *Store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// SQLite gives the files beside this one the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{path: path, key: key}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	for _, c := range []struct {
		db          **sql.DB
		synchronous string
	}{{&s.synced, "FULL"}, {&s.relaxed, "NORMAL"}} {
		dsn := url.URL{Scheme: "file", Path: path, RawQuery: "_journal_mode=WAL&_busy_timeout=10000&_txlock=immediate&_synchronous=" + c.synchronous}
		if *c.db, err = sql.Open("sqlite3", dsn.String()); err != nil {
			return nil, s.wrap("open", err)
		}
		(*c.db).SetMaxOpenConns(1)
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if _, err := migrations.EdgeStore.Up(ctx, s.synced); err != nil {
		return nil, s.wrap("open", err)
	}
	if err := s.reseal(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// sealContext ties a sealed item to its place: copied elsewhere it does not open.
func sealContext(namespace, name, uid string) []byte {
	return []byte("whimbrel/edge/" + KindSecret + "/" + namespace + "/" + name + "/" + uid)
}

// reseal seals with the first key of the key file what an older one had sealed.
func (s *Store) reseal(ctx context.Context) error {
	return s.change(ctx, s.synced, "seal secrets with the new key", func(tx *sql.Tx) error {
		items, err := readItems(ctx, tx, "WHERE kind = '"+KindSecret+"'")
		if err != nil {
			return err
		}
		for _, i := range items {
			fresh, changed, err := pki.Reseal(s.key, i.JSON, sealContext(i.Namespace, i.Name, i.UID))
			if err != nil || !changed { // what does not open is fetched anew
				continue
			}
			if _, err := tx.ExecContext(ctx, "UPDATE item SET body = ? WHERE kind = ? AND namespace = ? AND name = ?", fresh, i.Kind, i.Namespace, i.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// check reads the whole file once: half a wanted state would stop devices that
// are to run.
func (s *Store) check(ctx context.Context) error {
	var verdict string
	if err := s.synced.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return s.wrap("check", err)
	}
	if verdict != "ok" {
		return s.wrap("check", fmt.Errorf("%w: %s", ErrDamaged, verdict))
	}
	return nil
}

// wrap names the file, and says of damage what can be done.
func (s *Store) wrap(what string, err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w (move it away: the hub sends what it wants once more, and local writes that it has not heard of are lost)", err)
	}
	return fmt.Errorf("store %s: %s: %w", s.path, what, err)
}

// Close closes the file. Nobody may be using it.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.relaxed, s.synced} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// change runs f in one transaction.
func (s *Store) change(ctx context.Context, db *sql.DB, what string, f func(*sql.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap(what, err)
	}
	if err := f(tx); err != nil {
		return s.wrap(what, errors.Join(err, tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return s.wrap(what, err)
	}
	return nil
}

// Items returns all that the hub wants, ordered by kind, namespace and name.
func (s *Store) Items(ctx context.Context) (items []Item, err error) {
	stored, err := readItems(ctx, s.synced, "")
	if err != nil {
		return nil, s.wrap("read items", err)
	}
	for _, i := range stored {
		if i.Kind == KindSecret {
			if i.JSON, err = pki.Open(s.key, i.JSON, sealContext(i.Namespace, i.Name, i.UID)); err != nil {
				continue // the key file is another one than before: the hub sends it once more
			}
		}
		items = append(items, i)
	}
	return items, nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readItems reads items as they are stored.
func readItems(ctx context.Context, db querier, where string) (items []Item, err error) {
	rows, err := db.QueryContext(ctx, "SELECT kind, namespace, name, uid, revision, assignment, body FROM item "+where+" ORDER BY kind, namespace, name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i Item
		if err := rows.Scan(&i.Kind, &i.Namespace, &i.Name, &i.UID, &i.Revision, &i.Assignment, &i.JSON); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

// Held says what of the wanted state is here, as a hello does.
func (s *Store) Held(ctx context.Context) (held []*pb.Held, err error) {
	items, err := s.Items(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		held = append(held, &pb.Held{Kind: i.Kind, Namespace: i.Namespace, Name: i.Name, Uid: i.UID, Revision: i.Revision})
	}
	return held, nil
}

// ForgetRevisions keeps what is held and forgets how new it is: another database
// of the hub counts otherwise. The hub then sends all of it once more.
func (s *Store) ForgetRevisions(ctx context.Context) error {
	return s.change(ctx, s.synced, "forget revisions", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE item SET revision = 0")
		return err
	})
}

type key struct{ kind, namespace, name string }

// ApplySync makes the wanted state what the hub says, all of it or nothing, and
// returns when that is on the disk. Items of unknown kinds are kept too: a newer
// release may find them here.
func (s *Store) ApplySync(ctx context.Context, sync *pb.Sync) error {
	return s.change(ctx, s.synced, "apply sync", func(tx *sql.Tx) error {
		for _, r := range sync.Removed {
			// Something newer may have its name already.
			if _, err := tx.ExecContext(ctx, "DELETE FROM item WHERE kind = ? AND namespace = ? AND name = ? AND (uid = ? OR ? = '')",
				r.Kind, r.Namespace, r.Name, r.Uid, r.Uid); err != nil {
				return err
			}
		}
		if sync.Full {
			keep := map[key]string{}
			for _, k := range sync.Keep {
				keep[key{k.Kind, k.Namespace, k.Name}] = k.Uid
			}
			if err := dropOthers(ctx, tx, keep); err != nil {
				return err
			}
		}
		for _, i := range sync.Items {
			body := i.Json
			if body == nil {
				body = []byte{}
			}
			if i.Kind == KindSecret {
				var err error
				if body, err = pki.Seal(s.key, body, sealContext(i.Namespace, i.Name, i.Uid)); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO item (kind, namespace, name, uid, revision, assignment, body) VALUES (?,?,?,?,?,?,?)",
				i.Kind, i.Namespace, i.Name, i.Uid, int64(i.Revision), int64(i.Assignment), body); err != nil {
				return err
			}
		}
		failpoint.Here("sync.apply")
		return nil
	})
}

// dropOthers forgets every item that keep does not name.
func dropOthers(ctx context.Context, tx *sql.Tx, keep map[key]string) error {
	rows, err := tx.QueryContext(ctx, "SELECT kind, namespace, name, uid FROM item")
	if err != nil {
		return err
	}
	defer rows.Close()
	var drop []key
	for rows.Next() {
		var k key
		var uid string
		if err := rows.Scan(&k.kind, &k.namespace, &k.name, &uid); err != nil {
			return err
		}
		if kept, ok := keep[k]; !ok || kept != "" && kept != uid {
			drop = append(drop, k)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, k := range drop {
		if _, err := tx.ExecContext(ctx, "DELETE FROM item WHERE kind = ? AND namespace = ? AND name = ?", k.kind, k.namespace, k.name); err != nil {
			return err
		}
	}
	return nil
}

// Twin returns the stored twin of a device, the zero one when there is none.
func (s *Store) Twin(ctx context.Context, uid string) (t twin.Stored, err error) {
	var intent, observed []byte
	err = s.synced.QueryRowContext(ctx, "SELECT intent, observed FROM twin WHERE uid = ?", uid).Scan(&intent, &observed)
	if errors.Is(err, sql.ErrNoRows) {
		return twin.Stored{}, nil
	}
	if err == nil {
		err = json.Unmarshal(intent, &t.Intent)
	}
	if err == nil {
		err = json.Unmarshal(observed, &t.Observed)
	}
	if err != nil {
		return twin.Stored{}, s.wrap("read twin "+uid, err)
	}
	return t, nil
}

// SaveIntent stores the part of a twin that promises something, and returns when
// it is on the disk, also through a power loss. Calls that come while the disk
// is busy go there together.
func (s *Store) SaveIntent(ctx context.Context, uid string, i twin.Intent) error {
	body, err := json.Marshal(i)
	if err != nil {
		return s.wrap("save twin "+uid, err)
	}
	s.mu.Lock()
	c := s.commit
	leads := c == nil
	if leads {
		c = &commit{intents: map[string][]byte{}, done: make(chan struct{})}
		s.commit = c
	}
	c.intents[uid] = body
	s.mu.Unlock()
	if leads {
		// Others decide by this commit too: it is not one caller's to give up.
		c.err = s.saveIntents(context.WithoutCancel(ctx), c)
		close(c.done)
	}
	<-c.done
	return c.err
}

func (s *Store) saveIntents(ctx context.Context, c *commit) error {
	defer func() { // where not even a transaction could begin
		s.mu.Lock()
		if s.commit == c {
			s.commit = nil
		}
		s.mu.Unlock()
	}()
	return s.change(ctx, s.synced, "save twins", func(tx *sql.Tx) error {
		// The transaction is ours; until here others could join.
		s.mu.Lock()
		s.commit = nil
		s.mu.Unlock()
		for uid, body := range c.intents {
			if _, err := tx.ExecContext(ctx, "INSERT INTO twin (uid, intent, observed) VALUES (?, ?, '{}') ON CONFLICT (uid) DO UPDATE SET intent = excluded.intent", uid, body); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveObserved stores what was observed of devices, by uid, in one transaction. A
// power loss may take the last ones, which reading the devices brings back.
func (s *Store) SaveObserved(ctx context.Context, observed map[string]twin.Observed) error {
	bodies := make(map[string][]byte, len(observed))
	for uid, o := range observed {
		body, err := json.Marshal(o)
		if err != nil {
			return s.wrap("save twin "+uid, err)
		}
		bodies[uid] = body
	}
	return s.change(ctx, s.relaxed, "save twins", func(tx *sql.Tx) error {
		for uid, body := range bodies {
			if _, err := tx.ExecContext(ctx, "INSERT INTO twin (uid, intent, observed) VALUES (?, '{}', ?) ON CONFLICT (uid) DO UPDATE SET observed = excluded.observed", uid, body); err != nil {
				return err
			}
		}
		return nil
	})
}

// KeepTwins forgets the twins of all devices but these.
func (s *Store) KeepTwins(ctx context.Context, uids []string) error {
	list, err := json.Marshal(append([]string{}, uids...))
	if err != nil {
		return s.wrap("forget twins", err)
	}
	return s.change(ctx, s.synced, "forget twins", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM twin WHERE uid NOT IN (SELECT value FROM json_each(?))", string(list))
		return err
	})
}

// DropTwin forgets the twin of a device.
func (s *Store) DropTwin(ctx context.Context, uid string) error {
	return s.change(ctx, s.synced, "forget twin "+uid, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM twin WHERE uid = ?", uid)
		return err
	})
}

// Settings returns all settings.
func (s *Store) Settings(ctx context.Context) (map[string]string, error) {
	rows, err := s.synced.QueryContext(ctx, "SELECT name, value FROM setting")
	if err != nil {
		return nil, s.wrap("read settings", err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, s.wrap("read settings", err)
		}
		out[name] = value
	}
	if err := rows.Err(); err != nil {
		return nil, s.wrap("read settings", err)
	}
	return out, nil
}

// Setting returns one setting, "" when it was never set.
func (s *Store) Setting(ctx context.Context, name string) (value string, err error) {
	err = s.synced.QueryRowContext(ctx, "SELECT value FROM setting WHERE name = ?", name).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", s.wrap("read setting "+name, err)
	}
	return value, nil
}

// SetSettings stores settings, all or none, and leaves the others as they are.
func (s *Store) SetSettings(ctx context.Context, settings map[string]string) error {
	return s.change(ctx, s.synced, "save settings", func(tx *sql.Tx) error {
		for name, value := range settings {
			if strings.TrimSpace(name) == "" {
				return errors.New("a setting needs a name")
			}
			if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", name, value); err != nil {
				return err
			}
		}
		return nil
	})
}
