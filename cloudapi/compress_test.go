package cloudapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// raw asks without the compression that Go's client does by itself.
func (p *plant) raw(t testing.TB, method, path string, h headers) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.tokens["admin"])
	for k, v := range h {
		req.Header.Set(k, v)
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// text is a body as it was before it was compressed, and its size on the wire.
func text(t testing.TB, resp *http.Response) (plain string, size int) {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	size = len(body)
	if resp.Header.Get("Content-Encoding") == "gzip" && resp.Request.Method != "HEAD" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return string(body), size
}

func TestCompressed(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1", "boiler-2", "boiler-3", "boiler-4")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		p.hub.Report("default", "boiler-1", "temperature", models.Sample{Value: models.Float(float64(i)), Time: at.Add(time.Duration(i) * time.Second)})
	}
	long := strings.Repeat("x", 1200)
	span := history + "?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z"
	for _, c := range []struct {
		path string
		h    headers
		want string // Content-Encoding
	}{
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip"}, "gzip"},
		{"/api/v1/devices", headers{"Accept-Encoding": "deflate, GZIP;q=0.5, br"}, "gzip"},
		{"/api/v1/devices", headers{"Accept-Encoding": "*"}, "gzip"},
		{"/api/v1/devices", headers{"Accept-Encoding": "x-gzip"}, "gzip"},
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip", "Accept": "application/yaml"}, "gzip"},
		{"/api/v1/devices", nil, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": ""}, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": "br, deflate"}, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip;q=0, *"}, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip;q=0.2, identity;q=0.7"}, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip;q=2"}, ""},
		{"/api/v1/devices", headers{"Accept-Encoding": "gzip;q"}, ""},
		{"/api/v1/devices?limit=1", headers{"Accept-Encoding": "gzip"}, ""}, // too short
		{"/api/v1/devices/boiler-1/twin/desired", headers{"Accept-Encoding": "gzip"}, ""},
		{"/api/v1/devices?namespace=" + long, headers{"Accept-Encoding": "gzip"}, ""}, // the problem is short
		{"/openapi.json", headers{"Accept-Encoding": "gzip"}, "gzip"},
		{"/metrics", headers{"Accept-Encoding": "gzip"}, "gzip"},
		{span, headers{"Accept-Encoding": "gzip"}, "gzip"},
		{span, headers{"Accept-Encoding": "gzip", "Accept": "text/csv"}, "gzip"},
		{span, headers{"Accept-Encoding": "gzip", "Accept": "application/x-ndjson"}, "gzip"},
		{span, headers{"Accept": "text/csv"}, ""},
		{span + "&limit=1", headers{"Accept-Encoding": "gzip", "Accept": "text/csv"}, ""}, // too short
	} {
		name := fmt.Sprintf("%.60s %v", c.path, c.h)
		resp := p.raw(t, "GET", c.path, c.h)
		if got := resp.Header.Get("Content-Encoding"); got != c.want {
			t.Errorf("%s: Content-Encoding %q, want %q", name, got, c.want)
			continue
		}
		if !strings.Contains(resp.Header.Get("Vary"), "Accept-Encoding") && c.path != "/metrics" {
			t.Errorf("%s: Vary is %q", name, resp.Header.Get("Vary"))
		}
		got, size := text(t, resp)
		if n := resp.ContentLength; n >= 0 && int(n) != size {
			t.Errorf("%s: Content-Length %d, and there are %d bytes", name, n, size)
		}
		if c.want != "" && size >= len(got)*2/3 && c.path != "/metrics" {
			t.Errorf("%s: %d bytes of %d", name, size, len(got))
		}
		plain := p.raw(t, "GET", c.path, headers{"Accept": c.h["Accept"]})
		if want, _ := text(t, plain); got != want && c.path != "/metrics" {
			t.Errorf("%s: %.100q…, and without compression %.100q…", name, got, want)
		}
		if resp.Header.Get("ETag") != plain.Header.Get("ETag") {
			t.Errorf("%s: ETag %s, and without compression %s", name, resp.Header.Get("ETag"), plain.Header.Get("ETag"))
		}
		head := p.raw(t, "HEAD", c.path, c.h)
		if _, n := text(t, head); n > 0 || head.StatusCode != resp.StatusCode || head.Header.Get("Content-Encoding") != c.want || head.ContentLength >= 0 && head.ContentLength != resp.ContentLength {
			t.Errorf("HEAD %s: %d bytes, %s, %v, want as GET %v", name, n, head.Status, head.Header, resp.Header)
		}
	}

	// An object's ETag guards a write, whichever way it was read.
	p.want(200, "PATCH", "/api/v1/devicemodels/boiler", `{"metadata":{"annotations":{"note":"`+long+`"}}}`)
	model := p.raw(t, "GET", "/api/v1/devicemodels/boiler", headers{"Accept-Encoding": "gzip"})
	doc, _ := text(t, model)
	if model.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("the model is too short for this test: %d bytes", len(doc))
	}
	tag := model.Header.Get("ETag")
	if resp := p.raw(t, "GET", "/api/v1/devicemodels/boiler", headers{"Accept-Encoding": "gzip", "If-None-Match": tag}); resp.StatusCode != 304 || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	p.want(200, "PUT", "/api/v1/devicemodels/boiler", doc, headers{"If-Match": tag})

	// A range is of nothing here: the answer is whole, and good.
	resp := p.raw(t, "GET", "/api/v1/devices", headers{"Accept-Encoding": "gzip", "Range": "bytes=0-9"})
	if got, _ := text(t, resp); resp.StatusCode != 200 || !strings.HasPrefix(got, `{"kind":"DeviceList"`) {
		t.Errorf("a range: %s %.60s", resp.Status, got)
	}
	// What is said as it happens is not held up.
	for path, accept := range map[string]string{"/api/v1/twins/stream": "", "/api/v1/devices?watch=true": "", "/api/v1/events?watch=true": "text/event-stream"} {
		if resp := p.raw(t, "GET", path, headers{"Accept-Encoding": "gzip", "Accept": accept}); resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s is compressed", path)
		}
	}
}

