package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// randomShadow is a Shadow of properties of all kinds, some of which are bad, or
// written.
func randomShadow(r *rand.Rand, n int) *Shadow {
	s := &Shadow{Version: r.Uint64N(1000), State: models.StateOnline, StateAt: Position{1, 2}, Message: "a <b> \"c\"", LastSeen: at(time.Duration(r.Int64N(1e12)))}
	texts := []string{"", "plain", `with "quotes" and \`, "Grüße\u2028\n<&>"}
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		values := []models.Value{models.Null, models.Bool(r.IntN(2) == 0), models.Int(r.Int64() - 1<<62), models.Uint(r.Uint64()), models.Float(r.NormFloat64() * 1e9),
			models.String(texts[r.IntN(len(texts))]), models.Bytes([]byte(texts[r.IntN(len(texts))]))}
		sample := models.Sample{Value: values[r.IntN(len(values))], Time: at(time.Duration(r.Int64N(1e15)))}
		s.Report(name, sample, Position{1, uint64(i)})
		if r.IntN(4) == 0 {
			s.Report(name, models.Sample{Quality: models.Bad, Reason: models.Reason(texts[1+r.IntN(3)]), Time: at(time.Duration(r.Int64N(1e15)))}, Position{2, uint64(i)})
		}
		if r.IntN(4) == 0 {
			s.SetWrite(name, Write{ID: "01J", State: Failed, Error: texts[r.IntN(len(texts))], Time: t0}, "01J")
		}
	}
	return s
}

// TestShadowIsStoredAsJSON: what is written by hand is what encoding/json would
// write, and comes back.
func TestShadowIsStoredAsJSON(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := randomShadow(r, r.IntN(20))
		text, err := s.AppendJSON([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		var stored StoredShadow
		if err := json.Unmarshal(text[1:], &stored); err != nil {
			t.Fatalf("seed %d: %v in %s", seed, err, text)
		}
		again, err := json.Marshal(stored)
		if err != nil {
			t.Fatal(err)
		}
		var want, have map[string]any
		if json.Unmarshal(text[1:], &have) != nil || json.Unmarshal(again, &want) != nil || fmt.Sprint(have) != fmt.Sprint(want) {
			t.Fatalf("seed %d: written\n%s\nencoding/json writes\n%s", seed, text[1:], again)
		}
		back := stored.Shadow()
		back.Arrange(s.Names())
		twice, err := back.AppendJSON([]byte("x"))
		if err != nil || !bytes.Equal(twice, text) {
			t.Fatalf("seed %d: %s\ncame back as\n%s", seed, text, twice)
		}
	}
	if _, err := (&Shadow{LastSeen: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}).AppendJSON(nil); err == nil {
		t.Error("a time that JSON cannot say is written")
	}
	var s Shadow
	s.Set("p", Reported{Value: models.Int(1), Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, Position{1, 1})
	if _, err := s.AppendJSON(nil); err == nil {
		t.Error("a property's time that JSON cannot say is written")
	}
	s.Set("p", Reported{Value: models.Int(1), Time: t0.In(time.FixedZone("", 3600))}, Position{1, 1})
	if text, err := s.AppendJSON(nil); err != nil || !bytes.Contains(text, []byte(`+01:00"`)) {
		t.Errorf("a time elsewhere: %s, %v", text, err)
	}
}

// TestShadowFindsProperties: in any order, few or many, while they come and go, a
// Shadow knows the same as a map would.
func TestShadowFindsProperties(t *testing.T) {
	for _, n := range []int{1, 5, indexFrom - 1, indexFrom, 3 * indexFrom} {
		r := rand.New(rand.NewPCG(uint64(n), 2))
		var s Shadow
		s.Expect(n / 2)
		want := map[string]float64{}
		check := func(when string) {
			t.Helper()
			if len(s.Names()) != len(want) {
				t.Fatalf("%d properties, %s: %d are known, want %d", n, when, len(s.Names()), len(want))
			}
			for i := range 2 * n {
				name := fmt.Sprintf("p%d", i)
				value, known := want[name]
				p := s.Property(name)
				if (p != nil) != known || known && p.Reported.Value != models.Float(value) {
					t.Fatalf("%d properties, %s: %s is %+v, want %v", n, when, name, p, value)
				}
			}
		}
		for seq := range uint64(6 * n) {
			name := fmt.Sprintf("p%d", r.IntN(n))
			if seq%2 == 0 { // in order, as records have them
				name = fmt.Sprintf("p%d", int(seq/2)%n)
			}
			want[name] = float64(seq)
			s.Report(name, models.Sample{Value: models.Float(float64(seq)), Time: t0}, Position{1, seq})
		}
		check("reported")
		var order []string
		for i := range n {
			order = append(order, fmt.Sprintf("p%d", n-i))
		}
		s.Arrange(order)
		check("arranged")
		if i, k := slices.Index(s.Names(), "p1"), slices.Index(s.Names(), "p2"); n > 2 && i < k {
			t.Errorf("p1 is at %d, p2 at %d", i, k)
		}
		before := s.Version
		s.Drop(func(name string) bool { return len(name)%2 == 0 })
		for name := range want {
			if len(name)%2 != 0 {
				delete(want, name)
				before++
			}
		}
		check("dropped")
		if s.Version != before {
			t.Errorf("version %d after a drop, want %d", s.Version, before)
		}
	}
}
