package doctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators"
)

const root = "../.."

// documents are the pages for users.
func documents(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(paths) < 8 {
		t.Fatalf("found %d pages in docs: %v", len(paths), err)
	}
	return append([]string{root + "/README.md"}, paths...)
}

func blocksOf(t *testing.T, path string) []Block {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Blocks(string(text))
}

func TestBlocks(t *testing.T) {
	got := Blocks("text\n```sh test\na\n\nb\n```\n\n```yaml file=x.yaml simulator\nc: 1\n```\n```\nplain\n```\n")
	if len(got) != 3 || got[0].Text != "a\n\nb\n" || got[0].Line != 3 || !got[0].Has("test") || got[1].File() != "x.yaml" || !got[1].Has("simulator") || got[2].Language != "" {
		t.Errorf("got %+v", got)
	}
}

// Every YAML object in the documentation is one that Whimbrel takes.
func TestObjects(t *testing.T) {
	for _, path := range documents(t) {
		for _, b := range blocksOf(t, path) {
			at := fmt.Sprintf("%s:%d", path, b.Line)
			switch {
			case b.Language == "yaml" && b.Has("simulator"):
				file := filepath.Join(t.TempDir(), b.File())
				if err := os.WriteFile(file, []byte(b.Text), 0o644); err != nil {
					t.Fatal(err)
				}
				if _, err := simulators.Load(file); err != nil {
					t.Errorf("%s: %v", at, err)
				}
			case b.Language == "yaml":
				if _, err := models.DecodeObjects([]byte(b.Text)); err != nil {
					t.Errorf("%s: %v", at, err)
				}
			case b.Language == "json" && strings.Contains(b.Text, `"…"`) == false:
				if !json.Valid([]byte(b.Text)) {
					t.Errorf("%s: not JSON", at)
				}
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// What the pages link to is there.
func TestLinks(t *testing.T) {
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// Go files in the documentation compile. They are laid over the module, in a
// folder that does not exist.
func TestGoFiles(t *testing.T) {
	for _, path := range documents(t) {
		for _, b := range blocksOf(t, path) {
			if b.Language != "go" || b.File() == "" {
				continue
			}
			dir := t.TempDir()
			file := filepath.Join(dir, b.File())
			if err := os.WriteFile(file, []byte(b.Text), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("gofmt", "-l", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s:%d: not formatted as gofmt does: %v\n%s", path, b.Line, err, out)
			}
			there, err := filepath.Abs(filepath.Join(root, "internal/doctest/overlaid", b.File()))
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(map[string]any{"Replace": map[string]string{there: file}})
			if err != nil {
				t.Fatal(err)
			}
			overlay := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(overlay, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "build", "-overlay", overlay, "./overlaid").CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %v\n%s", path, b.Line, err, out)
			}
		}
	}
}

// program is the whimbrel to run: WHIMBREL_BINARY, or one that is built here.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("WHIMBREL_BINARY")
	if path == "" {
		path = filepath.Join(t.TempDir(), "whimbrel")
		if out, err := exec.Command("go", "build", "-o", path, root+"/cmd/whimbrel").CombinedOutput(); err != nil {
			missing(t, fmt.Sprintf("whimbrel does not build: %v\n%s", err, out))
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "up", "--help").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--mqtt")) {
		missing(t, "this whimbrel has no up")
	}
	return path
}

func missing(t *testing.T, what string) {
	t.Helper()
	if need.Required() {
		t.Fatal(what)
	}
	t.Skip(what)
}

// TestCommands runs the shell blocks of each page in order, each page in a
// folder of its own beside a `whimbrel up` of its own.
func TestCommands(t *testing.T) {
	bash := need.Program(t, "bash", "bash")
	whimbrel := program(t)
	for _, path := range documents(t) {
		blocks := blocksOf(t, path)
		text := ""
		for _, b := range blocks {
			if b.Language == "sh" && b.Has("test") {
				text += b.Text
			}
		}
		if text == "" {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			for _, tool := range [][2]string{{"curl", "curl"}, {"mosquitto_sub", "mosquitto-clients"}} {
				if strings.Contains(text, tool[0]) {
					need.Program(t, tool[0], tool[1])
				}
			}
			d := &desk{dir: t.TempDir(), bash: bash}
			d.env = append(os.Environ(), "PATH="+filepath.Dir(whimbrel)+":"+os.Getenv("PATH"), "HOME="+d.dir, "COLUMNS=")
			d.up(t, whimbrel)
			for _, b := range blocks {
				if name := b.File(); name != "" {
					if err := os.WriteFile(filepath.Join(d.dir, name), []byte(b.Text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if b.Language != "sh" || !b.Has("test") {
					continue
				}
				if b.Has("background") {
					d.start(t, bash, "-c", "exec "+b.Text)
				} else {
					d.run(t, fmt.Sprintf("%s:%d", path, b.Line), b.Text)
				}
			}
		})
	}
}

// desk is where a page's blocks are run.
type desk struct {
	dir, bash string
	env       []string
	ports     *strings.Replacer // the default addresses to those of up
}

// start starts a program that runs until the test ends.
func (d *desk) start(t *testing.T, name string, args ...string) *transcript {
	t.Helper()
	out := &transcript{}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = d.dir, d.env, out, out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // waited for below
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			t.Errorf("%s %v did not stop", name, args)
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("%s %v printed:\n%s", name, args, out)
		}
	})
	return out
}

// transcript is what a program prints while it runs.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var (
	apiAddress  = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/api/v1`)
	mqttAddress = regexp.MustCompile(`mqtt://127\.0\.0\.1:(\d+)`)
	edgeAddress = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/v1`)
)

// up starts whimbrel up on free ports and waits until it is.
func (d *desk) up(t *testing.T, whimbrel string) {
	t.Helper()
	out := d.start(t, whimbrel, "up", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	deadline := time.Now().Add(30 * time.Second)
	for {
		text := out.String()
		api, mqtt, edge := apiAddress.FindStringSubmatch(text), mqttAddress.FindStringSubmatch(text), edgeAddress.FindStringSubmatch(text)
		if api != nil && mqtt != nil && edge != nil && strings.Contains(text, "Ctrl-C") {
			d.ports = strings.NewReplacer("127.0.0.1:8080", api[1], "-p 1883", "-p "+mqtt[1], "127.0.0.1:9060", edge[1])
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("whimbrel up is not up:\n%s", text)
		}
		time.Sleep(20 * time.Millisecond) //sleep: its output has nothing to wait on
	}
}

// run runs one block, which must succeed.
func (d *desk) run(t *testing.T, at, text string) {
	t.Helper()
	cmd := exec.Command(d.bash, "-euo", "pipefail", "-c", d.ports.Replace(text))
	cmd.Dir, cmd.Env, cmd.WaitDelay = d.dir, d.env, time.Second
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	out, err := cmd.CombinedOutput()
	if !timer.Stop() {
		t.Fatalf("%s: takes longer than a minute; it printed\n%s", at, out)
	}
	if err != nil {
		t.Fatalf("%s: %v; it printed\n%s", at, err, out)
	}
	t.Logf("%s\n%s", at, out)
}
