package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// appImage is what is run, both ways.
const appImage = "whimbrel.bench/app:1"

// benchApps measures the time from a Deployment's arrival at the hub to its
// container running, beside `docker run` on the same engine.
func benchApps(ctx context.Context, s settings) (out []result, err error) {
	w, err := newAppWorld(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if _, err := w.docker.Network(ctx, "bench", nil); err != nil {
		return nil, err
	}

	var ours, bare, ratios []float64
	for round := range s.rounds + 1 {
		name := fmt.Sprintf("app-%d", round)
		began := time.Now()
		if err := w.call(ctx, "POST", "/api/v1/deployments", deployment(name), nil); err != nil {
			return nil, err
		}
		if err := awaitRunning(ctx, w.docker, map[string]string{"whimbrel.pod": name + "-0"}); err != nil {
			return nil, err
		}
		applied := time.Since(began)
		began = time.Now()
		// The answer comes when the container runs.
		if said, err := exec.CommandContext(ctx, "docker", "-H", w.host, "run", "-d", "--network", "bench", appImage, "serve=8080").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("docker run: %w\n%s", err, said)
		}
		run := time.Since(began)
		if round == 0 {
			continue // both have something to do for the first time
		}
		ours, bare, ratios = append(ours, applied.Seconds()), append(bare, run.Seconds()), append(ratios, applied.Seconds()/run.Seconds())
	}
	ms := func(v []float64) string { return fmt.Sprintf("%.0f ms", 1000*median(v)) }
	return []result{{"apply to container running", ms(ours), ms(bare) + " (docker run)", fmt.Sprintf("%.2f", median(ratios)), "-", true}}, nil
}

func deployment(name string) map[string]any {
	labels := map[string]string{"app": name}
	return map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"replicas": 1, "template": map[string]any{"metadata": map[string]any{"labels": labels},
			"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": appImage, "args": []string{"serve=8080"}}}}}}}
}

// awaitRunning waits until a container with these labels runs.
func awaitRunning(ctx context.Context, e engine.Containers, labels map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		list, err := e.List(ctx, labels)
		if err != nil {
			return err
		}
		if len(list) > 0 && list[0].State == engine.Running {
			return nil
		}
		sleep(ctx, 5*time.Millisecond)
	}
}
