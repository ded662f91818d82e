package holdport

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

func hold(t *testing.T) *Port {
	t.Helper()
	p, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPortSurvivesItsListener(t *testing.T) {
	p := hold(t)
	for range 3 {
		refused(t, p)
		l, err := p.Listen()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The server side closes first and so leaves a TIME_WAIT on the port,
		// as a restarted server does.
		served.Close()
		c.Close()
		l.Close()
	}
	refused(t, p)
}

func TestNobodyElseIsGivenThePort(t *testing.T) {
	p := hold(t)
	var others []net.Listener
	for range 2000 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, l)
		if l.Addr().(*net.TCPAddr).Port == p.Number() {
			t.Error("the kernel gave the held port away")
		}
	}
	for _, l := range others {
		l.Close()
	}
}

func refused(t *testing.T, p *Port) {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial of a held port without a listener: %v, want refused", err)
	}
}
