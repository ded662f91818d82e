package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// Load implements store.Objects.
func (s *Store) Load(ctx context.Context, object func(store.Object) error, desired func(store.Desired) error) (revision int64, err error) {
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT revision FROM hub`).Scan(&revision); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT kind, namespace, name, uid, revision, generation, assignment, created, json FROM objects`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var o store.Object
			var json string
			if err := rows.Scan(&o.Kind, &o.Namespace, &o.Name, &o.UID, &o.Revision, &o.Generation, &o.Assignment, &o.Created, &json); err != nil {
				rows.Close()
				return err
			}
			o.JSON = []byte(json)
			if err := object(o); err != nil {
				rows.Close()
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, `SELECT device_uid, revision, json FROM desired`); err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d store.Desired
			var json string
			if err := rows.Scan(&d.DeviceUID, &d.Revision, &json); err != nil {
				return err
			}
			d.JSON = []byte(json)
			if err := desired(d); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return 0, fmt.Errorf("load objects: %w", err)
	}
	return revision, nil
}

// Commit implements store.Objects. What is put comes first and what is deleted
// goes by its uid, so a group may replace an object by one of the same name.
func (s *Store) Commit(ctx context.Context, c store.Commit) error {
	b := &pgx.Batch{}
	b.Queue(`SELECT advance_revision($1)`, c.Revision)
	queuePut(b, c.Put)
	queueDelete(b, c.Delete)
	if len(c.PutDesired) > 0 {
		// One statement cannot change a row twice: the last of a device counts.
		last := map[string]int{}
		for i, d := range c.PutDesired {
			last[d.DeviceUID] = i
		}
		var uids, jsons []string
		var revisions []int64
		for i, d := range c.PutDesired {
			if last[d.DeviceUID] == i {
				uids, revisions, jsons = append(uids, d.DeviceUID), append(revisions, d.Revision), append(jsons, string(d.JSON))
			}
		}
		b.Queue(`INSERT INTO desired (device_uid, revision, json)
			SELECT u, r, j::json FROM unnest($1::text[], $2::bigint[], $3::text[]) AS new (u, r, j)
			ON CONFLICT (device_uid) DO UPDATE SET revision = excluded.revision, json = excluded.json`, uids, revisions, jsons)
	}
	if len(c.DeletedDevices) > 0 {
		b.Queue(`DELETE FROM desired WHERE device_uid = ANY($1)`, c.DeletedDevices)
		b.Queue(`DELETE FROM twins WHERE device_uid = ANY($1)`, c.DeletedDevices)
	}
	queueWrites(b, c.Writes, c.WriteEnds, nil)
	queueLives(b, c.Assigned, c.Gone)
	queueAudit(b, c.Audit)
	queueEvents(b, c.Events)
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("commit revision %d: %w", c.Revision, err)
	}
	return nil
}

func queuePut(b *pgx.Batch, objects []store.Object) {
	if len(objects) == 0 {
		return
	}
	type key struct{ kind, namespace, name string }
	last := map[key]int{}
	for i, o := range objects {
		last[key{o.Kind, o.Namespace, o.Name}] = i
	}
	var kinds, namespaces, names, uids, jsons []string
	var revisions, generations, assignments []int64
	var created []time.Time
	for i, o := range objects {
		if last[key{o.Kind, o.Namespace, o.Name}] != i {
			continue
		}
		kinds, namespaces, names, uids = append(kinds, o.Kind), append(namespaces, o.Namespace), append(names, o.Name), append(uids, o.UID)
		revisions, generations, assignments = append(revisions, o.Revision), append(generations, o.Generation), append(assignments, o.Assignment)
		created, jsons = append(created, o.Created), append(jsons, string(o.JSON))
	}
	b.Queue(`INSERT INTO objects (kind, namespace, name, uid, revision, generation, assignment, created, json)
		SELECT k, ns, n, u, r, g, a, c, j::json
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[], $9::text[])
			AS new (k, ns, n, u, r, g, a, c, j)
		ON CONFLICT (kind, namespace, name) DO UPDATE SET uid = excluded.uid, revision = excluded.revision,
			generation = excluded.generation, assignment = excluded.assignment, created = excluded.created, json = excluded.json`,
		kinds, namespaces, names, uids, revisions, generations, assignments, created, jsons)
}

func queueDelete(b *pgx.Batch, objects []store.Object) {
	if len(objects) == 0 {
		return
	}
	var kinds, namespaces, names, uids []string
	for _, o := range objects {
		kinds, namespaces, names, uids = append(kinds, o.Kind), append(namespaces, o.Namespace), append(names, o.Name), append(uids, o.UID)
	}
	b.Queue(`DELETE FROM objects o USING unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS gone (k, ns, n, u)
		WHERE o.kind = k AND o.namespace = ns AND o.name = n AND o.uid = u`, kinds, namespaces, names, uids)
}

// LoadTwins implements store.Twins.
func (s *Store) LoadTwins(ctx context.Context, f func(store.Checkpoint) error) error {
	rows, err := s.pool.Query(ctx, `SELECT device_uid, json FROM twins`)
	if err != nil {
		return fmt.Errorf("load twins: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var uid, json string
		if err := rows.Scan(&uid, &json); err != nil {
			return fmt.Errorf("load twins: %w", err)
		}
		if err := f(store.Checkpoint{DeviceUID: uid, JSON: []byte(json)}); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("load twins: %w", err)
	}
	return nil
}

// SaveTwins implements store.Twins.
func (s *Store) SaveTwins(ctx context.Context, c []store.Checkpoint) error {
	last := map[string]int{}
	for i := range c {
		last[c[i].DeviceUID] = i
	}
	var uids []string
	var jsons [][]byte
	size := 0
	for i := range c {
		if last[c[i].DeviceUID] == i {
			uids, jsons = append(uids, c[i].DeviceUID), append(jsons, c[i].JSON)
			size += 4 + len(c[i].JSON)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	var t tuple
	t.buf = make([]byte, 0, 20+size)
	t.array(pgtype.TextOID, len(jsons), false)
	for _, json := range jsons {
		t.buf = append(binary.BigEndian.AppendUint32(t.buf, uint32(len(json))), json...)
	}
	// In one order, so that two hubs cannot wait for each other's rows.
	_, err := s.pool.Exec(ctx, `INSERT INTO twins (device_uid, json)
		SELECT u, j::json FROM unnest($1::text[], $2::text[]) AS new (u, j) ORDER BY u
		ON CONFLICT (device_uid) DO UPDATE SET json = excluded.json`, uids, encoded(t.buf))
	if err != nil {
		return fmt.Errorf("save %d twins: %w", len(uids), err)
	}
	return nil
}
