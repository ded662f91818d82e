package devices

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

func read(t *testing.T, text []byte) *recording.Recording {
	t.Helper()
	r, err := recording.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return r
}

func header(t *testing.T, r *recorder) {
	t.Helper()
	if err := r.put(recording.Header{Version: recording.Version, Protocol: "modbus", Device: "d", Started: r.started}); err != nil {
		t.Fatal(err)
	}
}

// A reader that does not keep up costs events, which are counted, and holds up
// nobody.
func TestRecorderDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []byte
		r := &recorder{started: time.Now(), events: make(chan seen, maxRecorded)}
		r.lines = func(b []byte) error {
			time.Sleep(300 * time.Millisecond)
			if len(b) > 2*maxRecordedBytes {
				t.Errorf("%d bytes at once", len(b))
			}
			got = append(got, b...)
			return nil
		}
		header(t, r)
		const sent = 5000
		go func() {
			for i := range sent {
				r.tell(recording.Event{Send: bytes.Repeat([]byte{byte(i)}, 100), Values: []recording.Value{{Node: "i=1", Source: new(recording.Millis(0))}}}, time.Now())
				time.Sleep(100 * time.Microsecond)
			}
		}()
		if err := r.run(t.Context(), 2*time.Second, nil); err != nil {
			t.Fatal(err)
		}
		rec := read(t, got)
		if kept := len(rec.Events) - 1; rec.Cut || rec.Dropped == 0 || kept+rec.Dropped != sent {
			t.Errorf("cut %v, kept %d and dropped %d of %d", rec.Cut, kept, rec.Dropped, sent)
		}
		if e := rec.Events[1]; e.Values[0].Source == nil || *e.Values[0].Source != e.At {
			t.Errorf("source of %+v", e)
		}
	})
}

func TestRecorderEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []byte
		r := &recorder{started: time.Now(), events: make(chan seen, maxRecorded), lines: func(b []byte) error { got = append(got, b...); return nil }}
		header(t, r)
		// What is too long for a line is told as missing.
		r.tell(recording.Event{Send: make([]byte, recording.MaxLine)}, time.Now())
		ended := make(chan struct{})
		go func() {
			time.Sleep(time.Second)
			close(ended)
		}()
		if err := r.run(t.Context(), time.Hour, ended); err != nil {
			t.Fatal(err)
		}
		rec := read(t, got)
		if last := rec.Events[len(rec.Events)-1]; rec.Cut || rec.Dropped != 1 || !strings.Contains(last.Error, "closed") || rec.Length() != time.Second {
			t.Errorf("%+v", rec)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.run(ctx, time.Hour, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		full := errors.New("full")
		r.lines = func([]byte) error { return full }
		if err := r.run(t.Context(), time.Second, nil); !errors.Is(err, full) {
			t.Error(err)
		}
	})
}

// Nothing of who uses a device, and how that is secured, is in a recording.
func TestRecordingsHoldNoSecrets(t *testing.T) {
	d := &device{name: "d", protocol: "opcua", connection: json.RawMessage(`{"url":"opc.tcp://h:4840","username":"u","password":"hunter2",
		"passwordFrom":{"secret":"s","key":"k"},"certificateFrom":{"secret":"s"},"trust":["sha256:00"],"policy":"auto","mode":"Sign","whatever":"hunter2","timeout":"1s"}`),
		defs: []models.ResolvedProperty{{Name: "a", Type: models.TypeInt, Access: models.ReadWrite, Minimum: models.Int(3), Maximum: models.Int(3), Every: time.Second, Write: models.Hold}}}
	h := d.header(time.Now())
	if got := string(h.Connection); got != `{"timeout":"1s","url":"opc.tcp://h:4840"}` {
		t.Errorf("connection %s", got)
	}
	if p := h.Properties[0]; p.Minimum == nil || p.Maximum == nil || *p.Maximum != models.Int(3) || p.Write != models.Hold {
		t.Errorf("%+v", p)
	}
	d.connection = json.RawMessage("{")
	if got := string(d.header(time.Now()).Connection); got != "{}" {
		t.Errorf("connection %s", got)
	}
}
