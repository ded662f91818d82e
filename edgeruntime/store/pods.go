package store

import (
	"context"
	"database/sql"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

// Pod is what package workload keeps of a pod.
type Pod struct {
	Namespace, Name string
	State           []byte
}

// podContext ties what is kept of a pod, which has credentials in it, to its place.
func podContext(namespace, name string) []byte { return []byte("pod\x00" + namespace + "\x00" + name) }

// Pods returns what is kept of all pods, by namespace and name. What the key does
// not open is as if it were not there.
func (s *Store) Pods(ctx context.Context) (pods []Pod, err error) {
	rows, err := s.synced.QueryContext(ctx, "SELECT namespace, name, state FROM pod ORDER BY namespace, name")
	if err != nil {
		return nil, s.wrap("read pods", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p Pod
		if err := rows.Scan(&p.Namespace, &p.Name, &p.State); err != nil {
			return nil, s.wrap("read pods", err)
		}
		if p.State, err = pki.Open(s.key, p.State, podContext(p.Namespace, p.Name)); err != nil {
			continue
		}
		pods = append(pods, p)
	}
	if err := rows.Err(); err != nil {
		return nil, s.wrap("read pods", err)
	}
	return pods, nil
}

// SavePod keeps the state of a pod, sealed, and returns when it is on the disk.
func (s *Store) SavePod(ctx context.Context, namespace, name string, state []byte) error {
	state, err := pki.Seal(s.key, state, podContext(namespace, name))
	if err != nil {
		return s.wrap("save pod "+namespace+"/"+name, err)
	}
	return s.change(ctx, s.synced, "save pod "+namespace+"/"+name, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO pod (namespace, name, state) VALUES (?, ?, ?)", namespace, name, state)
		return err
	})
}

// DropPod forgets a pod.
func (s *Store) DropPod(ctx context.Context, namespace, name string) error {
	return s.change(ctx, s.synced, "forget pod "+namespace+"/"+name, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM pod WHERE namespace = ? AND name = ?", namespace, name)
		return err
	})
}
