package edgelink

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func mustJSON(text string) models.Value {
	v, err := models.JSON([]byte(text))
	if err != nil {
		panic(err)
	}
	return v
}

// someValue returns a value of any kind, edges included.
func someValue(r *rand.Rand) models.Value {
	switch r.IntN(12) {
	case 0:
		return models.Null
	case 1:
		return models.Bool(r.IntN(2) == 0)
	case 2:
		return models.Int([]int64{0, -1, math.MinInt64, math.MaxInt64, r.Int64()}[r.IntN(5)])
	case 3:
		return models.Uint(math.MaxInt64 + uint64(r.IntN(3)))
	case 4:
		return models.Uint(math.MaxUint64)
	case 5:
		return models.Float([]float64{0, math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64, -1.5, math.NaN()}[r.IntN(6)])
	case 6:
		return models.String([]string{"", "on", "a\x00b", "\xff", "Grüße"}[r.IntN(5)])
	case 7:
		return models.Bytes([]byte{0, 0xff, byte(r.IntN(256))})
	case 8:
		return mustJSON(`{"b": [1, 2.5, null], "a": "x"}`)
	default:
		return models.Float(r.NormFloat64())
	}
}

func someSample(r *rand.Rand, at time.Time) models.Sample {
	s := models.Sample{Value: someValue(r), Time: at.UTC()}
	if r.IntN(4) == 0 {
		s.Quality = models.Quality(1 + r.IntN(2))
		s.Reason = []models.Reason{models.ReasonTimeout, models.ReasonStale, models.ReasonNone}[r.IntN(3)]
	}
	return s
}

type observation struct {
	Device   DeviceRef
	Property string
	models.Sample
}

// TestRecordKeepsEverySample builds records of every kind of sample and finds
// each one again, in order within its property.
func TestRecordKeepsEverySample(t *testing.T) {
	var b Builder // one for all, so that Reset is tested too
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		b.Reset()
		wrote := map[string][]models.Sample{}
		order := []string{}
		key := func(d DeviceRef, p string) string { return fmt.Sprint(d, p) }
		uniform := r.IntN(3) == 0
		for i := range r.IntN(100) {
			d := DeviceRef{UID: fmt.Sprint("dev", r.IntN(4)), Assignment: uint64(r.IntN(2))}
			p := fmt.Sprint("p", r.IntN(4))
			at := noon.Add(time.Duration(r.IntN(2000)-1000) * time.Microsecond * time.Duration(i))
			if r.IntN(50) == 0 {
				at = []time.Time{time.UnixMicro(0), time.Time{}, time.UnixMicro(math.MaxInt64), time.UnixMicro(math.MinInt64)}[r.IntN(4)]
			}
			s := someSample(r, at)
			if uniform {
				s = models.Sample{Value: models.Float(float64(i)), Time: at.UTC()}
			}
			b.AddSample(d, p, s)
			if wrote[key(d, p)] == nil {
				order = append(order, key(d, p))
			}
			wrote[key(d, p)] = append(wrote[key(d, p)], s)
		}
		data := b.Bytes()
		if len(data) > b.Size() {
			t.Fatalf("seed %d: Size %d for %d bytes", seed, b.Size(), len(data))
		}
		d, err := DecodeRecord(data)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d.Samples() != b.Samples() {
			t.Fatalf("seed %d: %d samples of %d", seed, d.Samples(), b.Samples())
		}
		for i := range d.Series {
			s := &d.Series[i]
			k := key(s.Device, s.Property)
			if order[i] != k {
				t.Fatalf("seed %d: series %d is %s, want %s", seed, i, k, order[i])
			}
			var read []models.Sample
			for i := range s.Len() {
				got, want := s.At(i), wrote[k][i]
				if got.Value != want.Value || got.Quality != want.Quality || got.Reason != want.Reason || !got.Time.Equal(want.Time) {
					t.Fatalf("seed %d: %s sample %d is %+v, want %+v", seed, k, i, got, want)
				}
				read = append(read, got)
			}
			if len(read) != len(wrote[k]) {
				t.Fatalf("seed %d: %s has %d samples, want %d", seed, k, len(read), len(wrote[k]))
			}
		}

		// The bytes are what the generated code would have written.
		var r2 pb.Record
		if err := r2.UnmarshalVT(data); err != nil {
			t.Fatal(err)
		}
		again, err := r2.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("seed %d: the generated code writes other bytes", seed)
		}
	}
}

