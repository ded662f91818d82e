package calendar

import (
	"log/slog"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestNext(t *testing.T) {
	for name, c := range map[string]struct {
		before store.Date
		wall   time.Time
		ran    time.Duration
		want   store.Date
	}{
		"the first time":           {store.Date{}, noon, 0, store.Date{Time: noon}},
		"as expected":              {store.Date{Time: noon}, noon.Add(time.Hour), time.Hour, store.Date{Time: noon.Add(time.Hour)}},
		"a restart":                {store.Date{Time: noon}, noon.Add(5 * time.Minute), 0, store.Date{Time: noon.Add(5 * time.Minute)}},
		"a leap":                   {store.Date{Time: noon}, noon.AddDate(74, 0, 0), time.Hour, store.Date{Time: noon.Add(time.Hour), Doubted: time.Hour}},
		"a leap at a start":        {store.Date{Time: noon}, noon.AddDate(0, 1, 0), 0, store.Date{Time: noon}},
		"it stays":                 {store.Date{Time: noon, Doubted: 5 * time.Hour}, noon.AddDate(74, 0, 0), time.Hour, store.Date{Time: noon.Add(time.Hour), Doubted: 6 * time.Hour}},
		"it has stayed for long":   {store.Date{Time: noon, Doubted: 23 * time.Hour}, noon.AddDate(0, 1, 0), time.Hour, store.Date{Time: noon.AddDate(0, 1, 0)}},
		"it was wrong":             {store.Date{Time: noon, Doubted: 5 * time.Hour}, noon.Add(time.Hour), time.Hour, store.Date{Time: noon.Add(time.Hour)}},
		"back":                     {store.Date{Time: noon}, noon.AddDate(-56, 0, 0), time.Hour, store.Date{Time: noon.AddDate(-56, 0, 0)}},
		"and from there to a leap": {store.Date{Time: noon.AddDate(-56, 0, 0)}, noon, time.Hour, store.Date{Time: noon.AddDate(-56, 0, 0).Add(time.Hour), Doubted: time.Hour}},
	} {
		if got := Next(c.before, c.wall, c.ran); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestStarts: what is believed, and for how long it has been doubted, outlives the
// process, and a clock that stays ahead is believed in the end.
func TestStarts(t *testing.T) {
	s := storetest.NewMemory()
	wall := noon
	start := func() *Calendar {
		c, err := Open(t.Context(), s, func() time.Time { return wall }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	if got := c.Now(t.Context()); !got.Equal(noon) {
		t.Errorf("at first it is %v", got)
	}
	wall = noon.AddDate(0, 0, 3) // off for days
	runs := 0
	for late := noon; late.Before(noon.AddDate(0, 0, 3)); runs++ {
		c = start()
		wall = wall.Add(time.Hour)
		late = c.Now(t.Context())
	}
	if runs != 24 {
		t.Errorf("believed after %d hours", runs)
	}
	if got := c.Now(t.Context()); !got.Equal(wall) {
		t.Errorf("in the end it is %v", got)
	}
}
