package opcua

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// forger carries connections to a server and changes what it answers: every
// from becomes to, which is as long. It returns its address.
func forger(t *testing.T, server string, forging *atomic.Bool, from, to []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	keep := func(c net.Conn) { mu.Lock(); open[c] = true; mu.Unlock() }
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			keep(client)
			keep(up)
			all.Go(func() {
				defer up.Close()
				_, _ = io.Copy(up, client) // until either ends
			})
			all.Go(func() {
				defer client.Close()
				buf := make([]byte, 1<<20)
				for {
					n, err := up.Read(buf)
					if err != nil {
						return
					}
					text := buf[:n]
					if forging.Load() {
						text = bytes.ReplaceAll(text, from, to)
					}
					if _, err := client.Write(text); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// A server whose answers are made to break its clients is a device that fails,
// and one that works again when it sends sense. The process lives.
func TestHostileAnswersHarmOnlyTheirDevice(t *testing.T) {
	array := []byte{0x86, 3, 0, 0, 0, 0x44, 0x33, 0x22, 0x11}
	forged := func(length ...byte) []byte { return append(append([]byte{0x86}, length...), array[5:]...) }
	ack := append([]byte("ACKF"), 28, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0)
	buffer := func(size ...byte) []byte { return append(bytes.Clone(ack[:12]), size...) }
	for name, c := range map[string]struct{ from, to []byte }{
		"array length -2":      {array, forged(0xFE, 0xFF, 0xFF, 0xFF)},
		"least array length":   {array, forged(0, 0, 0, 0x80)},
		"array beyond the end": {array, forged(0xFF, 0xFF, 0, 0)},
		"dimensions":           {array, append([]byte{0xC6}, array[1:]...)},
		"a buffer of 4 bytes":  {ack, buffer(4, 0, 0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := opcuasim.Start(t, opcuasim.Config{Nodes: []opcuasim.Node{{Name: "profile", Type: "Int32", Array: true, Value: []any{0x11223344, 1, 2}}}})
			var forging atomic.Bool
			forging.Store(true)
			addr := forger(t, sim.Addr(), &forging, c.from, c.to)
			for _, subscribe := range []bool{true, false} {
				forging.Store(true)
				dev := open(t, New(), fmt.Sprintf(`{"url": "opc.tcp://%s", "timeout": "500ms", "publishingInterval": "50ms", "subscribe": %v}`, addr, subscribe),
					pt("profile", models.TypeArray, models.Read, `{"node": "ns=2;s=profile"}`))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				out := make([]mappers.Result, 1)
				if err := dev.Read(ctx, []int{0}, out); err == nil && out[0].Quality == models.Good {
					t.Errorf("forged, and taken: %+v", out)
				}
				if subscribe {
					err := dev.Subscribe(ctx, []mappers.Subscription{{Point: 0, Every: 50 * time.Millisecond}}, func(_ []int, results []mappers.Result) {
						if results[0].Quality == models.Good {
							t.Errorf("forged, and delivered: %+v", results)
						}
					})
					if err == nil {
						t.Error("the subscription ended without a reason")
					}
				}
				cancel()
				forging.Store(false)
				await(t, "it works again", 60*time.Second, func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					return dev.Read(ctx, []int{0}, out) == nil && out[0].Quality == models.Good
				})
			}
		})
	}
}

// A server that says that it has no end of room gets no more than a bounded
// share of ours.
func TestAServersBuffersAreBounded(t *testing.T) {
	ack := append([]byte("ACKF"), 28, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0)
	sim := counting(t, nil)
	var forging atomic.Bool
	forging.Store(true)
	addr := forger(t, sim.Addr(), &forging, ack, append(bytes.Clone(ack[:12]), 0xFF, 0xFF, 0xFF, 0x7F))
	dev := open(t, New(), fmt.Sprintf(`{"url": "opc.tcp://%s", "timeout": "2s"}`, addr), pt("still", models.TypeInt, models.Read, `{"node": "ns=2;s=still"}`))
	out := make([]mappers.Result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := dev.Read(ctx, []int{0}, out); err != nil || out[0].Quality != models.Good {
		t.Errorf("%+v, %v", out, err)
	}
}

// lastMoment is a way to a server whose answers come when a client that dials with a
// timeout gives up, all but the first.
func lastMoment(t *testing.T, server string, timeout time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			came := time.Now()
			far, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				near.Close()
				return
			}
			all.Go(func() { _, _ = io.Copy(far, near); far.Close() })
			all.Go(func() {
				defer near.Close()
				b := make([]byte, 64<<10)
				for nth := 0; ; nth++ {
					n, err := far.Read(b)
					if err != nil {
						return
					}
					if nth > 0 {
						time.Sleep(time.Until(came.Add(timeout - time.Duration(rand.IntN(2000))*time.Microsecond))) //sleep: this is what the test is about
					}
					if _, err := near.Write(b[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// An answer that opens a channel in the moment when it is given up harms nobody; the
// race detector tells.
func TestAnswersInTheLastMoment(t *testing.T) {
	t.Parallel()
	sim := counting(t, nil)
	const timeout = 20 * time.Millisecond
	url := "opc.tcp://" + lastMoment(t, sim.Addr(), timeout)
	for range 150 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, _ = gopcua.GetEndpoints(ctx, url, gopcua.RequestTimeout(timeout)) // mostly in vain
		cancel()
	}
}
