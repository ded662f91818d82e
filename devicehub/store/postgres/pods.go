package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
)

// PodStates implements store.Pods.
func (s *Store) PodStates(ctx context.Context, f func(store.PodState) error) error {
	rows, err := s.pool.Query(ctx, `SELECT pod_uid, node, told_us, json FROM pod_state`)
	if err != nil {
		return fmt.Errorf("load the states of pods: %w", err)
	}
	var uid, node, json string
	var told int64
	if _, err := pgx.ForEachRow(rows, []any{&uid, &node, &told, &json}, func() error {
		return f(store.PodState{PodUID: uid, Node: node, Told: time.UnixMicro(told).UTC(), JSON: []byte(json)})
	}); err != nil {
		return fmt.Errorf("load the states of pods: %w", err)
	}
	return nil
}

// SavePodStates implements store.Pods.
func (s *Store) SavePodStates(ctx context.Context, put []store.PodState, drop []string) error {
	if len(put)+len(drop) == 0 {
		return nil
	}
	// In one order, so that two hubs cannot wait for each other's rows.
	put = slices.SortedFunc(slices.Values(put), func(a, b store.PodState) int { return cmp.Compare(a.PodUID, b.PodUID) })
	var uids, nodes, jsons []string
	var told []int64
	for _, p := range put {
		uids, nodes, jsons, told = append(uids, p.PodUID), append(nodes, p.Node), append(jsons, string(p.JSON)), append(told, p.Told.UnixMicro())
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO pod_state (pod_uid, node, told_us, json)
			SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
			ON CONFLICT (pod_uid) DO UPDATE SET node = excluded.node, told_us = excluded.told_us, json = excluded.json`, uids, nodes, told, jsons); err != nil {
			return err
		}
		if len(drop) == 0 {
			return nil
		}
		_, err := tx.Exec(ctx, `DELETE FROM pod_state WHERE pod_uid = ANY($1) AND NOT pod_uid = ANY($2)`, slices.Sorted(slices.Values(drop)), uids)
		return err
	})
	if err != nil {
		return fmt.Errorf("save the states of %d pods: %w", len(put), err)
	}
	return nil
}
