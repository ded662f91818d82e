package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
)

// imageBytes is how long the layer of an image is, which nothing makes shorter.
const imageBytes = 32 << 20

// benchImages measures a layer's way to the hub, beside a bare HTTP upload to a file
// that is synced, and an image's way from the hub through the link to an edge's
// engine, beside `docker pull` from the hub by the same engine.
func benchImages(ctx context.Context, s settings) (out []result, err error) {
	w, err := newAppWorld(ctx, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	push, err := benchPush(ctx, w.world, s)
	if err != nil {
		return nil, err
	}
	pull, err := benchPull(ctx, w.world, w.docker, s)
	return []result{push, pull}, err
}

// timed is how many MB of an image go by in a second of f.
func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return imageBytes / 1e6 / time.Since(began).Seconds(), err
}

func random() ([]byte, error) {
	b := make([]byte, imageBytes)
	_, err := rand.Read(b)
	return b, err
}

func benchPush(ctx context.Context, w *world, s settings) (result, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return result{}, err
	}
	file := filepath.Join(w.dir, "bare")
	bareServer := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		f, err := os.Create(file)
		if err == nil {
			_, err = io.Copy(f, r.Body)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		rw.WriteHeader(http.StatusCreated)
	})}
	go func() { _ = bareServer.Serve(listener) }() // ends with Close
	defer bareServer.Close()
	send := func(method, url string, body []byte, want int) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+w.token)
		req.Header.Set("Content-Type", "application/octet-stream")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		said, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != want {
			return nil, fmt.Errorf("%s %s: %s %s", method, url, res.Status, said)
		}
		return res, nil
	}
	var ours, bare, ratios []float64
	for round := range s.rounds + 1 {
		layer, err := random()
		if err != nil {
			return result{}, err
		}
		sum := sha256.Sum256(layer)
		through, err := timed(func() error {
			res, err := send("POST", w.server+"/v2/bench/blobs/uploads/", nil, http.StatusAccepted)
			if err != nil {
				return err
			}
			at := res.Header.Get("Location")
			if strings.HasPrefix(at, "/") {
				at = w.server + at
			}
			_, err = send("PUT", at+"?digest=sha256:"+hex.EncodeToString(sum[:]), layer, http.StatusCreated)
			return err
		})
		if err != nil {
			return result{}, err
		}
		without, err := timed(func() error {
			_, err := send("PUT", "http://"+listener.Addr().String(), layer, http.StatusCreated)
			return err
		})
		if err != nil {
			return result{}, err
		}
		if round > 0 { // the first warms up
			ours, bare, ratios = append(ours, through), append(bare, without), append(ratios, through/without)
		}
	}
	return result{"a layer to the hub", fmt.Sprintf("%.0f MB/s", median(ours)), fmt.Sprintf("%.0f MB/s, bare HTTP to a synced file", median(bare)), fmt.Sprintf("%.2f", median(ratios)), "-", true}, nil
}

func benchPull(ctx context.Context, w *world, e engine.Images, s settings) (result, error) {
	whimbrel, err := build(ctx, "whimbrel")
	if err != nil {
		return result{}, err
	}
	// pushed puts an image of its own at the hub.
	pushed := func(ref string) error {
		blob, err := random()
		if err != nil {
			return err
		}
		archive, err := dockertest.Image(ref, []string{"/none"}, map[string][]byte{"blob": blob})
		if err != nil {
			return err
		}
		file := filepath.Join(w.dir, "image.tar")
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			return err
		}
		if said, err := exec.CommandContext(ctx, whimbrel, "--context", filepath.Join(w.dir, "hub", "context.json"), "image", "push", file).CombinedOutput(); err != nil {
			return fmt.Errorf("image push: %w\n%s", err, said)
		}
		return nil
	}
	host := strings.TrimPrefix(w.server, "http://")
	dockerCLI := func(stdin string, args ...string) error {
		cmd := exec.CommandContext(ctx, "docker", append([]string{"--config", filepath.Join(w.dir, "docker")}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("docker %s: %w\n%s", args[0], err, said)
		}
		return nil
	}
	if err := dockerCLI(w.token, "login", "-u", "admin", "--password-stdin", host); err != nil {
		return result{}, err
	}
	var ours, bare, ratios []float64
	for round := range s.rounds + 1 {
		mine, other := fmt.Sprintf("bench/mine:%d", round), fmt.Sprintf("bench/other:%d", round)
		if err := errors.Join(pushed(mine), pushed(other)); err != nil {
			return result{}, err
		}
		name := fmt.Sprintf("pull-%d", round)
		d := deployment(name)
		container := map[string]any{"name": "main", "image": mine}
		d["spec"].(map[string]any)["template"].(map[string]any)["spec"] = map[string]any{"containers": []any{container}}
		through, err := timed(func() error {
			if err := w.call(ctx, "POST", "/api/v1/deployments", d, nil); err != nil {
				return err
			}
			return w.until(ctx, time.Minute, "the image to be there", func() bool { _, err := e.Image(ctx, mine); return err == nil })
		})
		if err != nil {
			return result{}, err
		}
		if err := w.call(ctx, "DELETE", "/api/v1/deployments/"+name, nil, nil); err != nil {
			return result{}, err
		}
		without, err := timed(func() error { return dockerCLI("", "pull", host+"/"+other) })
		if err != nil {
			return result{}, err
		}
		if round > 0 { // the first warms up
			ours, bare, ratios = append(ours, through), append(bare, without), append(ratios, through/without)
		}
	}
	return result{"an image from the hub to an edge's engine", fmt.Sprintf("%.0f MB/s", median(ours)), fmt.Sprintf("%.0f MB/s, docker pull from the hub", median(bare)), fmt.Sprintf("%.2f", median(ratios)), "-", true}, nil
}
