package opcua

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/faultproxy"
	"github.com/whimbrel-edge/whimbrel/internal/holdport"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// nodeModules names the folder in which node-opcua-server was installed with
// npm; without it, the test against that server is left out.
const nodeModules = "WHIMBREL_NODE_OPCUA"

// nodeServer starts node-opcua and returns how to stop it.
func nodeServer(t *testing.T, port, folder string) (stop func()) {
	t.Helper()
	cmd := exec.Command("node", "testdata/nodeopcua_server.js", port, folder)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(os.Getenv(nodeModules), "node_modules"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go func() {
				for lines.Scan() {
				}
			}()
			return stop
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	t.Fatal("node-opcua has not started")
	return nil
}

func TestNodeOPCUA(t *testing.T) {
	if os.Getenv(nodeModules) == "" {
		t.Skipf("%s is not set to a folder with node-opcua-server", nodeModules)
	}
	port, err := holdport.Hold()
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := net.SplitHostPort(port.Addr())
	port.Close()
	folder := t.TempDir()
	stop := nodeServer(t, number, folder)
	proxy := faultproxy.New(t, "127.0.0.1:"+number)
	url := fmt.Sprintf("opc.tcp://%s", proxy.Addr())

	driver := New()
	// Unknown: refused, with the fingerprint to trust.
	secured := fmt.Sprintf(`"url": %q, "timeout": "2s", "publishingInterval": "50ms", "policy": "Basic256Sha256", "mode": "SignAndEncrypt", "username": "operator", "password": "s3cret"`, url)
	var all []mappers.Point
	for _, p := range points(t) {
		switch p.Property {
		case "setpoint", "running", "serial", "uint64", "blob", "made", "label", "second", "bits", "raw":
			p.Address = []byte(strings.Replace(string(p.Address), "ns=2", "ns=1", 1))
			all = append(all, p.Point)
		}
	}
	all = append([]mappers.Point{pt("count", models.TypeInt, models.Read, `{"node": "ns=1;s=count"}`),
		pt("still", models.TypeInt, models.ReadWrite, `{"node": "ns=1;s=still"}`),
		pt("missing", models.TypeInt, models.Read, `{"node": "ns=1;s=missing"}`)}, all...)
	err = open(t, driver, `{`+secured+`}`, all...).Read(t.Context(), []int{0}, make([]mappers.Result, 1))
	fingerprint := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(fmt.Sprint(err))
	if fingerprint == "" {
		t.Fatalf("no fingerprint in %v", err)
	}
	for _, connection := range []string{fmt.Sprintf(`{%s, "trust": [%q]}`, secured, fingerprint), fmt.Sprintf(`{"url": %q, "timeout": "1s", "publishingInterval": "50ms"}`, url)} {
		dev := open(t, driver, connection, all...)
		results := make([]mappers.Result, len(all))
		indices := make([]int, len(all))
		for i := range indices {
			indices[i] = i
		}
		if err := dev.Read(t.Context(), indices, results); err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if (r.Quality == models.Good) != (i != 2) || r.Quality == models.Good && time.Since(r.Time).Abs() > time.Minute {
				t.Errorf("%s: %+v", all[i].Property, r)
			}
		}
		byName := map[string]drivertestPoint{}
		for _, p := range points(t) {
			byName[p.Property] = drivertestPoint{p.Value, p.Other, p.Beyond}
		}
		for i, p := range all[3:] {
			want := byName[p.Property]
			if results[i+3].Value != want.value {
				t.Errorf("%s is %v, want %v", p.Property, results[i+3].Value, want.value)
			}
			if !want.beyond.IsNull() {
				if err := failed(dev.Write(t.Context(), []mappers.WriteRequest{{Point: i + 3, Value: want.beyond}})); err == nil || !mappers.FailureOf(err).Refused {
					t.Errorf("%s = %v: %v", p.Property, want.beyond, err)
				}
			}
			for _, v := range []models.Value{want.other, want.value} {
				if err := failed(dev.Write(t.Context(), []mappers.WriteRequest{{Point: i + 3, Value: v}})); err != nil {
					t.Errorf("%s = %v: %v", p.Property, v, err)
				}
				out := make([]mappers.Result, 1)
				canonical, _ := dev.Canonical(i+3, v)
				if err := dev.Read(t.Context(), []int{i + 3}, out); err != nil || out[0].Value != canonical {
					t.Errorf("%s = %v reads back %v, %v", p.Property, canonical, out[0], err)
				}
			}
		}
		dev.Close()

		// Arrays, their elements, and rows of matrices, asked and told.
		for _, c := range []struct{ kind, address, want, says string }{
			{"array", `{"node": "ns=1;s=profile"}`, "[1,-2,3]", ""},
			{"array", `{"node": "ns=1;s=matrix"}`, "[[1,2,3],[4,5,6]]", ""},
			{"array", `{"node": "ns=1;s=matrix", "index": 1}`, "[4,5,6]", ""},
			{"array", `{"node": "ns=1;s=profile", "index": 1}`, "", "the node's elements are Int16, the property array"},
			{"int", `{"node": "ns=1;s=matrix", "index": 1}`, "", "the node's elements are Int16, the property int"},
			{"int", `{"node": "ns=1;s=profile", "index": 3}`, "", "index 3: the node holds 3 elements"},
			{"int", `{"node": "ns=1;s=still", "index": 0}`, "", "index 0: the node holds one Int32, no array"},
		} {
			d := open(t, driver, connection, pt("p", models.Type(c.kind), models.Read, "%s", c.address))
			out := make([]mappers.Result, 1)
			if err := d.Read(t.Context(), []int{0}, out); err != nil {
				t.Fatal(err)
			}
			if out[0].Value.String() != c.want && c.says == "" || !strings.Contains(fmt.Sprint(out[0].Err), c.says) {
				t.Errorf("%s %s: %+v", c.kind, c.address, out[0])
			}
			d.Close()
		}

		small := open(t, driver, connection, all[:3]...)
		f := follow(t, small)
		f.flowing(t, "at first")
		for i, mode := range []faultproxy.Mode{faultproxy.Cut, faultproxy.Refuse, faultproxy.Cut, faultproxy.Blackhole} {
			losses := f.losses.Load()
			proxy.Set(mode)
			await(t, "the loss is noticed", 20*time.Second, func() bool { return f.losses.Load() > losses })
			proxy.Set(faultproxy.Pass)
			f.flowing(t, fmt.Sprintf("after fault %d, %v", i, mode))
		}
		losses := f.losses.Load()
		stop()
		await(t, "the stop is noticed", 10*time.Second, func() bool { return f.losses.Load() > losses })
		stop = nodeServer(t, number, folder)
		f.flowing(t, "after a restart")
		small.Close()
	}
}

type drivertestPoint struct{ value, other, beyond models.Value }