// pages is a history of many pages of which the test decides when the next one is there.
type pages struct {
	next func(ctx context.Context, page int) error
	n    int // of them
	each int // samples a page
}

func (h pages) History(ctx context.Context, _, _, _ string, q models.HistoryQuery) (out models.History, err error) {
	page, _ := strconv.Atoi(q.Continue)
	if err := h.next(ctx, page); err != nil {
		return out, err
	}
	at := time.Date(2026, 1, 1, 0, 0, page*h.each, 0, time.UTC)
	for i := range h.each {
		out.Points = append(out.Points, models.HistoryPoint{Value: models.Float(20 + float64(i%97)/8), Quality: models.Good, Time: at.Add(time.Duration(i) * time.Second)})
	}
	if page+1 < h.n {
		out.Continue = strconv.Itoa(page + 1)
	}
	return out, nil
}

// TestExportCompressedAsItIsRead: a page is with the caller before the next one is
// read, and an export that breaks off is found to have.
func TestExportCompressedAsItIsRead(t *testing.T) {
	for _, broken := range []bool{false, true} {
		turns := make(chan bool)
		next := func(ctx context.Context, page int) error {
			if page == 0 {
				return nil
			}
			select {
			case <-turns:
				if broken {
					return errors.New("the disk is gone")
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p := newPlant(t, func(c *cloudapi.Config) { c.History = pages{next, 3, 500} })
		p.boilers("boiler-1")
		resp := p.raw(t, "GET", history, headers{"Accept-Encoding": "gzip", "Accept": "text/csv"})
		if resp.Header.Get("Content-Encoding") != "gzip" {
			t.Fatal(resp.Header)
		}
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 15_000) // the title and most of 500 lines
		if _, err := io.ReadFull(z, first); err != nil || !bytes.HasPrefix(first, []byte("time,value,quality,reason,backfill\n2026-01-01T00:00:00Z,20,good,,false\n")) {
			t.Fatalf("%v %.100s", err, first)
		}
		turns <- true // only now
		if !broken {
			turns <- true
		}
		rest, err := io.ReadAll(z)
		if broken != (err != nil) {
			t.Errorf("broken %v: %v", broken, err)
		}
		if lines := bytes.Count(append(first, rest...), []byte("\n")); !broken && lines != 1501 {
			t.Errorf("%d lines", lines)
		}
	}
}

// export reads an export of n pages of 10,000 samples, and says how long it is, how much
// of that went over the wire, and how far the heap grew meanwhile.
func export(t testing.TB, n int, coding string) (plain, wire int, grown int64) {
	t.Helper()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var most int64
	every := n / 3
	next := func(_ context.Context, page int) error {
		if page%every == every-1 {
			most = max(most, heap())
		}
		return nil
	}
	p := newPlant(t, func(c *cloudapi.Config) { c.History, c.Log = pages{next, n, 10_000}, slog.New(slog.DiscardHandler) })
	p.boilers("boiler-1")
	before := heap()
	resp := p.raw(t, "GET", history, headers{"Accept-Encoding": coding, "Accept": "application/x-ndjson"})
	sent := &counter{r: resp.Body}
	var r io.Reader = sent
	if coding == "gzip" {
		z, err := gzip.NewReader(sent)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	}
	read := &counter{r: r}
	if _, err := io.Copy(io.Discard, read); err != nil {
		t.Fatal(err)
	}
	return read.n, sent.n, max(0, most-before)
}

// TestExportInLittleMemory: an export takes the memory of a page, compressed as well.
func TestExportInLittleMemory(t *testing.T) {
	plain, wire, grown := export(t, 12, "gzip")
	if plain < 12*10_000*60 || wire > plain/5 {
		t.Errorf("%d bytes in %d", plain, wire)
	}
	if grown > 4<<20 { // half of the text
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
}

// BenchmarkExportOfAYear is a year of a sample each ten seconds.
func BenchmarkExportOfAYear(b *testing.B) {
	for _, coding := range []string{"identity", "gzip"} {
		b.Run(coding, func(b *testing.B) {
			for b.Loop() {
				plain, wire, grown := export(b, 316, coding)
				b.ReportMetric(float64(plain)/1e6, "MB")
				b.ReportMetric(float64(wire)/1e6, "MB-sent")
				b.ReportMetric(float64(grown)/1e6, "MB-heap")
			}
		})
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// BenchmarkAnswer measures what compression costs and spares, without a network.
func BenchmarkAnswer(b *testing.B) {
	h := newBare(b).h
	for i := range 400 {
		name := fmt.Sprintf("boiler-%d", i+2)
		bare{b, h}.do("PUT", "/api/v1/devices/"+name, device(name))
	}
	for _, c := range []struct{ name, path string }{{"small", "/api/v1/devices/boiler-1"}, {"twin", "/api/v1/devices/boiler-1/twin"}, {"list", "/api/v1/devices"}} {
		for _, coding := range []string{"identity", "gzip", "gzip, deflate, br"} {
			b.Run(c.name+"/"+strings.ReplaceAll(coding, ", ", "+"), func(b *testing.B) {
				size := 0
				for b.Loop() {
					req := httptest.NewRequest("GET", c.path, nil)
					req.Header.Set("Authorization", "Bearer "+cloudapitest.AdminToken)
					req.Header.Set("Accept-Encoding", coding)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, req)
					if size = w.Body.Len(); w.Code != 200 {
						b.Fatal(w.Code)
					}
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}
