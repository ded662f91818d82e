package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// PodStates implements store.Pods.
func (s *Store) PodStates(ctx context.Context, f func(store.PodState) error) error {
	err := each(ctx, s.read, func(rows *sql.Rows) error {
		var p store.PodState
		var told int64
		if err := rows.Scan(&p.PodUID, &p.Node, &told, &p.JSON); err != nil {
			return err
		}
		p.Told = time.UnixMicro(told).UTC()
		return f(p)
	}, `SELECT pod_uid, node, told_us, json FROM pod_state`)
	if err != nil {
		return fmt.Errorf("load the states of pods: %w", err)
	}
	return nil
}

// SavePodStates implements store.Pods.
func (s *Store) SavePodStates(ctx context.Context, put []store.PodState, drop []string) error {
	if len(put)+len(drop) == 0 {
		return nil
	}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		for _, uid := range drop {
			if _, err := tx.Exec(`DELETE FROM pod_state WHERE pod_uid = ?`, uid); err != nil {
				return err
			}
		}
		for _, p := range put {
			if _, err := tx.Exec(`INSERT INTO pod_state (pod_uid, node, told_us, json) VALUES (?, ?, ?, ?)
				ON CONFLICT (pod_uid) DO UPDATE SET node = excluded.node, told_us = excluded.told_us, json = excluded.json`,
				p.PodUID, p.Node, p.Told.UnixMicro(), string(p.JSON)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save the states of %d pods: %w", len(put), err)
	}
	return nil
}
