// Command app is what tests run in containers: built without cgo it needs
// nothing else in its image. Its arguments are steps, done one after the other.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		fmt.Println("asked to stop")
		os.Exit(0)
	}()
	steps := os.Args[1:]
	if len(steps) == 0 {
		steps = []string{"serve=8080"}
	}
	for _, step := range steps {
		name, arg, _ := strings.Cut(step, "=")
		do, ok := map[string]func(string){
			"serve": serve, "exit": exit, "eat": eat, "say": func(s string) { fmt.Println(s) }, "grumble": func(s string) { fmt.Fprintln(os.Stderr, s) },
			"env": env, "cat": cat, "write": write, "sleep": sleep, "deaf": deaf, "get": get, "has": has, "echo": echo, "busy": busy, "once": once,
			"long": func(n string) { fmt.Println(strings.Repeat("x", number(n))) }, "winsize": winsize, "count": count, "flood": flood,
			"run": run, "mute": func(string) { _ = os.Stdout.Close(); _ = os.Stderr.Close() },
		}[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such step:", step)
			os.Exit(64)
		}
		do(arg)
	}
}

// serve serves HTTP on a port until it is killed. /healthz is as /set/healthz?code= made it.
func serve(port string) {
	var code atomic.Int64
	code.Store(200)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) })
	mux.HandleFunc("/set/healthz", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("code"))
		code.Store(int64(n))
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		all := map[string]string{}
		for _, e := range os.Environ() {
			k, v, _ := strings.Cut(e, "=")
			all[k] = v
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(r.URL.Query().Get("path"))
		if err != nil {
			http.Error(w, err.Error(), 404)
			return
		}
		_, _ = w.Write(text)
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequest(r.URL.Query().Get("method"), r.URL.Query().Get("url"), r.Body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		req.Header.Set("Authorization", r.Header.Get("Authorization"))
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	})
	mux.HandleFunc("/raw/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		host, _ := os.Hostname()
		_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "uri": r.RequestURI, "host": r.Host, "header": r.Header, "body": string(body), "pod": host})
	})
	mux.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		for n := 0; r.Context().Err() == nil; n++ {
			fmt.Fprintln(w, n)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
		fmt.Println("nobody listens to ticks")
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		fmt.Println("nobody waits for silence")
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		block := make([]byte, 64<<10)
		for ; n > 0; n -= len(block) {
			if _, err := w.Write(block[:min(n, len(block))]); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/swallow", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil {
				return
			}
			_ = c.Write(r.Context(), kind, []byte(strings.ToUpper(string(text))))
		}
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) { exit(r.URL.Query().Get("code")) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello from", os.Getenv("VERSION")) })
	ln, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("serving on", port)
	fmt.Fprintln(os.Stderr, http.Serve(ln, mux))
	os.Exit(1)
}

func exit(code string) {
	n, _ := strconv.Atoi(code)
	os.Exit(n)
}

// eat takes so many megabytes of memory and keeps them.
func eat(megabytes string) {
	n, _ := strconv.Atoi(megabytes)
	var all [][]byte
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println("ate", len(all))
}

func env(name string) { fmt.Println(os.Getenv(name)) }

func cat(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(string(text))
}

// write writes PATH:TEXT.
func write(arg string) {
	path, text, _ := strings.Cut(arg, ":")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// has ends with 1 when a file is not there.
func has(path string) {
	if _, err := os.Stat(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// once passes the first time in a container's life, and ends with the code the next.
func once(code string) {
	if _, err := os.Stat("/was-here"); err == nil {
		exit(code)
	}
	_ = os.WriteFile("/was-here", nil, 0o600)
}

func sleep(d string) {
	t, _ := time.ParseDuration(d)
	time.Sleep(t)
}

// deaf does not listen to a request to stop.
func deaf(string) { signal.Ignore(syscall.SIGTERM) }

// busy uses the CPU for so long.
func busy(d string) {
	t, _ := time.ParseDuration(d)
	for end := time.Now().Add(t); time.Now().Before(end); {
		_ = strings.Repeat("x", 1000)
	}
}

// echo copies lines of standard input to standard output.
func echo(string) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(in.Text())
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// winsize prints the terminal's size, as soon as it has one and at so many changes.
func winsize(changes string) {
	if _, err := unix.IoctlGetTermios(1, unix.TCGETS); err != nil {
		fmt.Println("no terminal")
		return
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	before := ""
	for left := number(changes); left >= 0; {
		if size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			if now := fmt.Sprintf("%d by %d", size.Col, size.Row); now != before {
				fmt.Println(now)
				before = now
				left--
			}
		}
		if left >= 0 {
			<-changed
		}
	}
}

// count prints 1, 2, 3 …, one each interval.
func count(interval string) {
	d, _ := time.ParseDuration(interval)
	for n := 1; ; n++ {
		fmt.Println("n", n)
		time.Sleep(d)
	}
}

// run does a step in a process of its own, and waits for it.
func run(step string) {
	cmd := exec.Command(os.Args[0], step)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run()
}

// flood prints lines of so many bytes as fast as it can, forever or "BYTES,LINES".
func flood(how string) {
	bytes, lines, counted := strings.Cut(how, ",")
	line := []byte(strings.Repeat("f", max(number(bytes), 1)-1) + "\n")
	for n := 0; !counted || n < number(lines); n++ {
		if _, err := os.Stdout.Write(line); err != nil {
			os.Exit(1)
		}
	}
}

// get prints status and body of a URL.
func get(url string) {
	answer, err := http.Get(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.StatusCode, string(body))
}
