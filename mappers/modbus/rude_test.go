package modbus

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/modbus"
)

// rude answers reads of holding register 0 of unit 1 with 7, or as it is told.
type rude struct {
	addr string
	// how is the answer to a request, in portions with pauses between them; nil
	// is to be civil, an empty portion hangs up.
	how atomic.Pointer[func(transaction uint16) [][]byte]
}

const portionPause = 30 * time.Millisecond

func startRude(t *testing.T, rtu bool) *rude {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &rude{addr: l.Addr().String()}
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c, rtu) // ends with the connection, which the device closes
		}
	}()
	return s
}

func (s *rude) serve(c net.Conn, rtu bool) {
	defer c.Close()
	request := make([]byte, 12)
	if rtu {
		request = request[:8]
	}
	for {
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		portions := [][]byte{tcpFrame(binary.BigEndian.Uint16(request), 1, 3, 2, 0, 7)}
		if rtu {
			portions[0] = rtuFrame(1, 3, 2, 0, 7)
		}
		if how := s.how.Load(); how != nil {
			portions = (*how)(binary.BigEndian.Uint16(request))
		}
		for _, p := range portions {
			if len(p) == 0 {
				return
			}
			if _, err := c.Write(p); err != nil {
				return
			}
			if len(portions) > 1 {
				time.Sleep(portionPause) //sleep: what comes in portions is what is tested
			}
		}
	}
}

func tcpFrame(transaction uint16, unit byte, pdu ...byte) []byte {
	b, _ := wire.Frame{Transaction: transaction, Unit: unit, PDU: pdu}.Append(nil)
	return b
}

func rtuFrame(unit byte, pdu ...byte) []byte {
	b, _ := wire.AppendRTU(nil, unit, pdu)
	return b
}

// trickled is b byte by byte.
func trickled(b []byte) (portions [][]byte) {
	for i := range b {
		portions = append(portions, b[i:i+1])
	}
	return portions
}

// TestRudeDevices: whatever comes instead of an answer, the value is bad and what is
// said of it is what came; a civil answer afterwards is good again.
func TestRudeDevices(t *testing.T) {
	t.Parallel()
	one := func(b []byte) [][]byte { return [][]byte{b} }
	refusal := func(code byte) func(uint16) [][]byte {
		return func(n uint16) [][]byte { return one(tcpFrame(n, 1, 0x83, code)) }
	}
	for _, tt := range []struct {
		name   string
		rtu    bool
		how    func(transaction uint16) [][]byte
		reason models.Reason // "" is good
		says   string
	}{
		{"trickles in time", false, func(n uint16) [][]byte { return trickled(tcpFrame(n, 1, 3, 2, 0, 7)[:4]) }, models.ReasonTimeout, "only the first 4 bytes of an answer came"},
		{"trickles into the frame", false, func(n uint16) [][]byte { return one(tcpFrame(n, 1, 3, 2, 0, 7)[:9]) }, models.ReasonTimeout, "only the first 9 bytes of an answer came"},
		{"hangs up in a frame", false, func(n uint16) [][]byte { return [][]byte{tcpFrame(n, 1, 3, 2, 0, 7)[:9], nil} }, models.ReasonProtocolError, "the connection ended inside a frame"},
		{"hangs up", false, func(uint16) [][]byte { return [][]byte{nil} }, models.ReasonNotConnected, ""},
		{"an earlier transaction", false, func(n uint16) [][]byte { return one(tcpFrame(n-1, 1, 3, 2, 0, 7)) }, models.ReasonTimeout, "transaction id of an earlier request"},
		{"a later transaction", false, func(n uint16) [][]byte { return one(tcpFrame(n+1, 1, 3, 2, 0, 7)) }, models.ReasonProtocolError, "never asked"},
		{"another unit", false, func(n uint16) [][]byte { return one(tcpFrame(n, 9, 3, 2, 0, 7)) }, models.ReasonProtocolError, "answer from unit 9, asked unit 1"},
		{"another function", false, func(n uint16) [][]byte { return one(tcpFrame(n, 1, 4, 2, 0, 7)) }, models.ReasonProtocolError, "function"},
		{"too much", false, func(n uint16) [][]byte { return one(tcpFrame(n, 1, 3, 4, 0, 7, 0, 7)) }, models.ReasonProtocolError, "byte"},
		{"another protocol", false, func(uint16) [][]byte { return one([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, models.ReasonProtocolError, "protocol identifier 21584 instead of 0"},
		{"acknowledge", false, refusal(5), models.ReasonDeviceError, "exception 5"},
		{"busy", false, refusal(6), models.ReasonDeviceError, "exception 6"},
		{"gateway without a path", false, refusal(10), models.ReasonNotConnected, "exception 10"},
		{"gateway without an answer", false, refusal(11), models.ReasonTimeout, "exception 11"},
		{"an exception that there is not", false, refusal(0x77), models.ReasonDeviceError, "exception 119"},

		{"rtu: trickles", true, func(uint16) [][]byte { return trickled(rtuFrame(1, 3, 2, 0, 7)) }, "", ""},
		{"rtu: noise first", true, func(uint16) [][]byte { return one(append([]byte{0, 0xff, 1, 3}, rtuFrame(1, 3, 2, 0, 7)...)) }, "", ""},
		{"rtu: a part", true, func(uint16) [][]byte { return one(rtuFrame(1, 3, 2, 0, 7)[:5]) }, models.ReasonProtocolError, "5 of 7 bytes, and then silence"},
		{"rtu: another checksum", true, func(uint16) [][]byte { return one(append(rtuFrame(1, 3, 2, 0, 7)[:5], 1, 2)) }, models.ReasonProtocolError, "crc 0201 instead of"},
		{"rtu: another unit", true, func(uint16) [][]byte { return one(rtuFrame(9, 3, 2, 0, 7)) }, models.ReasonTimeout, "an answer of unit 9 came"},
		{"rtu: busy", true, func(uint16) [][]byte { return one(rtuFrame(1, 0x83, 6)) }, models.ReasonDeviceError, "exception 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startRude(t, tt.rtu)
			addr := s.addr
			if tt.rtu {
				addr = "rtutcp://" + addr
			}
			drv := New()
			d := open(t, drv, addr, `, "unit": 1, "timeout": "500ms"`, pt("a", models.TypeInt, models.Read, `{"table": "holding", "register": 0, "encoding": "uint16"}`))
			civil := func() bool {
				out := make([]mappers.Result, 1)
				err := d.Read(t.Context(), []int{0}, out)
				return err == nil && out[0].Value == models.Int(7)
			}
			eventually(t, "a civil answer", 5*time.Second, civil)
			s.how.Store(&tt.how)
			out := make([]mappers.Result, 1)
			err := d.Read(t.Context(), []int{0}, out)
			reason := out[0].Reason
			if err != nil {
				reason = mappers.FailureOf(err).Reason
			} else {
				err = out[0].Err
			}
			if said := ""; reason != tt.reason || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				if err != nil {
					said = err.Error()
				}
				t.Errorf("%s %q, want %s %q", reason, said, tt.reason, tt.says)
			}
			s.how.Store(nil)
			eventually(t, "a civil answer again", 5*time.Second, civil)
		})
	}
}
