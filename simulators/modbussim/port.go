package modbussim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// port is one address and the units that answer there. Unplugged, it keeps its
// address.
type port struct {
	asked   endpoint // as configured
	own     bool     // of one unit, at whatever address is free
	srv     *Server
	units   [256]*unit
	plugged chan struct{} // wakes run; full means it will look anyway

	mu   sync.Mutex
	addr string
	out  bool // unplugged
	now  *session
}

// session is a port's time between plug and unplug.
type session struct {
	ln     net.Listener
	ctx    context.Context // ends with the session
	end    context.CancelFunc
	done   chan struct{} // closed when nothing of it is left
	served bool          // run has it; port.mu

	mu    sync.Mutex
	over  bool
	conns map[net.Conn]struct{}
}

// Listen takes the addresses, so that Addr is known before Run.
func (s *Server) Listen() error {
	for _, p := range s.ports {
		if err := p.listen(); err != nil {
			for _, other := range s.ports {
				other.close()
			}
			return fmt.Errorf("modbussim: %s: %w", s.cfg.Name, err)
		}
	}
	return nil
}

// Addr is the simulator's address, host:port or the path of a serial device:
// the one of its first unit.
func (s *Server) Addr() string { return s.ports[0].address() }

// URL is how a device model's connection names a unit's address, "" for no such
// unit.
func (s *Server) URL(unit string) string {
	if u := s.byName[unit]; u != nil {
		return u.port.asked.url(u.port.address())
	}
	return ""
}

// UnitAddr is the address that a unit answers at, "" for no such unit.
func (s *Server) UnitAddr(unit string) string {
	if u := s.byName[unit]; u != nil {
		return u.port.address()
	}
	return ""
}

// Describe says in a line per unit what listens where.
func (s *Server) Describe() []string {
	var out []string
	for _, u := range s.units {
		out = append(out, fmt.Sprintf("modbus %s unit %d: %s, %d points", s.URL(u.name), u.cfg.Unit, u.name, len(u.points)))
	}
	return out
}

// Unplug pulls the cable of these units, or of all: whoever is connected is
// hung up on, and nobody can connect; a serial device's path is gone. Units at
// one address share a cable. When
// it returns no request is under way any more. Signals go on.
func (s *Server) Unplug(units ...string) {
	for _, p := range s.portsOf(units) {
		p.mu.Lock()
		p.out = true
		p.mu.Unlock()
		p.close()
	}
}

// Plug puts the cable back, at the same address. It fails when somebody else
// has taken that meanwhile.
func (s *Server) Plug(units ...string) error {
	for _, p := range s.portsOf(units) {
		p.mu.Lock()
		p.out = false
		p.mu.Unlock()
		if err := p.listen(); err != nil {
			return fmt.Errorf("modbussim: %s: %w", s.cfg.Name, err)
		}
	}
	return nil
}

func (s *Server) portsOf(units []string) []*port {
	if len(units) == 0 {
		return s.ports
	}
	var out []*port
	for _, name := range units {
		if u := s.byName[name]; u != nil {
			out = append(out, u.port)
		}
	}
	return out
}

// Connections is how many clients are connected now. A serial line that is not
// unplugged counts as one.
func (s *Server) Connections() int {
	n := 0
	for _, p := range s.ports {
		p.mu.Lock()
		if p.now != nil {
			p.now.mu.Lock()
			n += len(p.now.conns)
			p.now.mu.Unlock()
		}
		p.mu.Unlock()
	}
	return n
}

func (p *port) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// listen begins a session unless there is one or the cable is out.
func (p *port) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil || p.out {
		return nil
	}
	ln, err := p.asked.listen(p.addr)
	if err != nil {
		return err
	}
	p.addr = ln.Addr().String()
	ctx, end := context.WithCancel(context.Background())
	p.now = &session{ln: ln, ctx: ctx, end: end, done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	select {
	case p.plugged <- struct{}{}:
	default:
	}
	return nil
}

// close ends the session, if there is one, and waits until it is gone.
func (p *port) close() {
	p.mu.Lock()
	ses := p.now
	p.now = nil
	served := ses != nil && ses.served
	p.mu.Unlock()
	if ses == nil {
		return
	}
	ses.stop()
	if served {
		<-ses.done
	}
}

// run serves one session after the other until ctx ends.
func (p *port) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		ses := p.now
		if ses != nil {
			ses.served = true
		}
		p.mu.Unlock()
		if ses != nil {
			stop := context.AfterFunc(ctx, ses.stop)
			p.serve(ses)
			stop()
		} else {
			select {
			case <-ctx.Done():
			case <-p.plugged:
			}
		}
	}
	p.close()
}

func (ses *session) stop() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.over = true
	ses.end()
	ses.ln.Close()
	for c := range ses.conns {
		c.Close()
	}
}

// keep remembers a connection so that stop can close it; false when it is too
// late for that.
func (ses *session) keep(c net.Conn) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.over {
		return false
	}
	ses.conns[c] = struct{}{}
	return true
}

func (ses *session) drop(c net.Conn) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	delete(ses.conns, c)
	c.Close()
}

