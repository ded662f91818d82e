package store

import (
	"context"
	"time"
)

// PodState is what a node told of a pod last.
type PodState struct {
	PodUID string
	Node   string    // that told it
	Told   time.Time // by the hub's clock
	JSON   []byte    // of models.PodStatus
}

// Pods is what is known of pods that is no object.
type Pods interface {
	// PodStates calls f for every state, in any order.
	PodStates(ctx context.Context, f func(PodState) error) error
	// SavePodStates inserts or replaces states, of one pod at most one, and
	// deletes those of the pods with these uids; all or nothing.
	SavePodStates(ctx context.Context, put []PodState, drop []string) error
}
