package twin

import (
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestPast(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	def := func(name string) models.ResolvedProperty {
		return models.ResolvedProperty{Name: name, Type: models.TypeFloat, Access: models.ReadWrite, Every: time.Second, Heartbeat: time.Minute, History: true}
	}
	silent, private := def("silent"), def("private")
	silent.History, private.Uplink = false, models.UplinkNone
	good := func(ago time.Duration) Reported { return Reported{Value: models.Float(1), Time: at.Add(-ago)} }
	confirmed, later := at.Add(-time.Second), at.Add(time.Second)
	past := Past{Device: "d", Namespace: "default", At: at, State: models.StateOnline,
		Properties: []models.ResolvedProperty{def("fresh"), def("old"), def("bad"), def("none"), silent, private},
		Reported: map[string]Reported{"fresh": good(time.Minute), "old": good(64 * time.Second),
			"bad": {Value: models.Float(1), Time: at.Add(-time.Hour), Quality: models.Bad, Reason: models.ReasonTimeout, Since: at.Add(-time.Minute)}},
		Desired: []LedgerEntry{
			{ID: "1", Property: "fresh", Value: models.Float(5), Version: 7, Asked: at.Add(-time.Minute), Confirmed: &confirmed, Ended: &confirmed, State: "applied"},
			{ID: "2", Property: "old", Value: models.Float(6), Version: 6, Asked: at.Add(-time.Minute), Confirmed: &later, Ended: &later, State: "applied"},
			{ID: "3", Property: "gone", Value: models.Float(6), Version: 3, Asked: at.Add(-time.Minute), Ended: &confirmed, State: "failed", Error: "no"},
			{ID: "4", Property: "bad", Version: 8, State: "withdrawn"},
		}}
	doc := past.Document()
	p := doc.Properties
	switch {
	case doc.State != models.StateOnline || doc.DesiredVersion != 8 || !doc.At.Equal(at) || !doc.LastSeen.Equal(at.Add(-time.Minute)):
		t.Errorf("document %+v", doc)
	case p["fresh"].Reported.Quality != models.Good || p["fresh"].Write.State != Applied || p["fresh"].Desired.Version != 7:
		t.Errorf("fresh %+v", p["fresh"])
	case p["old"].Reported.Reason != models.ReasonStale || !p["old"].Reported.Since.Equal(at.Add(-time.Second)) || p["old"].Write.State != Pending:
		t.Errorf("old %+v", p["old"])
	case p["bad"].Reported.Reason != models.ReasonTimeout || p["bad"].Desired != nil:
		t.Errorf("bad %+v", p["bad"])
	case p["none"].Reported != nil || p["silent"].Note == "" || p["private"].Note == "" || p["fresh"].Note != "":
		t.Errorf("notes %+v", p)
	case p["gone"].Write.State != Failed || p["gone"].Write.Error != "no":
		t.Errorf("gone %+v", p["gone"])
	}
	// Nothing was heard: nobody knows how it did, but that it was off.
	past.Reported = map[string]Reported{"old": good(time.Hour)}
	if doc = past.Document(); doc.State != models.StateUnknown {
		t.Errorf("state %s", doc.State)
	}
	past.State = models.StateOffline
	if doc = past.Document(); doc.State != models.StateOffline {
		t.Errorf("state %s", doc.State)
	}
}
