package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// proxyCallers is how many ask at a time.
const proxyCallers = 16

// benchServices measures requests to an app through the hub, the link and the
// edge, and bytes of an answer and of a request, beside calls of the same app
// without anything between. All of it is on one machine, whose processors the
// app, the edge, the hub and who asks share.
func benchServices(ctx context.Context, s settings) (out []result, err error) {
	w, err := newAppWorld(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := free.Addr().(*net.TCPAddr)
	if err := free.Close(); err != nil {
		return nil, err
	}
	labels := map[string]any{"app": "web"}
	if err := w.call(ctx, "POST", "/api/v1/deployments", map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": map[string]any{"hostNetwork": true, "terminationGracePeriodSeconds": 1,
			"containers": []any{map[string]any{"name": "main", "image": appImage, "args": []string{fmt.Sprint("serve=", addr.Port)}, "ports": []any{map[string]any{"containerPort": addr.Port}}}}}}}}, nil); err != nil {
		return nil, err
	}
	if err := w.call(ctx, "POST", "/api/v1/services", map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"selector": labels, "ports": []any{map[string]any{"port": 80, "targetPort": addr.Port}}}}, nil); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: proxyCallers}}
	defer client.CloseIdleConnections()
	direct := asked{client, "http://" + addr.String(), ""}
	proxied := asked{client, w.server + "/api/v1/services/web/proxy", w.token}
	if err := w.until(ctx, time.Minute, "the app to answer", func() bool { _, err := proxied.get(ctx, "/"); return err == nil }); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		what, unit string
		scale      float64
		goal       float64 // of the ratio; three processes stand between, on the same processors
		rate       func(context.Context, asked) (float64, error)
	}{
		{fmt.Sprintf("requests to an app, %d at a time", proxyCallers), "requests/s", 1, 0.15, func(ctx context.Context, a asked) (float64, error) { return a.requests(ctx, proxyCallers, s.duration) }},
		{"requests to an app, one by one", "requests/s", 1, 0.08, func(ctx context.Context, a asked) (float64, error) { return a.requests(ctx, 1, s.duration) }},
		{"an app's answer, one stream", "MB/s", 1e-6, 0.12, func(ctx context.Context, a asked) (float64, error) { return a.download(ctx, s.duration) }},
		{"a request's body, one stream", "MB/s", 1e-6, 0.15, func(ctx context.Context, a asked) (float64, error) { return a.upload(ctx, s.duration) }},
	} {
		var ours, bare, ratios []float64
		for round := range s.rounds + 1 {
			through, err := m.rate(ctx, proxied)
			if err != nil {
				return out, fmt.Errorf("%s, through the hub: %w", m.what, err)
			}
			without, err := m.rate(ctx, direct)
			if err != nil {
				return out, fmt.Errorf("%s: %w", m.what, err)
			}
			if round > 0 { // the first warms up
				ours, bare, ratios = append(ours, through), append(bare, without), append(ratios, through/without)
			}
		}
		out = append(out, result{m.what + ", through the hub", fmt.Sprintf("%.0f %s", median(ours)*m.scale, m.unit), fmt.Sprintf("%.0f %s, direct", median(bare)*m.scale, m.unit),
			fmt.Sprintf("%.2f", median(ratios)), fmt.Sprintf("≥ %.2f", m.goal), median(ratios) >= m.goal})
	}
	return out, nil
}

// asked is an app, as it is reached.
type asked struct {
	client *http.Client
	url    string
	token  string
}

func (a asked) do(ctx context.Context, method, path string, body io.Reader) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, body)
	if err != nil {
		return 0, err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return n, err
}

func (a asked) get(ctx context.Context, path string) (int64, error) {
	return a.do(ctx, http.MethodGet, path, nil)
}

// requests is how many short ones are answered in a second.
func (a asked) requests(ctx context.Context, callers int, d time.Duration) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var n atomic.Int64
	var wait sync.WaitGroup
	began := time.Now()
	for range callers {
		wait.Go(func() {
			for time.Since(began) < d && ctx.Err() == nil {
				if _, err := a.get(ctx, "/"); err != nil {
					cancel(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wait.Wait()
	return float64(n.Load()) / time.Since(began).Seconds(), context.Cause(ctx)
}

// download is how many bytes of long answers come in a second.
func (a asked) download(ctx context.Context, d time.Duration) (float64, error) {
	began, n := time.Now(), int64(0)
	for time.Since(began) < d {
		got, err := a.get(ctx, "/bytes?n=33554432")
		if err != nil {
			return 0, err
		}
		n += got
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// upload is how many bytes of long requests are taken in a second.
func (a asked) upload(ctx context.Context, d time.Duration) (float64, error) {
	const size = 32 << 20
	block := make([]byte, size)
	began, n := time.Now(), int64(0)
	for time.Since(began) < d {
		if _, err := a.do(ctx, http.MethodPost, "/swallow", bytes.NewReader(block)); err != nil {
			return 0, err
		}
		n += size
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