func TestRecordKeepsEvents(t *testing.T) {
	boiler, pump := DeviceRef{UID: "b", Assignment: 3}, DeviceRef{UID: "p"}
	want := &Decoded{
		Writes: []WriteEvent{
			{Device: pump, Property: "speed", ID: "01A", State: "failed", Error: "illegal data value", Time: noon, Refused: true},
			{Device: boiler, Property: "setpoint", ID: "01B", State: "applied", Time: noon, Late: true}},
		Locals: []LocalDesired{
			{Device: boiler, Property: "setpoint", ID: "01C", Value: models.Float(45.5), Base: 7, After: "01B", Time: noon, By: "panel"},
			{Device: boiler, Property: "old", ID: "01D", Value: models.Null, Time: noon}},
		States: []StateEvent{{Device: pump, State: models.StateOffline, Reason: "timeout", Message: "no answer for 3 s", Time: noon}},
		Gaps: []Gap{
			{Reason: GapOutboxFull, Epoch: "E1", FirstSeq: 3, LastSeq: 9, Samples: 70, From: noon, To: noon.Add(time.Hour)},
			{Reason: GapDiskFull, Epoch: "E1", Samples: 1, From: noon, To: noon}},
	}
	var b Builder
	for range 2 {
		b.Reset()
		if !b.Empty() || len(b.Bytes()) != 0 {
			t.Fatal("not empty after Reset")
		}
		for _, w := range want.Writes {
			b.AddWrite(w)
		}
		for _, l := range want.Locals {
			b.AddLocal(l)
		}
		for _, s := range want.States {
			b.AddState(s)
		}
		for _, g := range want.Gaps {
			b.AddGap(g)
		}
	}
	got, err := DecodeRecord(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b models.Value) bool { return a == b })); diff != "" {
		t.Fatal(diff)
	}
	if from, to := b.Span(); !from.IsZero() || !to.IsZero() || b.Empty() || b.Gaps() != 2 {
		t.Fatal("events have no span, and are something")
	}
}

