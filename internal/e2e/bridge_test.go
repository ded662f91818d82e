package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

// mosquitto is another MQTT broker, with one user and a memory.
type mosquitto struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newMosquitto(t *testing.T, user, password string) *mosquitto {
	t.Helper()
	need.Program(t, "mosquitto", "mosquitto")
	m := &mosquitto{t: t, dir: t.TempDir(), addr: holdPort(t)}
	_, port, err := net.SplitHostPort(m.addr)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(m.dir, "users")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", users, user, password).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	conf := fmt.Sprintf("listener %s 127.0.0.1\npassword_file %s\nallow_anonymous false\npersistence true\npersistence_location %s/\nuser root\nmax_queued_messages 0\n", port, users, m.dir)
	if err := os.WriteFile(filepath.Join(m.dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", filepath.Join(m.dir, "conf"))
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, 10*time.Second, "mosquitto listens", func() error {
		conn, err := net.Dial("tcp", m.addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func (m *mosquitto) stop() {
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// watch follows all topics through restarts, and returns the lines "topic payload".
func (m *mosquitto) watch(user, password string) func() []string {
	m.t.Helper()
	host, port, _ := net.SplitHostPort(m.addr)
	file, err := os.Create(filepath.Join(m.dir, "seen"))
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(need.Program(m.t, "mosquitto_sub", "mosquitto-clients"), "-h", host, "-p", port, "-u", user, "-P", password, "-c", "-i", "watcher", "-q", "1", "-t", "#", "-F", "%t %p")
	cmd.Stdout = file
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		file.Close()
	})
	return func() []string {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			m.t.Fatal(err)
		}
		return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	}
}

// TestBridge carries messages to another broker and back, with a password from a
// Secret, while the broker is stopped and started; and headers from a Secret.
func TestBridge(t *testing.T) {
	const user, password, marker = "plant", "Correct-Horse", "Bearer Battery-Staple"
	other := newMosquitto(t, user, password)
	target := newSink(t)
	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	route := func(name, spec string) {
		t.Helper()
		spec = strings.NewReplacer("BROKER", fmt.Sprintf(`url: "mqtt://%s", username: %s, passwordFrom: {secret: erp, key: password}`, other.addr, user), "SINK", target.URL).Replace(spec)
		h.apply("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n")
	}
	route("there", `from: {mqtt: "erp/#"}, to: {broker: {BROKER, topic: "erp/{#}"}}`)
	route("back", `from: {broker: {BROKER, topic: "erp/#"}}, to: {mqtt: {topic: "erp/{#}"}}`)
	route("orders", `from: {broker: {BROKER, topic: "orders/#"}}, to: {mqtt: {topic: "in/{#}"}}`)
	route("post", `from: {mqtt: "post/#"}, to: {http: {url: "SINK/post", headersFrom: {secret: token}}}`)
	h.apply(secret("erp", `{"password": "wrong"}`)) // the routes were there first
	h.apply(secret("erp", fmt.Sprintf(`{"password": %q}`, password)))
	seen := other.watch(user, password)
	local := subscribe(t, e.mqtt, "#")

	// Probes, until both ways are open.
	eventually(t, 20*time.Second, "the edge reaches the broker", func() error {
		local.publish(t, "erp/probe", "p")
		if !slices.Contains(seen(), "erp/probe p") {
			return fmt.Errorf("saw %q", seen())
		}
		return nil
	})
	count := 0
	eventually(t, 20*time.Second, "the broker reaches the edge", func() error {
		other.publish(user, password, "orders/probe", "p")
		if !slices.ContainsFunc(local.all(), func(m message) bool { return m.topic == "in/probe" }) {
			return fmt.Errorf("nothing yet")
		}
		return nil
	})
	var want []string
	send := func(n int) {
		for range n {
			count++
			local.publish(t, "erp/n", fmt.Sprint(count))
			want = append(want, fmt.Sprintf("erp/n %d", count))
		}
	}
	send(20)
	other.stop()
	send(30)
	other.start()
	send(20)
	eventually(t, 40*time.Second, "all have arrived, in order", func() error {
		var got []string
		for _, line := range seen() {
			if strings.HasPrefix(line, "erp/n ") && !slices.Contains(got, line) { // at least once
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%d of %d: %q", len(got), len(want), got)
		}
		return nil
	})
	other.publish(user, password, "orders/7", "after")
	local.await(t, "in/7", "after")
	// Nothing went round.
	echoes := 0
	for _, m := range local.all() {
		if m.topic == "erp/n" {
			echoes++
		}
	}
	if echoes != count {
		t.Errorf("%d messages on erp/n at the edge, %d were published", echoes, count)
	}

	local.publish(t, "post/a", "1")
	awaitRoute(t, h, "post", "lacks its Secret", func(d routeDoc) bool { return strings.Contains(d.Status.LastError, "no secret token") })
	h.apply(secret("token", fmt.Sprintf(`{"Authorization": %q}`, marker)))
	if got := target.await(t, "/post", 1)[0]; got.header.Get("Authorization") != marker {
		t.Errorf("headers %v", got.header)
	}
	e.stop()
	h.stop()
	for _, log := range []string{e.stderr(), h.stderr()} {
		if strings.Contains(log, "Battery-Staple") || strings.Contains(log, password) {
			t.Error("a log shows a secret")
		}
	}
}

func (m *mosquitto) publish(user, password, topic, payload string) {
	m.t.Helper()
	host, port, _ := net.SplitHostPort(m.addr)
	if out, err := exec.Command("mosquitto_pub", "-h", host, "-p", port, "-u", user, "-P", password, "-q", "1", "-t", topic, "-m", payload).CombinedOutput(); err != nil {
		m.t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}
