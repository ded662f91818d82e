// Package outbox is the edge's log: whatever an edge has to tell its hub waits
// here, on disk, until the hub has committed it. It is the only way up for
// history.
//
// One row is one record is one flush. Records are numbered 1, 2, 3, … over the
// life of the file, and each opening of the file begins a new epoch, so that
// two lives of one disk image never give one (epoch, seq) to two different
// records. FORMAT.md in protocols/edgelink has the rules of epochs.
package outbox