// TestDirtyTextStaysReadable is about what devices put into messages.
func TestDirtyTextStaysReadable(t *testing.T) {
	var b Builder
	b.AddState(StateEvent{Device: DeviceRef{UID: "d"}, State: models.StateOffline, Message: "got \xff\x00 from \x00"})
	b.AddSample(DeviceRef{UID: "d"}, "p", models.Sample{Quality: models.Bad, Reason: "\xfe", Time: noon})
	d, err := DecodeRecord(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.States[0].Message, "got \uFFFD\uFFFD from \uFFFD"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if _, got := d.Series[0].Quality(0); got != "\uFFFD" {
		t.Errorf("reason %q", got)
	}
}

func TestMalformedRecords(t *testing.T) {
	one := func(change func(s *pb.Series)) *pb.Record {
		s := &pb.Series{Property: "p", Dt: []int64{0, 1}, Kinds: []byte{4}, Floats: []float64{1, 2}}
		change(s)
		return &pb.Record{Devices: []*pb.DeviceRef{{Uid: "d"}}, Reasons: []string{"timeout"}, Series: []*pb.Series{s}}
	}
	tests := map[string]*pb.Record{
		"device index":           one(func(s *pb.Series) { s.Device = 1 }),
		"huge device index":      one(func(s *pb.Series) { s.Device = math.MaxUint32 }),
		"no property":            one(func(s *pb.Series) { s.Property = "" }),
		"long property":          one(func(s *pb.Series) { s.Property = string(make([]byte, 2000)) }),
		"NUL in property":        one(func(s *pb.Series) { s.Property = "a\x00" }),
		"no samples":             one(func(s *pb.Series) { s.Dt = nil; s.Floats = nil }),
		"no kinds":               one(func(s *pb.Series) { s.Kinds = nil }),
		"kinds of another count": one(func(s *pb.Series) { s.Kinds = []byte{4, 4, 4} }),
		"unknown kind":           one(func(s *pb.Series) { s.Kinds = []byte{8}; s.Floats = nil }),
		"too few values":         one(func(s *pb.Series) { s.Floats = s.Floats[:1] }),
		"too many values":        one(func(s *pb.Series) { s.Floats = append(s.Floats, 3) }),
		"values of another kind": one(func(s *pb.Series) { s.Ints = []int64{1} }),
		"mixed, too few":         one(func(s *pb.Series) { s.Kinds = []byte{4, 2} }),
		"NaN":                    one(func(s *pb.Series) { s.Floats[1] = math.NaN() }),
		"infinity":               one(func(s *pb.Series) { s.Floats[0] = math.Inf(-1) }),
		"bool 2":                 one(func(s *pb.Series) { s.Kinds = []byte{1}; s.Floats = nil; s.Ints = []int64{1, 2} }),
		"mixed bool -1":          one(func(s *pb.Series) { s.Kinds = []byte{1, 2}; s.Floats = nil; s.Ints = []int64{-1, 2} }),
		"small uint":             one(func(s *pb.Series) { s.Kinds = []byte{3}; s.Floats = nil; s.Uints = []uint64{1, 1 << 63} }),
		"string not UTF-8":       one(func(s *pb.Series) { s.Kinds = []byte{5}; s.Floats = nil; s.Texts = [][]byte{{0xff}, nil} }),
		"not JSON":               one(func(s *pb.Series) { s.Kinds = []byte{7}; s.Floats = nil; s.Texts = [][]byte{[]byte("{}"), []byte("1")} }),
		"qualities too few":      one(func(s *pb.Series) { s.Qualities = []byte{0} }),
		"reasons too few":        one(func(s *pb.Series) { s.Qualities = []byte{0, 1} }),
		"reasons too many":       one(func(s *pb.Series) { s.Qualities = []byte{0, 1}; s.Reasons = []uint32{0, 0} }),
		"reason index":           one(func(s *pb.Series) { s.Qualities = []byte{0, 1}; s.Reasons = []uint32{1} }),
		"reasons alone":          one(func(s *pb.Series) { s.Reasons = []uint32{0} }),
		"device without uid":     {Devices: []*pb.DeviceRef{{}}},
		"write's device":         {Writes: []*pb.WriteEvent{{}}},
		"local's device":         {Locals: []*pb.LocalDesired{{Value: []byte("1")}}},
		"local's value":          {Devices: []*pb.DeviceRef{{Uid: "d"}}, Locals: []*pb.LocalDesired{{Value: []byte("nul")}}},
		"state's device":         {States: []*pb.StateEvent{{}}},
		"gap backwards":          {Gaps: []*pb.Gap{{FirstSeq: 2, LastSeq: 1}}},
	}
	for name, r := range tests {
		data, err := r.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := DecodeRecord(data); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: decoded to %+v, %v", name, d, err)
		}
	}
	good, _ := one(func(*pb.Series) {}).MarshalVT()
	if _, err := DecodeRecord(good); err != nil {
		t.Errorf("the record the others are made from: %v", err)
	}
	if _, err := DecodeRecord(bytes.Repeat([]byte{tagSeries, 0}, maxRecordFields+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a bomb of empty series: %v", err)
	}
	// A quality of a later release counts as bad.
	later, _ := one(func(s *pb.Series) { s.Qualities = []byte{0, 9}; s.Reasons = []uint32{0} }).MarshalVT()
	d, err := DecodeRecord(later)
	if err != nil {
		t.Fatal(err)
	}
	if q, reason := d.Series[0].Quality(1); q != models.Bad || reason != "timeout" {
		t.Errorf("unknown quality became %s, %s", q, reason)
	}
}

// rebuild puts what was decoded into a record again.
func rebuild(d *Decoded) []byte {
	var b Builder
	for i := range d.Series {
		s := &d.Series[i]
		for i := range s.Len() {
			b.AddSample(s.Device, s.Property, s.At(i))
		}
	}
	for _, w := range d.Writes {
		b.AddWrite(w)
	}
	for _, l := range d.Locals {
		b.AddLocal(l)
	}
	for _, s := range d.States {
		b.AddState(s)
	}
	for _, g := range d.Gaps {
		b.AddGap(g)
	}
	return b.Bytes()
}

// perSeries lists the samples of each property, however many series they come in.
func perSeries(d *Decoded) map[string][]models.Sample {
	all := map[string][]models.Sample{}
	for i := range d.Series {
		s := &d.Series[i]
		key := fmt.Sprintf("%q", []any{s.Device.UID, s.Device.Assignment, s.Property})
		for i := range s.Len() {
			all[key] = append(all[key], s.At(i))
		}
	}
	return all
}

func FuzzDecodeRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		var b Builder
		for range 20 {
			b.AddSample(DeviceRef{UID: "d", Assignment: 1}, fmt.Sprint("p", r.IntN(3)), someSample(r, noon))
		}
		f.Add(b.Bytes())
	}
	var b Builder
	b.AddWrite(WriteEvent{Device: DeviceRef{UID: "d"}, Property: "p", ID: "1", State: "failed", Time: noon})
	b.AddLocal(LocalDesired{Device: DeviceRef{UID: "d"}, Property: "p", Value: mustJSON(`[1]`)})
	b.AddState(StateEvent{Device: DeviceRef{UID: "d"}, State: models.StateOnline})
	b.AddGap(Gap{Reason: GapUnreadable, FirstSeq: 1, LastSeq: 2})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := DecodeRecord(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("not a malformed record: %v", err)
			}
			return
		}
		canonical := rebuild(first)
		second, err := DecodeRecord(canonical)
		if err != nil {
			t.Fatalf("our own record: %v", err)
		}
		same := cmp.Comparer(func(a, b models.Value) bool { return a == b })
		if diff := cmp.Diff(perSeries(first), perSeries(second), same); diff != "" {
			t.Fatal(diff)
		}
		first.Series, second.Series = nil, nil
		if diff := cmp.Diff(first, second, same); diff != "" {
			t.Fatal(diff)
		}
		third, _ := DecodeRecord(canonical)
		if !bytes.Equal(rebuild(third), canonical) {
			t.Fatal("decoding and encoding a canonical record changed it")
		}
	})
}

