package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hub is a `whimbrel hub` at addresses that outlive it.
type hub struct {
	*process
	*api     // as admin
	data     string
	database string
	listen   string
	link     string // host:port
}

// newHub starts a hub and waits until it is ready. database "" is its own file.
func newHub(t testing.TB, database string) *hub {
	t.Helper()
	return newHubWith(t, nil, database)
}

// newHubWith gives the hub an environment.
func newHubWith(t testing.TB, env []string, database string) *hub {
	t.Helper()
	h := &hub{process: newProcess(t, "hub", program(t, "whimbrel")), data: t.TempDir(), database: database, listen: holdPort(t), link: holdPort(t)}
	h.env = env
	h.begin()
	h.awaitReady()
	var err error
	if h.api, err = apiOf(h.data); err != nil {
		t.Fatal(err)
	}
	return h
}

// begin starts the process and does not wait.
func (h *hub) begin() {
	h.t.Helper()
	args := []string{"hub", "--data", h.data, "--listen", h.listen, "--link", h.link, "--route-allow", "127.0.0.0/8", "--log-level", "info"}
	if h.database != "" {
		args = append(args, "--database", h.database)
	}
	h.start(args...)
}

// awaitReady waits until the API answers.
func (h *hub) awaitReady() {
	h.t.Helper()
	eventually(h.t, 30*time.Second, "hub is ready", func() error {
		if how, gone := h.gone(); gone {
			return fmt.Errorf("it ended: %s", how)
		}
		a, err := apiOf(h.data)
		if err != nil {
			return err
		}
		got, err := a.do("GET", "/readyz", "")
		if err == nil && got.status != 200 {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
}

// cli runs a client command against this hub.
func (h *hub) cli(stdin string, args ...string) result {
	h.t.Helper()
	return run(h.t, stdin, h.path, append([]string{"--context", filepath.Join(h.data, "context.json")}, args...)...)
}

// must runs a client command that has to succeed and returns what it printed.
func (h *hub) must(stdin string, args ...string) string {
	h.t.Helper()
	r := h.cli(stdin, args...)
	if r.code != 0 {
		h.t.Fatalf("whimbrel %s: %v", strings.Join(args, " "), r)
	}
	return r.stdout
}

// apply applies documents.
func (h *hub) apply(documents string) {
	h.t.Helper()
	h.must(documents, "apply", "-f", "-")
}

// joinToken makes a one-time token.
func (h *hub) joinToken(node string) string {
	h.t.Helper()
	var token struct{ Token string }
	h.want(h.t, 201, "POST", hubAPI+"/tokens", fmt.Sprintf(`{"node":%q}`, node)).into(h.t, &token)
	return token.Token
}

// edge is a `whimbrel edge` with a directory that outlives it.
type edge struct {
	*process
	node, data string
	mqtt, addr string   // of the broker and of the local REST API
	command    []string // "edge" for the binary that has more than that
}

// newEdge joins a node to a hub and waits for nothing. link is host:port.
func newEdge(t testing.TB, h *hub, node, link string, more ...string) *edge {
	t.Helper()
	return newEdgeIn(t, t.TempDir(), nil, h, node, link, more...)
}

// newEdgeIn keeps the edge's data in a directory, and gives it an environment.
func newEdgeIn(t testing.TB, data string, env []string, h *hub, node, link string, more ...string) *edge {
	t.Helper()
	e := &edge{process: newProcess(t, "edge "+node, program(t, "whimbrel-edge")), node: node, data: data, mqtt: holdPort(t), addr: holdPort(t)}
	e.env = env
	e.start(append([]string{"--hub", "https://" + link, "--token", h.joinToken(node), "--name", node, "--data", e.data,
		"--mqtt", e.mqtt, "--api", e.addr, "--mqtt-anonymous"}, more...)...)
	return e
}

// again starts it with its data alone.
func (e *edge) again() {
	e.t.Helper()
	e.start(append(e.command, "--data", e.data)...)
}

// local is its REST API, once it is there.
func (e *edge) local() *api {
	e.t.Helper()
	var a *api
	eventually(e.t, 20*time.Second, e.name+" serves its API", func() (err error) {
		if how, gone := e.gone(); gone {
			return fmt.Errorf("it ended: %s", how)
		}
		if a, err = apiOf(e.data); err != nil {
			return err
		}
		got, err := a.do("GET", edgeAPI+"/devices", "")
		if err == nil && got.status != 200 {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
	return a
}

// copyDir copies a directory of files and directories.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// CopyFS widens modes; what holds keys is for the owner alone.
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
}
