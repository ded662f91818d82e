package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// logBytes is how much the apps have said whose logs are read.
const logBytes = 30_000_000

// benchLogs measures a log's way from the engine through the edge, the link and the
// hub to whoever reads it, beside reading it from the engine's own API. All of it is
// on one machine. An engine's work is by the line, so there are short ones and long ones.
func benchLogs(ctx context.Context, s settings) (out []result, err error) {
	w, err := newAppWorld(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	cli, err := build(ctx, "whimbrel")
	if err != nil {
		return nil, err
	}
	for _, line := range []int{100, 1000} {
		some, err := benchLog(ctx, s, w, cli, line)
		if out = append(out, some...); err != nil {
			return out, err
		}
	}
	return out, nil
}

// benchLog measures the log of an app that has said lines of a length.
func benchLog(ctx context.Context, s settings, w *appWorld, cli string, line int) (out []result, err error) {
	name := fmt.Sprint("says-", line)
	labels := map[string]any{"app": name}
	if err := w.call(ctx, "POST", "/api/v1/deployments", map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": map[string]any{"terminationGracePeriodSeconds": 1, "logs": map[string]any{"maxSize": "200Mi"},
			"containers": []any{map[string]any{"name": "main", "image": appImage, "args": []string{fmt.Sprintf("flood=%d,%d", line, logBytes/line), "say=said", "sleep=1h"}}}}}}}, nil); err != nil {
		return nil, err
	}
	path := "/api/v1/pods/" + name + "-0/log"
	if err := w.until(ctx, time.Minute, "the app to have said all", func() bool {
		said, err := w.send(ctx, "GET", path+"?tailLines=1", nil)
		return err == nil && string(said) == "said\n"
	}); err != nil {
		return nil, err
	}
	list, err := w.docker.List(ctx, map[string]string{"whimbrel.pod": name + "-0"})
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("%d containers of the app: %w", len(list), err)
	}
	bare := engineLog(w.host, list[0], line)
	through := func(query string) func(context.Context) (io.ReadCloser, error) {
		return func(ctx context.Context) (io.ReadCloser, error) {
			return open(ctx, http.DefaultClient, w.server+path+query, w.token)
		}
	}
	for _, m := range []struct {
		what string
		open func(context.Context) (io.ReadCloser, error)
	}{
		{"over REST", through("")},
		{"over REST, followed", through("?follow=true")},
		{"by whimbrel logs", command(w.world, cli, name+"-0")},
		{"by whimbrel logs -f", command(w.world, cli, name+"-0", "-f")},
	} {
		var ours, beside, ratios []float64
		for round := range s.rounds + 1 {
			through, err := readLog(ctx, m.open)
			if err != nil {
				return out, fmt.Errorf("a log %s: %w", m.what, err)
			}
			own, err := readLog(ctx, bare)
			if err != nil {
				return out, fmt.Errorf("a log of the engine's own: %w", err)
			}
			if round > 0 { // the first warms up
				ours, beside, ratios = append(ours, through), append(beside, own), append(ratios, through/own)
			}
		}
		const goal = 0.6 // of the ratio; three processes share the engine's processors
		out = append(out, result{fmt.Sprintf("a log of lines of %d bytes, %s", line, m.what), fmt.Sprintf("%.1f MB/s", median(ours)), fmt.Sprintf("%.1f MB/s, of the engine itself", median(beside)),
			fmt.Sprintf("%.2f", median(ratios)), fmt.Sprintf("≥ %.2f", goal), median(ratios) >= goal})
	}
	return out, nil
}

// readLog is how many MB of the app's text come in a second.
func readLog(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	body, err := open(ctx)
	if err != nil {
		return 0, err
	}
	_, err = io.CopyN(io.Discard, body, logBytes)
	took := time.Since(began)
	cancel()
	_ = body.Close() // a command that was followed ends with ctx
	return logBytes / 1e6 / took.Seconds(), err
}

func open(ctx context.Context, client *http.Client, url, token string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, errors.New(res.Status)
	}
	return res.Body, nil
}

// engineLog reads a container's log from the engine: with its times, as the edge
// needs them, and each line's eight bytes before it. Both are more than the text, so
// it is read to the end and counted as the text.
func engineLog(host string, c engine.Container, line int) func(context.Context) (io.ReadCloser, error) {
	_, path, _ := strings.Cut(host, "unix://")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	of := 8 + len("2026-01-02T15:04:05.123456789Z ") + line
	return func(ctx context.Context) (io.ReadCloser, error) {
		body, err := open(ctx, client, "http://engine/containers/"+c.ID+"/logs?stdout=1&stderr=1&timestamps=1", "")
		if err != nil {
			return nil, err
		}
		return &scaled{ReadCloser: body, of: of, is: line}, nil
	}
}

// scaled counts of bytes that are read a part only.
type scaled struct {
	io.ReadCloser
	of, is int
	rest   int
}

// Read implements io.Reader; what it puts into p is of no use.
func (s *scaled) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	n = n*s.is + s.rest
	s.rest = n % s.of
	return n / s.of, err
}

// command is the log as the command shows it.
func command(w *world, cli, pod string, flags ...string) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		cmd := exec.CommandContext(ctx, cli, append([]string{"logs", "pod/" + pod, "--server", w.server, "--token", w.token}, flags...)...)
		cmd.Stderr = os.Stderr
		text, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return running{text, cmd}, nil
	}
}

// running is a command's output. Close waits for its end.
type running struct {
	io.Reader
	cmd *exec.Cmd
}

// Close implements io.Closer.
func (r running) Close() error { return r.cmd.Wait() }