// BenchmarkBuilder: 500 properties on 10 devices, 4 samples each.
func BenchmarkBuilder(b *testing.B) {
	var devices []DeviceRef
	var properties []string
	for i := range 10 {
		devices = append(devices, DeviceRef{UID: fmt.Sprintf("01JD0000000000000000000%03d", i), Assignment: 1})
	}
	for i := range 50 {
		properties = append(properties, fmt.Sprintf("temperature-%d", i))
	}
	var build Builder
	out := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		build.Reset()
		for i := range 4 {
			at := noon.Add(time.Duration(i) * time.Second)
			for _, d := range devices {
				for j, p := range properties {
					build.AddSample(d, p, models.Sample{Value: models.Float(20.5 + float64(j)), Time: at})
				}
			}
		}
		out = build.AppendTo(out[:0])
		n += build.Samples()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(float64(len(out))/2000, "bytes/sample")
}

func BenchmarkDecodeRecord(b *testing.B) {
	for _, shape := range []struct{ devices, properties, each int }{{10, 50, 4}, {100, 50, 1}} {
		b.Run(fmt.Sprintf("%d series of %d", shape.devices*shape.properties, shape.each), func(b *testing.B) {
			var build Builder
			for i := range shape.each {
				for j := range shape.devices * shape.properties {
					build.AddSample(DeviceRef{UID: fmt.Sprint("dev", j/shape.properties)}, fmt.Sprint("temperature-", j%shape.properties),
						models.Sample{Value: models.Float(float64(j)), Time: noon.Add(time.Duration(i) * time.Second)})
				}
			}
			data := build.Bytes()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				d, err := DecodeRecord(data)
				if err != nil {
					b.Fatal(err)
				}
				n += d.Samples()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}
