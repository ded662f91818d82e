package mappers

import (
	"fmt"

	"github.com/whimbrel-edge/whimbrel/models"
)

// WriteInTurn is a Device.Write that writes one value after the other. When the
// device cannot be reached the rest is not tried: they would fare no better, and
// each would wait as long.
func WriteInTurn(writes []WriteRequest, write func(WriteRequest) *Failure) []error {
	errs := make([]error, len(writes))
	for i, w := range writes {
		f := write(w)
		if f == nil {
			continue // a typed nil would be an error
		}
		errs[i] = f
		if f.Reason == models.ReasonTimeout || f.Reason == models.ReasonNotConnected {
			for j := i + 1; j < len(writes); j++ {
				errs[j] = &Failure{Reason: f.Reason, Unsent: true, Err: fmt.Errorf("not tried after the write before it failed: %w", f.Err)}
			}
			break
		}
	}
	return errs
}
