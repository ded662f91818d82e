package mappers

import (
	"context"

	"github.com/whimbrel-edge/whimbrel/models"
)

// MaxQueuedWrites bounds the writes that a Runner has accepted and not told the
// fate of.
const MaxQueuedWrites = 1024

// Runner polls and writes one device. Run is its only loop; the other methods
// may be called from any goroutine.
type Runner struct{ cfg RunnerConfig }

// NewRunner returns a Runner that does nothing before Run.
func NewRunner(cfg RunnerConfig) *Runner { return &Runner{cfg: cfg} }

// Run serves the device until ctx ends, closes it, and returns the context's
// cause. Writes that are still queued are told Unsent. A device that fails is
// no reason to return. Run may be called once.
func (r *Runner) Run(ctx context.Context) error {
	<-ctx.Done()
	r.cfg.Device.Close()
	return context.Cause(ctx)
}

// Write queues writes, all or none, and does not wait. It returns false when
// they do not fit (MaxQueuedWrites) or Run has ended; nothing is told of them
// then. A queued write to the same property is superseded.
func (r *Runner) Write(w ...Write) bool { return false }

// Plan says what polling costs on the wire, as the device knows it now.
func (r *Runner) Plan() models.ReadPlan { return models.ReadPlan{} }
