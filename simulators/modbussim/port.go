package modbussim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// port is one address and the units that answer there. Unplugged, it keeps its
// address.
type port struct {
	asked   string // as configured
	own     bool   // of one unit, at whatever address is free
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

// Addr is the simulator's address, host:port: the one of its first unit.
func (s *Server) Addr() string { return s.ports[0].address() }

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
		out = append(out, fmt.Sprintf("modbus tcp://%s unit %d: %s, %d points", u.port.address(), u.cfg.Unit, u.name, len(u.points)))
	}
	return out
}

// Unplug pulls the cable of these units, or of all: whoever is connected is
// hung up on, and nobody can connect. Units at one address share a cable. When
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

// Connections is how many clients are connected now.
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
	ln, err := net.Listen("tcp", p.addr)
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
	r := bufio.NewReaderSize(c, 2*modbus.MaxFrame)
	var in, pdu, out [modbus.MaxFrame]byte
	for {
		f, err := modbus.ReadFrame(r, &in)
		if err != nil {
			return
		}
		u := p.units[f.Unit]
		if u == nil {
			if p.srv.cfg.UnknownUnit == "refuse" {
				e := modbus.Exception{Function: modbus.Function(f.PDU[0]), Code: modbus.GatewayTargetSilent}
				f.PDU = e.AppendTo(pdu[:0])
				b, err := f.Append(out[:0])
				if err != nil {
					return
				}
				if _, err := c.Write(b); err != nil {
					return
				}
			}
			continue
		}
		u.state.requests.Add(1)
		if fault, ok := p.srv.strike(u, f.PDU); ok {
			if !p.misbehave(ses, c, u, f, fault) {
				return
			}
			continue
		}
		f.PDU = p.srv.answer(u, f.PDU, pdu[:0])
		b, err := f.Append(out[:0])
		if err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// misbehave does what the fault says; false ends the connection.
func (p *port) misbehave(ses *session, c net.Conn, u *unit, f modbus.Frame, fault Fault) bool {
	switch fault.Kind {
	case Silent, Reset:
		if fault.Executed {
			p.srv.answer(u, f.PDU, nil)
		}
		if fault.Kind == Silent {
			return true
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) // closing then resets
		}
		return false
	case Garbage:
		_, err := c.Write([]byte("\x15\x03\x01\x00\x02\x02\x50 this is no modbus \xff\xff"))
		return err == nil
	case Refuse:
		e := modbus.Exception{Function: modbus.Function(f.PDU[0]), Code: fault.Exception}
		f.PDU = e.AppendTo(nil)
	case Slow:
		select {
		case <-ses.ctx.Done():
			return false
		case <-time.After(fault.Delay):
		}
		f.PDU = p.srv.answer(u, f.PDU, nil)
	default:
		f.PDU = p.srv.answer(u, f.PDU, nil)
	}
	if fault.Kind == WrongTransaction {
		f.Transaction--
	}
	b, err := f.Append(nil)
	if err != nil {
		return false
	}
	switch fault.Kind {
	case Truncated:
		b = b[:len(b)-1]
	case Duplicate:
		b = append(b, b...)
	}
	_, err = c.Write(b)
	return err == nil
}
