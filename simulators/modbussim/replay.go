package modbussim

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
	"github.com/whimbrel-edge/whimbrel/simulators/replay"
)

// player answers as a recorded unit did: what was read then, as late, as wrong
// or not at all, in the recording's time.
type player struct {
	*replay.Player
	scheme string
	reads  []readBack
}

// readBack is what a recorded answer told of cells.
type readBack struct {
	at      recording.Millis
	unit    byte
	request modbus.Request
	data    []byte
}

// NewReplay makes a simulator that plays a recording. It answers the recorded
// requests with the bytes that were recorded. Others are refused with exception
// 2, unless other answers together tell what they would have read. What clients
// write is noted (Writes) and changes nothing.
func NewReplay(rec *recording.Recording, o replay.Options) (*Server, error) {
	var conn struct {
		URL  string `json:"url"`
		Unit *byte  `json:"unit"`
	}
	if err := json.Unmarshal(rec.Connection, &conn); err != nil {
		return nil, fmt.Errorf("modbussim: the recording's connection: %w", err)
	}
	u, err := url.Parse(conn.URL)
	if err != nil {
		return nil, fmt.Errorf("modbussim: the recording's connection: %w", err)
	}
	unit := byte(1)
	if conn.Unit != nil {
		unit = *conn.Unit
	}
	cfg := Config{Name: rec.Device, Listen: o.Listen, Units: []Unit{{Unit: unit, Name: ModelUnit}}}
	if cfg.Listen == "" {
		switch u.Scheme {
		case "tcp", "rtutcp":
			cfg.Listen = u.Scheme + "://" + DefaultListen
		default:
			cfg.Listen = u.Scheme + "://?" + u.RawQuery
		}
	}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if got := s.ports[0].asked.scheme; got != u.Scheme {
		return nil, fmt.Errorf("modbussim: %s: listen: the recording is of %s, and cannot be played as %s", rec.Device, u.Scheme, got)
	}
	p := &player{scheme: u.Scheme}
	if p.Player, err = replay.New(rec, o, p.key); err != nil {
		return nil, err
	}
	for _, e := range p.Events() {
		p.learn(e)
	}
	s.player = p
	return s, nil
}

// frame takes a frame as it was on the wire apart.
func (p *player) frame(b []byte, request bool) (f modbus.Frame, ok bool) {
	var err error
	switch p.scheme {
	case "tcp":
		var room [modbus.MaxFrame]byte
		f, err = modbus.ReadFrame(bytes.NewReader(b), &room)
	case "ascii":
		frame, _ := modbus.FindASCII(b)
		if frame == nil {
			return f, false
		}
		f.Unit, f.PDU, err = modbus.ParseASCII(frame)
	default:
		if request {
			if b, _ = modbus.FindRTURequest(b, true); b == nil {
				return f, false
			}
		}
		f.Unit, f.PDU, err = modbus.ParseRTU(b)
	}
	return f, err == nil && len(f.PDU) > 0
}

// key is a request without its number.
func (p *player) key(send []byte) string {
	f, ok := p.frame(send, true)
	if !ok {
		return ""
	}
	return keyOf(f)
}

func keyOf(f modbus.Frame) string { return string(append([]byte{f.Unit}, f.PDU...)) }

// learn takes note of what an answer told of registers or bits.
func (p *player) learn(e recording.Event) {
	asked, ok := p.frame(e.Send, true)
	if !ok || e.End != recording.Answered {
		return
	}
	r, err := modbus.ParseRequest(asked.PDU)
	got, ok := p.frame(join(e.Came), false)
	if err != nil || !ok || r.Function.Writes() || got.Unit != asked.Unit || got.PDU[0] != asked.PDU[0] || len(got.PDU) < 3 {
		return
	}
	data := bytes.Clone(got.PDU[2:])
	if size := int(r.Count) * 2; !r.Function.Table().Bits() && len(data) == size || r.Function.Table().Bits() && len(data) == (int(r.Count)+7)/8 {
		p.reads = append(p.reads, readBack{at: e.At, unit: asked.Unit, request: r, data: data})
	}
}

func join(pieces []recording.Piece) (all []byte) {
	for _, p := range pieces {
		all = append(all, p.Bytes...)
	}
	return all
}

