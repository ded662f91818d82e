package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// world is a hub and an edge that has joined it, each in a process of its own,
// linked over TLS on loopback.
type world struct {
	dir    string
	server string // the hub's REST API
	token  string
	hub    *process
	edge   *process

	hubArgs []string // it was started with
	client  http.Client
}

// process is a running binary.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func start(binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	return p, p.cmd.Start()
}

func (p *process) stop() {
	if p != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait() // ended by the signal, or gone before
	}
}

// binaries are built once for a run, into a directory that main removes.
var binaries struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// kill ends the process as a power failure does.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = p.cmd.Wait() // ended by the signal
	return nil
}

// build builds a binary as it ships and returns its path.
func build(ctx context.Context, name string) (path string, err error) {
	b := &binaries
	b.Lock()
	defer b.Unlock()
	if path, there := b.built[name]; there {
		return path, nil
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "whimbrel-bench-bin-*"); err != nil {
			return "", err
		}
		b.built = map[string]string{}
	}
	path = filepath.Join(b.dir, name)
	out, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", path, "github.com/whimbrel-edge/whimbrel/cmd/"+name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	b.built[name] = path
	return path, nil
}

// removeBinaries removes what was built.
func removeBinaries() error {
	binaries.Lock()
	defer binaries.Unlock()
	if binaries.dir == "" {
		return nil
	}
	return os.RemoveAll(binaries.dir)
}

// newWorld starts a hub on SQLite and an edge called bench that has joined it.
func newWorld(ctx context.Context) (*world, error) { return newWorldOn(ctx, "") }

// newWorldOn does so with the hub on a database.
func newWorldOn(ctx context.Context, database string) (w *world, err error) {
	if w, err = newHub(ctx, database); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	edge, err := build(ctx, "whimbrel-edge")
	if err != nil {
		return w, err
	}
	link, token, err := w.join(ctx, "bench")
	if err != nil {
		return w, err
	}
	w.edge, err = start(edge, "--hub", link, "--token", token, "--name", "bench", "--data", w.edgeData(),
		"--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	if err != nil {
		return w, err
	}
	return w, w.until(ctx, 20*time.Second, "the edge to connect", func() bool { return w.ready(ctx, "bench") })
}

func (w *world) edgeData() string { return filepath.Join(w.dir, "edge") }

// newHub starts a hub on a database, "" for SQLite.
func newHub(ctx context.Context, database string) (w *world, err error) {
	dir, err := os.MkdirTemp("", "whimbrel-bench-*")
	if err != nil {
		return nil, err
	}
	w = &world{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	hub, err := build(ctx, "whimbrel")
	if err != nil {
		return w, err
	}
	w.hubArgs = []string{"hub", "--data", filepath.Join(dir, "hub"), "--listen", "127.0.0.1:0", "--link", "127.0.0.1:0", "--insecure-http", "--route-allow", "127.0.0.0/8"}
	if database != "" {
		w.hubArgs = append(w.hubArgs, "--database", database)
	}
	return w, w.startHub(ctx, hub)
}

// startHub starts the hub and waits until its API answers.
func (w *world) startHub(ctx context.Context, hub string) (err error) {
	if w.hub, err = start(hub, w.hubArgs...); err != nil {
		return err
	}
	var c struct{ Server, Token string }
	return w.until(ctx, 20*time.Second, "the hub to be ready", func() bool {
		text, err := os.ReadFile(filepath.Join(w.dir, "hub", "context.json"))
		if err != nil || json.Unmarshal(text, &c) != nil { // it is written when the API listens
			return false
		}
		w.server, w.token = c.Server, c.Token
		return w.call(ctx, "GET", "/api/v1/nodes", nil, nil) == nil
	})
}

// join lets a node in, and returns the address of the link and the join token.
func (w *world) join(ctx context.Context, node string) (link, token string, err error) {
	var join struct{ Token, Command string }
	if err := w.call(ctx, "POST", "/api/v1/tokens", map[string]string{"node": node}, &join); err != nil {
		return "", "", err
	}
	words := strings.Fields(join.Command)
	return words[slices.Index(words, "--hub")+1], join.Token, nil
}

// ready reports whether a node is online.
func (w *world) ready(ctx context.Context, name string) bool {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if w.call(ctx, "GET", "/api/v1/nodes/"+name, nil, &node) != nil {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return true
		}
	}
	return false
}

// close ends everything and removes the directory.
func (w *world) close() error {
	w.edge.stop()
	w.hub.stop()
	return os.RemoveAll(w.dir)
}

// until polls a condition.
func (w *world) until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("waited %s for %s; hub and edge say:\n%s\n%s", limit, what, w.hub.said(), w.edge.said())
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// said is the end of a process' log.
func (p *process) said() string {
	if p == nil {
		return "(not started)"
	}
	return tail(p.log.String(), 2000)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// call makes a request to the hub's REST API and decodes the answer.
func (w *world) call(ctx context.Context, method, path string, body any, into any) error {
	text, err := w.send(ctx, method, path, body)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// send makes a request to the hub's REST API.
func (w *world) send(ctx context.Context, method, path string, body any) ([]byte, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.server+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, tail(string(text), 500))
	}
	return text, nil
}

// register makes a model and devices of it.
func (w *world) register(ctx context.Context, model string, properties []map[string]any, devices map[string]string) error {
	if err := w.model(ctx, model, properties); err != nil {
		return err
	}
	for name, addr := range devices {
		if err := w.device(ctx, model, "bench", name, addr); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) model(ctx context.Context, name string, properties []map[string]any) error {
	return w.call(ctx, "POST", "/api/v1/devicemodels", map[string]any{"apiVersion": "whimbrel/v1", "kind": "DeviceModel",
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"protocol": "modbus", "properties": properties}}, nil)
}

// device makes a device, no faster than the hub takes requests of one user.
func (w *world) device(ctx context.Context, model, node, name, addr string) error {
	sleep(ctx, perWrite)
	return w.create(ctx, model, node, name, addr)
}

func (w *world) create(ctx context.Context, model, node, name, addr string) error {
	return w.call(ctx, "POST", "/api/v1/devices", map[string]any{"apiVersion": "whimbrel/v1", "kind": "Device", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"model": model, "node": node, "connection": map[string]any{"url": "tcp://" + addr, "unit": 1}}}, nil)
}

// good reports whether every property of a device is reported good.
func (w *world) good(ctx context.Context, device string, properties int) bool {
	var doc struct {
		Properties map[string]struct {
			Reported struct{ Quality string }
		}
	}
	if w.call(ctx, "GET", "/api/v1/devices/"+device+"/twin", nil, &doc) != nil {
		return false
	}
	n := 0
	for _, p := range doc.Properties {
		if p.Reported.Quality == "good" {
			n++
		}
	}
	return n == properties
}

// rss returns the resident set of a process in bytes.
func rss(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS for process %d", pid)
}

// cpuOf returns the CPU time that a process has taken.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err // a hundred ticks a second
}
