package routes

import (
	"context"
	"fmt"
	"time"
)

// How a file that was full once gets smaller again.
const (
	// slackPages are free pages that are kept for what comes; it begins at twice as many.
	slackPages = 1024
	// shrinkStep is how many are given back in one transaction: more would hold up
	// those who publish for as long as they take to be moved and written.
	shrinkStep = 256
	// slackBytes is how much a file may hold that is written anew in one go.
	slackBytes = 4 << 20
	// shrinkEvery is how often it is looked.
	shrinkEvery = time.Second
)

// shrink gives some of the space that delivered messages have left back to the file
// system, and returns when it is to be called again.
func (q *queue) shrink(ctx context.Context) (pause time.Duration, err error) {
	begun := time.Now()
	more, err := q.shrinkSome(ctx)
	if err != nil || !more {
		return shrinkEvery, err
	}
	return max(4*time.Since(begun), 10*time.Millisecond), nil // a fifth of the time at most
}

func (q *queue) shrinkSome(ctx context.Context) (more bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	free, err := q.number(ctx, "freelist_count")
	switch {
	case err != nil:
		return false, err
	case !q.shrinking && free <= 2*slackPages:
		return false, nil
	case !q.shrinking && !q.stepwise:
		// A file of a release before this has no map of what is where, and is written anew
		// once, when it holds so little that this is soon done.
		if q.bytes > slackBytes {
			return false, nil
		}
		if err := q.pragma(ctx, "auto_vacuum = incremental"); err != nil {
			return false, err
		}
		if _, err := q.db.ExecContext(ctx, "VACUUM"); err != nil {
			return false, fmt.Errorf("queue of routes: write it anew: %w", err)
		}
		q.stepwise = true
	case free > slackPages:
		q.shrinking = true
		return true, q.pragma(ctx, fmt.Sprintf("incremental_vacuum(%d)", min(free-slackPages, shrinkStep)))
	}
	q.shrinking = false
	// The files are cut when their log has been moved to its place.
	return false, q.pragma(ctx, "wal_checkpoint(TRUNCATE)")
}

// number reads a pragma that is one.
func (q *queue) number(ctx context.Context, name string) (n int, err error) {
	if err := q.db.QueryRowContext(ctx, "PRAGMA "+name).Scan(&n); err != nil {
		return 0, fmt.Errorf("queue of routes: %s: %w", name, err)
	}
	return n, nil
}

// pragma runs a pragma to its end: some do their work row by row, and Exec would
// stop at the first.
func (q *queue) pragma(ctx context.Context, text string) error {
	rows, err := q.db.QueryContext(ctx, "PRAGMA "+text)
	if err == nil {
		for rows.Next() {
		}
		err = rows.Err()
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return fmt.Errorf("queue of routes: %s: %w", text, err)
	}
	return nil
}
