package edgelink

import "github.com/whimbrel-edge/whimbrel/models"

// Builder makes a record. The zero Builder is empty and ready; Reset keeps its
// memory for the next record. It is not safe for concurrent use.
type Builder struct{}

// Reset empties the builder.
func (b *Builder) Reset() {}

// AddSample adds one observation.
func (b *Builder) AddSample(device DeviceRef, property string, s models.Sample) {}

// AddWrite adds a write's change of state.
func (b *Builder) AddWrite(w WriteEvent) {}

// AddLocal adds a desired value set at the edge.
func (b *Builder) AddLocal(l LocalDesired) {}

// AddState adds a change of a device's state.
func (b *Builder) AddState(s StateEvent) {}

// AddGap adds a gap.
func (b *Builder) AddGap(g Gap) {}

// Samples returns the number of samples added since Reset.
func (b *Builder) Samples() int { return 0 }

// Empty reports whether nothing has been added since Reset.
func (b *Builder) Empty() bool { return true }

// Size returns about how many bytes Bytes would return.
func (b *Builder) Size() int { return 0 }

// Bytes returns the record, in memory of its own.
func (b *Builder) Bytes() []byte { return nil }
