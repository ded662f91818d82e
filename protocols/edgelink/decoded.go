package edgelink

import "github.com/whimbrel-edge/whimbrel/models"

// Decoded is a record as its reader uses it. Everything in it has been checked:
// indices, lengths, kinds, text in UTF-8, no NaN and no infinity.
type Decoded struct {
	Series []Series
	Writes []WriteEvent
	Locals []LocalDesired
	States []StateEvent
	Gaps   []Gap
}

// Samples returns the number of samples in all series.
func (d *Decoded) Samples() int { return 0 }

// Series is the samples of one property in typed columns.
type Series struct {
	Device   DeviceRef
	Property string
	Times    []int64 // microseconds since 1970, one per sample

	// One value for each sample of the column's kinds, in order. When Uniform,
	// the column's i-th value is the i-th sample's.
	Ints   []int64 // bool (0 or 1) and int
	Uints  []uint64
	Floats []float64
	Texts  []string // string, bytes and JSON
}

// DecodeRecord decodes and checks a record. Its errors wrap ErrMalformed. The
// result shares no memory with data.
func DecodeRecord(data []byte) (*Decoded, error) { return nil, nil }

// Len returns the number of samples.
func (s *Series) Len() int { return len(s.Times) }

// Uniform returns the kind that all samples have, if they have one.
func (s *Series) Uniform() (kind models.Kind, ok bool) { return 0, false }

// Kind returns the kind of the i-th sample.
func (s *Series) Kind(i int) models.Kind { return 0 }

// AllGood reports whether every sample's quality is good.
func (s *Series) AllGood() bool { return true }

// Quality returns the i-th sample's quality and, when it is not good, the reason.
func (s *Series) Quality(i int) (models.Quality, models.Reason) { return 0, "" }

// At returns the i-th sample.
func (s *Series) At(i int) models.Sample { return models.Sample{} }
