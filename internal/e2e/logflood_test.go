package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const floodManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: flood}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: flood}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      logs: {maxSize: 20Mi, maxFiles: 2}
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["flood=200"]}
`

// TestLogFlood reads the log of an app that says as much as it can, quickly and not
// at all, and looks at what else the edge has to do meanwhile.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	sim := tanks(t, 1)
	h.apply(tankModel)
	h.want(t, 201, "POST", hubAPI+"/devices", tank(sim, "tank-1", "gateway-1"))
	e := c.appNode(h, "gateway-1")
	h.awaitTwin(t, 20*time.Second, hubAPI, "tank-1", "good", isGood("level"))
	local := e.local()

	const looks = 40
	// lag is how old the oldest record is that the hub has not acknowledged, looked at
	// again and again: the middle one and the most.
	lag := func(what string) (most time.Duration) {
		t.Helper()
		var all []time.Duration
		for range looks {
			got, err := local.do("GET", "/metrics", "")
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(got.String(), "\nwhimbrel_link_lag_seconds ")
			text, _, _ := strings.Cut(rest, "\n")
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("the lag is %q: %v", text, err)
			}
			all = append(all, time.Duration(seconds*float64(time.Second)))
			time.Sleep(100 * time.Millisecond) //sleep: looks at intervals
		}
		slices.Sort(all)
		most = all[looks-1]
		t.Logf("%s: records wait %v (median), %v (most) for the hub; RSS of the edge %d MB, of the hub %d MB", what, all[looks/2], most, e.rss(t)>>20, h.rss(t)>>20)
		return most
	}
	lag("nothing is said")
	h.apply(floodManifest)
	if r := h.cli("", "rollout", "status", "flood"); r.code != 0 {
		t.Fatal(r)
	}
	lag("nobody reads")
	edgeBefore, hubBefore := e.rss(t), h.rss(t)
	follow := func(ctx context.Context) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", h.url+hubAPI+"/pods/flood-0/log?follow=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+h.token)
		res, err := h.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		return res
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	quick := follow(ctx)
	read := make(chan int64, 1)
	began := time.Now()
	go func() { // ends with ctx
		n, _ := io.Copy(io.Discard, quick.Body)
		read <- n
	}()
	if most := lag("somebody reads"); most > 10*time.Second {
		t.Errorf("records wait %v behind a log", most)
	}
	cancel()
	n := <-read
	_ = quick.Body.Close()
	t.Logf("they read %.1f MB/s", float64(n)/1e6/time.Since(began).Seconds())
	if n == 0 {
		t.Error("they read nothing")
	}
	slowly, leave := context.WithCancel(t.Context())
	defer leave()
	for range 8 {
		slow := follow(slowly)
		defer slow.Body.Close()
		if _, err := io.ReadFull(slow.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if most := lag("eight read nothing more"); most > 10*time.Second {
		t.Errorf("records wait %v behind a log that nobody takes", most)
	}
	const bound = 64 << 20
	if edge, hub := e.rss(t), h.rss(t); edge > edgeBefore+bound || hub > hubBefore+bound {
		t.Errorf("with readers who do not read the edge has %d MB and the hub %d MB, and had %d and %d", edge>>20, hub>>20, edgeBefore>>20, hubBefore>>20)
	}
	leave()
	eventually(t, 20*time.Second, "the streams are given back", func() error {
		got := h.want(t, 200, "GET", hubAPI+"/pods/flood-0/log?tailLines=1", "")
		if len(got.String()) == 0 {
			return fmt.Errorf("nothing is said")
		}
		return nil
	})
}