// together answers a read by what other answers told, nil where they do not.
func (p *player) together(unit byte, r modbus.Request, now time.Time) []byte {
	t := recording.Millis(p.Time(now))
	bits := r.Function.Table().Bits()
	size := 2
	if bits {
		size = 1
	}
	cells, known := make([]byte, int(r.Count)*size), make([]bool, r.Count)
	// The latest until now; what was told later only where nothing was before.
	for _, later := range []bool{false, true} {
		for _, b := range p.reads {
			if b.unit != unit || b.request.Function.Table() != r.Function.Table() || (b.at > t) != later {
				continue
			}
			for i := range int(b.request.Count) {
				at := int(b.request.Address) + i - int(r.Address)
				if at < 0 || at >= int(r.Count) || later && known[at] {
					continue
				}
				known[at] = true
				if bits {
					cells[at] = 0
					if modbus.Bit(b.data, i) {
						cells[at] = 1
					}
				} else {
					copy(cells[2*at:], b.data[2*i:2*i+2])
				}
			}
		}
	}
	for _, k := range known {
		if !k {
			return nil
		}
	}
	if !bits {
		return r.AppendRead(nil, cells)
	}
	packed := make([]byte, (len(cells)+7)/8)
	for i, on := range cells {
		modbus.SetBit(packed, i, on != 0)
	}
	return r.AppendRead(nil, packed)
}

// play answers a request; false ends the connection.
func (p *player) play(e *exchange, f modbus.Frame, b []byte) bool {
	p.Begin(e.began)
	r, err := modbus.ParseRequest(f.PDU)
	if err == nil && r.Function.Writes() {
		e.port.srv.note(f, r)
	}
	event, ok := p.Answer(keyOf(f), e.began)
	if !ok {
		text := fmt.Sprintf("unit %d: % x", f.Unit, f.PDU)
		if err == nil {
			text = fmt.Sprintf("unit %d: function %d, %s %d to %d", f.Unit, byte(r.Function), r.Function.Table(), r.Address, int(r.Address)+int(r.Count)-1)
		}
		if pdu := []byte(nil); err == nil && !r.Function.Writes() {
			if pdu = p.together(f.Unit, r, e.began); pdu != nil {
				p.Pieced(text)
				f.PDU = pdu
				return e.answer(f, b)
			}
		}
		p.Unknown(text)
		refusal := modbus.Exception{Function: modbus.Function(f.PDU[0]), Code: modbus.IllegalDataAddress}
		f.PDU = refusal.AppendTo(nil)
		return e.answer(f, b)
	}
	pieces := event.Came
	if p.scheme == "tcp" {
		pieces = renumber(pieces, binary.BigEndian.Uint16(event.Send), f.Transaction)
	}
	for _, piece := range pieces {
		if !e.wait(time.Until(e.began.Add(p.Real(piece.After)))) {
			return false
		}
		if _, err := e.c.Write(piece.Bytes); err != nil {
			return false
		}
	}
	if event.End != recording.HungUp {
		return true
	}
	e.wait(time.Until(e.began.Add(p.Real(event.Took))))
	reset(e.c)
	return false
}

// reset makes closing reset the connection, where that is possible.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // what cannot be reset is closed
	}
}

// renumber gives recorded answers the number of the request that they answer now:
// what was as recorded stays so, and what was late stays as late.
func renumber(pieces []recording.Piece, then, now uint16) []recording.Piece {
	all := join(pieces)
	const header = 7 // number, protocol, length, unit
	for at := 0; at+header <= len(all); {
		length := int(binary.BigEndian.Uint16(all[at+4:]))
		if binary.BigEndian.Uint16(all[at+2:]) != 0 || length < 2 || length > modbus.MaxFrame {
			break // no frame: it stays what it was
		}
		binary.BigEndian.PutUint16(all[at:], binary.BigEndian.Uint16(all[at:])-then+now)
		at += 6 + length
	}
	out := make([]recording.Piece, len(pieces))
	for i, p := range pieces {
		out[i] = recording.Piece{After: p.After, Bytes: all[:len(p.Bytes)]}
		all = all[len(p.Bytes):]
	}
	return out
}

// note keeps what a client has written.
func (s *Server) note(f modbus.Frame, r modbus.Request) {
	name := ""
	if u := s.ports[0].units[f.Unit]; u != nil {
		name = u.name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log(Write{Time: time.Now(), Unit: name, Function: r.Function, Table: r.Function.Table(), Register: r.Address, Data: bytes.Clone(r.Data)})
}

// Seek puts a recording's time where a test wants it, and holds it there.
func (s *Server) Seek(t time.Duration) {
	if s.player != nil {
		s.player.Seek(t)
		s.player.Settle(func() { s.Unplug() }, func() error { return s.Plug() }, s.cfg.Log)
	}
}

// Report says what was asked of a recording and is not in it, and what was
// written; nothing of simulators that play none.
func (s *Server) Report() []string {
	if s.player == nil {
		return nil
	}
	out := s.player.Report()
	for _, w := range s.Writes() {
		out = append(out, fmt.Sprintf("written: %s %d: %s", w.Table, w.Register, strings.ToUpper(fmt.Sprintf("% x", w.Data))))
	}
	return out
}