// serve accepts until the session is stopped, and waits for its connections.
func (p *port) serve(ses *session) {
	var wg sync.WaitGroup
	for {
		c, err := ses.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // too many open files, say: later there may be fewer
			select {
			case <-ses.ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		if !ses.keep(c) {
			c.Close()
			continue
		}
		wg.Go(func() {
			defer ses.drop(c)
			p.talk(ses, c)
		})
	}
	wg.Wait()
	p.mu.Lock()
	if p.now == ses {
		p.now = nil
	}
	p.mu.Unlock()
	close(ses.done)
}

// talk answers the requests of one connection until it ends or deserves to.
func (p *port) talk(ses *session, c net.Conn) {
	w := p.asked.wire(c)
	var pdu, out [modbus.MaxASCII]byte
	var slow sync.WaitGroup // the answers that come late, on a line
	defer slow.Wait()
	for {
		f, size, err := w.next()
		if err != nil {
			return
		}
		e := exchange{port: p, ses: ses, c: c, wire: w, began: time.Now(), size: size}
		if pl := p.srv.player; pl != nil {
			if !pl.play(&e, f, out[:0]) {
				return
			}
			continue
		}
		if f.Unit == 0 && p.asked.scheme != "tcp" {
			p.broadcast(f.PDU)
			continue
		}
		u := p.units[f.Unit]
		if u == nil {
			if p.srv.cfg.UnknownUnit == "refuse" {
				refusal := modbus.Exception{Function: modbus.Function(f.PDU[0]), Code: modbus.GatewayTargetSilent}
				f.PDU = refusal.AppendTo(pdu[:0])
				if !e.answer(f, out[:0]) {
					return
				}
			}
			continue
		}
		u.state.requests.Add(1)
		if fault, ok := p.srv.strike(u, f.PDU); ok {
			if fault.Kind == Slow && p.asked.scheme != "tcp" {
				// A line has many devices, and the others do not wait for this one.
				f.PDU = bytes.Clone(f.PDU)
				slow.Go(func() { e.misbehave(u, f, fault) })
				continue
			}
			if !e.misbehave(u, f, fault) {
				return
			}
			continue
		}
		f.PDU = p.srv.answer(u, f.PDU, pdu[:0])
		if !e.answer(f, out[:0]) {
			return
		}
	}
}

// broadcast lets every unit of a serial line carry out what is written to all
// of them. None answers.
func (p *port) broadcast(pdu []byte) {
	for _, u := range p.units {
		if u == nil {
			continue
		}
		u.state.requests.Add(1)
		if modbus.Function(pdu[0]).Writes() {
			p.srv.answer(u, pdu, nil)
		}
	}
}

// exchange is a request that is being answered.
type exchange struct {
	port  *port
	ses   *session
	c     net.Conn
	wire  wire
	began time.Time // when it was there
	size  int       // of the request, in characters
}

// answer sends a frame, built in b; false ends the connection.
func (e *exchange) answer(f modbus.Frame, b []byte) bool {
	b, err := e.wire.append(b, f)
	return err == nil && e.send(b)
}

// send writes bytes, on a line with pace when the last of them would have come.
func (e *exchange) send(b []byte) bool {
	if e.port.srv.cfg.Pace {
		line := e.port.asked.line
		due := e.began.Add(line.CharTime(e.size) + e.port.asked.gap() + line.CharTime(len(b)))
		if !e.wait(time.Until(due)) {
			return false
		}
	}
	_, err := e.c.Write(b)
	return err == nil
}

func (e *exchange) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-e.ses.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// misbehave does what the fault says; false ends the connection.
func (e *exchange) misbehave(u *unit, f modbus.Frame, fault Fault) bool {
	srv := e.port.srv
	switch fault.Kind {
	case Silent, Reset:
		if fault.Executed {
			srv.answer(u, f.PDU, nil)
		}
		if fault.Kind == Silent {
			return true
		}
		reset(e.c)
		return false
	case Garbage:
		return e.send([]byte("\x15\x03\x01\x00\x02\x02\x50 this is no modbus \xff\xff"))
	case Refuse:
		refusal := modbus.Exception{Function: modbus.Function(f.PDU[0]), Code: fault.Exception}
		f.PDU = refusal.AppendTo(nil)
	case Slow:
		if !e.wait(fault.Delay) {
			return false
		}
		f.PDU = srv.answer(u, f.PDU, nil)
	default:
		f.PDU = srv.answer(u, f.PDU, nil)
	}
	if fault.Kind == WrongTransaction {
		f.Transaction--
		if e.port.asked.scheme != "tcp" { // no number: it shows by the unit
			f.Unit++
		}
	}
	b, err := e.wire.append(nil, f)
	if err != nil {
		return false
	}
	switch fault.Kind {
	case Truncated:
		b = b[:len(b)-1]
	case Duplicate:
		b = append(b, b...)
	case WrongChecksum:
		if e.port.asked.scheme == "ascii" { // its last digit, before the line end
			b[len(b)-3] = "1032547698BADCFE"[strings.IndexByte("0123456789ABCDEF", b[len(b)-3])]
		} else {
			b[len(b)-1] ^= 0xff
		}
	}
	return e.send(b)
}
