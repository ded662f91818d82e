package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

const lookManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: talk}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: talk}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["say=begins", "grumble=complains", "say=goes on", "serve=8080"], env: [{name: SECRET, value: hush-hush}]}
      - {name: side, image: whimbrel.test/app:1, args: ["say=aside", "serve=8081"]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: counter}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: counter}}
    spec:
      nodeName: gateway-1
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["count=20ms"]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: broken}}
    spec:
      nodeName: gateway-1
      containers:
      - {name: main, image: whimbrel.test/never:1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nowhere}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: nowhere}}
    spec:
      nodeName: gateway-9
      containers:
      - {name: main, image: whimbrel.test/app:1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: crash}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: crash}}
    spec:
      nodeName: gateway-1
      containers:
      - {name: main, image: whimbrel.test/app:1, args: ["say=once", "sleep=300ms", "exit=3"]}
`

// background is a client command that goes on.
func (h *hub) background(name string, args ...string) *process {
	h.t.Helper()
	p := newProcess(h.t, name, h.path)
	p.start(append([]string{"--context", filepath.Join(h.data, "context.json")}, args...)...)
	return p
}

var counted = regexp.MustCompile(`(?m)^n (\d+)$`)

// counts checks what a counter has been heard saying: each number once and in its
// order, from 1 again with each life. It returns the lives and the last number.
func counts(t *testing.T, text string) (lives, last int) {
	t.Helper()
	lives = 1
	for i, m := range counted.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[1])
		switch {
		case i == 0:
		case n == 1:
			lives++
		case n != last+1:
			t.Fatalf("%d comes after %d", n, last)
		}
		last = n
	}
	return lives, last
}

// container is the one that runs of a pod.
func (c *containers) container(pod string) engine.Container {
	c.t.Helper()
	for _, l := range c.list() {
		if l.Labels["whimbrel.pod"] == pod && l.State == engine.Running {
			return l
		}
	}
	return engine.Container{}
}

// TestPodLook reads logs of apps and runs commands in them.
func TestPodLook(t *testing.T) {
	t.Parallel()
	c := newContainers(t)
	h := newHub(t, "")
	e := c.appNode(h, "gateway-1")
	h.apply(lookManifest)
	for _, app := range []string{"talk", "counter"} {
		if r := h.cli("", "rollout", "status", app); r.code != 0 {
			t.Fatal(r)
		}
	}
	says := func(r result, code int, out string, errs ...string) {
		t.Helper()
		if r.code != code || out != "*" && r.stdout != out {
			t.Errorf("%v\nwant exit %d and %q", r, code, out)
		}
		for _, text := range errs {
			if !strings.Contains(r.stderr, text) {
				t.Errorf("%v\nand nothing says %q", r, text)
			}
		}
	}
	step(t, "logs", func(t *testing.T) {
		says(h.cli("", "logs", "talk", "--stream", "stdout"), 0, "begins\ngoes on\nserving on 8080\n", "Of the 2 pods of talk this is talk-", "Of the containers main, side of pod")
		says(h.cli("", "logs", "pod/talk-1", "-c", "main", "--stream", "stderr"), 0, "complains\n")
		says(h.cli("", "logs", "talk-1", "-c", "side"), 0, "aside\nserving on 8081\n")
		says(h.cli("", "logs", "talk-1", "-c", "side", "--tail", "1"), 0, "serving on 8081\n")
		says(h.cli("", "logs", "talk-1", "-c", "side", "--since", "1h", "--tail", "0"), 0, "")
		says(h.cli("", "logs", "talk-1", "-c", "side", "--since", "2100-01-01T00:00:00Z"), 0, "")
		if r := h.cli("", "logs", "talk", "--all", "-c", "side", "--timestamps"); r.code != 0 || strings.Count(r.stdout, "\n") != 4 ||
			!regexp.MustCompile(`(?m)^talk-0  20\d\d-\S+Z aside$`).MatchString(r.stdout) || !strings.Contains(r.stdout, "talk-1  20") {
			t.Errorf("all: %v", r)
		}
		says(h.cli("", "logs", "talk-1", "-c", "none"), 1, "", "pod talk-1 has no container none; it has: main, side")
		says(h.cli("", "logs", "none"), 1, "", "no app or pod none in namespace default")
		says(h.cli("", "logs", "broken"), 1, "", "was not started yet", "whimbrel.test/never:1")
		says(h.cli("", "logs", "talk-1", "-c", "side", "--previous"), 1, "", "no earlier life")
		says(h.cli("", "logs", "talk-1", "-c", "side", "--revision", "7"), 1, "", "nothing of revision 7", "it has: 1")
		eventually(t, 30*time.Second, "it crashes again", func() error {
			if r := h.cli("", "logs", "crash", "--previous"); r.stdout != "once\n" || r.code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	})
	step(t, "what REST answers", func(t *testing.T) {
		viewer := h.userToken(t, "vera", "viewer")
		operator := h.userToken(t, "otto", "operator")
		log, run := hubAPI+"/pods/talk-0/log?container=side", hubAPI+"/pods/talk-0/exec?container=side&command=/app&command=say=x"
		for _, w := range []struct {
			token  string
			status int
			path   string
			say    string
		}{
			{operator, 200, log, "aside"},
			{viewer, 403, log, "operator"},
			{operator, 403, run, "admin"},
			{h.token, 400, run, "WebSocket"},
			{h.token, 400, hubAPI + "/pods/talk-0/exec?container=side", "command must say"},
			{h.token, 400, log + "&tailLines=-1", "tailLines"},
			{h.token, 400, log + "&limitBytes=3", "limitBytes"},
			{h.token, 400, log + "&sinceTime=yesterday", "sinceTime"},
			{h.token, 400, hubAPI + "/pods/talk-0/log?container=A/b", "container"},
			{h.token, 400, hubAPI + "/pods/talk-0/log", "one must be named: main, side"},
			{h.token, 404, hubAPI + "/pods/talk-9/log", "talk-9"},
			{h.token, 404, log + "&namespace=other", "talk-0"},
			{h.token, 409, hubAPI + "/pods/broken-0/log", "not started"},
			{h.token, 409, hubAPI + "/pods/nowhere-0/log", "gateway-9 does not exist"},
		} {
			got, err := h.as(w.token).do("GET", w.path, "")
			if err != nil || got.status != w.status || !strings.Contains(got.String(), w.say) {
				t.Errorf("%s: %v, %v; want %d and %q", w.path, got, err, w.status, w.say)
			}
		}
	})
	step(t, "followed through a restart, an engine that is killed and an edge that is", func(t *testing.T) {
		p := h.background("logs -f", "logs", "counter", "-f")
		heard := func(what string, lives, more int) {
			t.Helper()
			_, from := counts(t, p.stdout())
			eventually(t, 60*time.Second, what, func() error {
				l, n := counts(t, p.stdout())
				if how, gone := p.gone(); gone {
					return fmt.Errorf("it ended: %s", how)
				}
				if l < lives || l == lives && lives > 1 && n < more || lives == 1 && n < from+more {
					return fmt.Errorf("it heard %d in life %d", n, l)
				}
				return nil
			})
		}
		heard("it is heard", 1, 20)
		id := c.container("counter-0").ID
		if err := c.engine.Stop(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
		heard("its second life is heard", 2, 20)
		if r := h.cli("", "logs", "counter", "--previous", "--tail", "2"); r.code != 0 || strings.HasPrefix(r.stdout, "n 1\n") || counted.FindString(r.stdout) == "" || strings.Count(r.stdout, "\n") != 2 {
			t.Errorf("the life before: %v", r)
		}
		if r := h.cli("", "logs", "counter"); !strings.HasPrefix(r.stdout, "n 1\n") {
			t.Errorf("the life of now: %.100s", r.stdout)
		} else if l, _ := counts(t, r.stdout); l != 1 {
			t.Errorf("the life of now is %d", l)
		}
		_, before := counts(t, p.stdout())
		e.kill() // the container runs on
		eventually(t, 30*time.Second, "it is said that it broke off", func() error {
			if !strings.Contains(p.stderr(), "broke off") {
				return fmt.Errorf("%s", p.stderr())
			}
			return nil
		})
		says(h.cli("", "logs", "counter"), 1, "", "offline")
		e.again()
		heard("it goes on", 2, before+100)
		if err := c.Kill9(); err != nil {
			t.Fatal(err)
		}
		says(h.cli("", "logs", "counter"), 1, "*")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		heard("its third life is heard", 3, 20)
		h.must("", "rollout", "restart", "counter")
		heard("the next revision is heard", 4, 20)
		h.must("", "delete", "deployment", "counter")
		eventually(t, 30*time.Second, "it ends with the pod", func() error {
			if how, gone := p.gone(); !gone || how != "exit status 0" && !strings.Contains(how, "0") {
				return fmt.Errorf("%s %v", how, gone)
			}
			return nil
		})
	})
	h.cli("", "rollout", "status", "talk")
	command := exec.Command
	exec := func(stdin string, args ...string) result {
		t.Helper()
		return h.cli(stdin, append([]string{"exec", "talk-0", "-c", "side"}, args...)...)
	}
	step(t, "exec", func(t *testing.T) {
		says(exec("", "--", "/app", "say=out", "grumble=err", "exit=7"), 7, "out\n", "err")
		says(exec("one\ntwo\n", "-i", "--", "/app", "echo"), 0, "one\ntwo\n")
		says(exec("unread\n", "--", "/app", "echo"), 0, "")
		big := strings.Repeat(strings.Repeat("b", 99)+"\n", 20_000) // 2 MB
		says(exec(big, "-i", "--", "/app", "echo"), 0, big)
		if r := exec("", "--", "/none"); r.code == 0 || !strings.Contains(r.stdout+r.stderr, "/none") {
			t.Errorf("what is not there: %v", r)
		}
		says(exec("", "say=x"), 2, "", "needs -- between")
		says(h.cli("", "exec", "broken", "--", "/app"), 1, "", "does not run")
		says(h.cli("", "exec", "nowhere", "--", "/app"), 1, "", "runs nowhere")
		says(exec("x", "-it", "--", "/app", "winsize"), 0, "no terminal\n", "input is no terminal")
	})
	step(t, "exec, interrupted", func(t *testing.T) {
		for what, args := range map[string][]string{
			"idle":               {"--", "/app", "say=begun", "sleep=1h"},
			"that takes nothing": {"-i", "--", "/app", "say=begun", "sleep=1h"},
		} {
			p := newProcess(t, "exec "+what, h.path)
			if what != "idle" {
				zero, err := os.Open("/dev/zero")
				if err != nil {
					t.Fatal(err)
				}
				defer zero.Close()
				p.in = zero
			}
			p.start(append([]string{"--context", filepath.Join(h.data, "context.json"), "exec", "talk-0", "-c", "side"}, args...)...)
			eventually(t, 20*time.Second, "it has begun", func() error {
				if !strings.Contains(p.stdout(), "begun") {
					return fmt.Errorf("%s%s", p.stdout(), p.stderr())
				}
				return nil
			})
			if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, "it ends with 130", func() error {
				if how, gone := p.gone(); !gone || !strings.Contains(how, "130") {
					return fmt.Errorf("%q %v", how, gone)
				}
				return nil
			})
			eventually(t, 30*time.Second, "the command is ended: "+what, func() error {
				out, err := command("docker", "-H", c.Host(), "top", c.containerOf("talk-0", "side").ID).CombinedOutput()
				if err != nil || strings.Contains(string(out), "sleep=1h") {
					return fmt.Errorf("%v\n%s", err, out)
				}
				return nil
			})
		}
	})
	step(t, "exec, in a terminal", func(t *testing.T) { inPTY(t, h) })
	step(t, "the audit", func(t *testing.T) {
		var list struct {
			Items []struct {
				By, Action, Kind, Name string
				Exec                   struct {
					ID, Container, Error string
					Command              []string
					ExitCode             *int
				}
			}
		}
		var got answer
		eventually(t, 20*time.Second, "all commands have ended", func() error {
			got = h.want(t, 200, "GET", hubAPI+"/audit?limit=500", "")
			if begun, ended := strings.Count(got.String(), `"action":"exec"`), strings.Count(got.String(), `"action":"exec-ended"`); begun != ended {
				return fmt.Errorf("%d, %d", begun, ended)
			}
			return nil
		})
		got.into(t, &list)
		if strings.Contains(got.String(), "hush-hush") {
			t.Error("a variable's value is in the audit")
		}
		ended := map[string]string{}
		begun := 0
		for i := len(list.Items) - 1; i >= 0; i-- {
			switch it := list.Items[i]; it.Action {
			case "exec":
				begun++
				ended[it.Exec.ID] = "never"
				if it.Kind != "Pod" || it.By != "admin" || len(it.Exec.Command) == 0 {
					t.Errorf("%+v", it)
				}
				if it.Name == "talk-0" && fmt.Sprint(it.Exec.Command) == "[/app say=out grumble=err exit=7]" {
					ended["seven"] = it.Exec.ID
				}
			case "exec-ended":
				if ended[it.Exec.ID] != "never" {
					t.Errorf("ended before it began: %+v", it)
				}
				if ended[it.Exec.ID] = it.Exec.Error; it.Exec.ExitCode != nil {
					ended[it.Exec.ID] = strconv.Itoa(*it.Exec.ExitCode)
				}
			}
		}
		if begun < 8 || ended[ended["seven"]] != "7" {
			t.Errorf("%d began; %v", begun, ended)
		}
		text, _ := json.Marshal(ended)
		for _, want := range []string{"the caller has left", "broken-0 does not run"} {
			if strings.Contains(string(text), `"never"`) || !strings.Contains(string(text), want) {
				t.Errorf("how they ended: %s", text)
			}
		}
	})
	step(t, "at the edge itself", func(t *testing.T) {
		at := func(stdin string, args ...string) result {
			t.Helper()
			return run(t, stdin, h.path, append([]string{"--context", filepath.Join(e.data, "context.json")}, args...)...)
		}
		h.kill()
		says(at("", "logs", "talk", "-c", "side", "--tail", "1"), 0, "serving on 8081\n", "Of the 2 pods of talk this is talk-")
		says(at("", "logs", "talk-1", "-c", "main", "--stream", "stderr"), 0, "complains\n")
		says(at("in\n", "exec", "-i", "talk-0", "-c", "side", "--", "/app", "echo", "exit=6"), 6, "in\n")
		says(at("", "exec", "broken", "--", "/app"), 1, "", "does not run")
		says(at("", "logs", "none"), 1, "", "this edge runs no pod of none")
		says(at("", "logs", "pod/talk-1", "-n", "other"), 1, "", "this edge runs no pod of talk-1 in namespace other")
		local := e.local()
		for _, w := range []struct {
			status int
			path   string
		}{{200, "/pods"}, {404, "/pods/none/log"}, {400, "/pods/talk-0/log"}, {400, "/pods/talk-0/log?container=side&x=1"}, {400, "/pods/talk-0/exec?container=side&command=x"}} {
			if got := local.want(t, w.status, "GET", edgeAPI+w.path, ""); strings.Contains(got.String(), "hush-hush") {
				t.Errorf("a variable's value: %v", got)
			}
		}
		h.begin()
		h.awaitReady()
		h.awaitNode(t, "gateway-1", true)
	})
	step(t, "a cut link ends a command, and says so", func(t *testing.T) {
		p := h.background("exec", "exec", "talk-0", "-c", "side", "--", "/app", "say=begun", "sleep=1h")
		eventually(t, 20*time.Second, "it has begun", func() error {
			if !strings.Contains(p.stdout(), "begun") {
				return fmt.Errorf("%s%s", p.stdout(), p.stderr())
			}
			return nil
		})
		e.kill()
		eventually(t, 20*time.Second, "it ends", func() error {
			if how, gone := p.gone(); !gone || !strings.Contains(how, "1") || !strings.Contains(p.stderr(), "the connection to the node was lost") {
				return fmt.Errorf("%q %v %s", how, gone, p.stderr())
			}
			return nil
		})
		says(exec("", "--", "/app", "say=x"), 1, "", "offline")
	})
}

func (c *containers) containerOf(pod, name string) engine.Container {
	c.t.Helper()
	for _, l := range c.list() {
		if l.Labels["whimbrel.pod"] == pod && l.Labels["whimbrel.container"] == name && l.State == engine.Running {
			return l
		}
	}
	c.t.Fatalf("container %s of pod %s does not run", name, pod)
	return engine.Container{}
}

func (h *hub) userToken(t *testing.T, name, role string) string {
	t.Helper()
	out := h.must("", "user", "create", name, "--role", role, "--all-namespaces", "-o", "json")
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return token.Token
}

// inPTY runs commands as a person at a terminal does.
func inPTY(t *testing.T, h *hub) {
	cmd := exec.Command(h.path, "--context", filepath.Join(h.data, "context.json"), "exec", "-it", "talk-0", "-c", "side", "--", "/app", "winsize=1", "echo", "exit=5")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 91, Rows: 33})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	lines := make(chan string, 1000) // far more than there are
	go func() {                      // ends with the terminal
		defer close(lines)
		buf := make([]byte, 4096)
		var all bytes.Buffer
		for {
			n, err := terminal.Read(buf)
			all.Write(buf[:n])
			lines <- all.String()
			if err != nil {
				return
			}
		}
	}()
	shown := ""
	await := func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for !strings.Contains(shown, want) {
			select {
			case text, ok := <-lines:
				if !ok {
					t.Fatalf("the terminal shows %q and never %q", shown, want)
				}
				shown = text
			case <-deadline:
				t.Fatalf("the terminal shows %q and not %q", shown, want)
			}
		}
	}
	await("91 by 33\r\n")
	if err := pty.Setsize(terminal, &pty.Winsize{Cols: 120, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	await("120 by 40\r\n")
	if _, err := terminal.WriteString("typed\r\x04"); err != nil { // and Ctrl-D
		t.Fatal(err)
	}
	await("typed\r\ntyped\r\n") // the echo of the container's terminal, and the command's
	var code *exec.ExitError
	if err := cmd.Wait(); err == nil || !asExit(err, &code) || code.ExitCode() != 5 {
		t.Errorf("it ended with %v", err)
	}

	// Ctrl-C is the command's, and ends it there.
	cmd = exec.Command(h.path, "--context", filepath.Join(h.data, "context.json"), "exec", "-it", "talk-0", "-c", "side", "--", "/app", "say=begun", "sleep=1h")
	second, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	buf := make([]byte, 4096)
	for text := ""; !strings.Contains(text, "begun"); {
		n, err := second.Read(buf)
		if text += string(buf[:n]); err != nil {
			t.Fatalf("%v after %q", err, text)
		}
	}
	if _, err := second.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !asExit(err, &code) || code.ExitCode() != 130 && code.ExitCode() != 2 {
		t.Errorf("after Ctrl-C it ended with %v", err)
	}
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}
