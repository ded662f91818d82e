package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Function is a public function code (APS 6).
type Function byte

// The functions that Whimbrel uses.
const (
	ReadCoils          Function = 1
	ReadDiscrete       Function = 2
	ReadHolding        Function = 3
	ReadInput          Function = 4
	WriteOneCoil       Function = 5
	WriteOneRegister   Function = 6
	WriteManyCoils     Function = 15
	WriteManyRegisters Function = 16
)

// Most that one request may carry (APS 6.1 to 6.4, 6.11, 6.12).
const (
	MaxReadBits       = 2000
	MaxReadRegisters  = 125
	MaxWriteBits      = 1968
	MaxWriteRegisters = 123
)

// Table is the table that the function works on, 0 for a function not listed
// above.
func (f Function) Table() Table {
	switch f {
	case ReadCoils, WriteOneCoil, WriteManyCoils:
		return Coil
	case ReadDiscrete:
		return Discrete
	case ReadInput:
		return Input
	case ReadHolding, WriteOneRegister, WriteManyRegisters:
		return Holding
	}
	return 0
}

// Writes tells writing functions from reading ones.
func (f Function) Writes() bool { return f >= WriteOneCoil }

// Code is the reason a device gives for refusing (APS 7).
type Code byte

// The exception codes of APS 7.
const (
	IllegalFunction     Code = 1
	IllegalDataAddress  Code = 2
	IllegalDataValue    Code = 3
	DeviceFailure       Code = 4
	Acknowledge         Code = 5
	DeviceBusy          Code = 6
	MemoryParityError   Code = 8
	GatewayPathUnusable Code = 10
	GatewayTargetSilent Code = 11
)

// String names the code as the specification does.
func (c Code) String() string {
	switch c {
	case IllegalFunction:
		return "illegal function"
	case IllegalDataAddress:
		return "illegal data address"
	case IllegalDataValue:
		return "illegal data value"
	case DeviceFailure:
		return "server device failure"
	case Acknowledge:
		return "acknowledge"
	case DeviceBusy:
		return "server device busy"
	case MemoryParityError:
		return "memory parity error"
	case GatewayPathUnusable:
		return "gateway path unavailable"
	case GatewayTargetSilent:
		return "gateway target device failed to respond"
	}
	return "unknown exception"
}

// Exception is a device's refusal: the request arrived, the connection is
// fine, the answer is no.
type Exception struct {
	Function Function // the function that was refused
	Code     Code
}

func (e *Exception) Error() string {
	return fmt.Sprintf("modbus: %v (exception %d to function %d)", e.Code, byte(e.Code), byte(e.Function))
}

// exceptionBit marks the function code of a refusal (APS 4.1).
const exceptionBit = 0x80

// Request is a request as a server sees it.
type Request struct {
	Function Function
	Address  uint16
	Count    uint16 // coils or registers
	// Data holds what to write: registers as they travel, or packed bits; one
	// coil is packed too. It aliases the PDU.
	Data []byte
}

var coilOn = []byte{1}
var coilOff = []byte{0}

// ParseRequest reads a request's PDU. The error is always an *Exception, ready
// to be answered: 1 for a function that is not listed above, 3 for data that
// does not fit the function, 2 for addresses beyond 65535 (the state diagrams
// of APS 6).
func ParseRequest(pdu []byte) (Request, error) {
	if len(pdu) == 0 {
		return Request{}, &Exception{Code: IllegalFunction}
	}
	r := Request{Function: Function(pdu[0])}
	refuse := func(c Code) (Request, error) { return r, &Exception{Function: r.Function, Code: c} }
	if r.Function.Table() == 0 {
		return refuse(IllegalFunction)
	}
	if len(pdu) < 5 {
		return refuse(IllegalDataValue)
	}
	r.Address = binary.BigEndian.Uint16(pdu[1:])
	value := binary.BigEndian.Uint16(pdu[3:])
	r.Count = value
	rest := pdu[5:]
	ok := len(rest) == 0
	switch r.Function {
	case ReadCoils, ReadDiscrete:
		ok = ok && value >= 1 && value <= MaxReadBits
	case ReadHolding, ReadInput:
		ok = ok && value >= 1 && value <= MaxReadRegisters
	case WriteOneCoil:
		r.Count, r.Data = 1, coilOff
		if value == 0xff00 {
			r.Data = coilOn
		}
		ok = ok && (value == 0 || value == 0xff00)
	case WriteOneRegister:
		r.Count, r.Data = 1, pdu[3:5]
	case WriteManyCoils, WriteManyRegisters:
		size, most := 2*int(value), MaxWriteRegisters
		if r.Function == WriteManyCoils {
			size, most = (int(value)+7)/8, MaxWriteBits
		}
		ok = value >= 1 && int(value) <= most && len(rest) == 1+size && int(rest[0]) == size
		if ok {
			r.Data = rest[1:]
		}
	}
	if !ok {
		return refuse(IllegalDataValue)
	}
	if int(r.Address)+int(r.Count) > 1<<16 {
		return refuse(IllegalDataAddress)
	}
	return r, nil
}

// AppendRead appends the answer to a read: data is packed bits or registers.
func (r Request) AppendRead(b, data []byte) []byte {
	b = append(b, byte(r.Function), byte(len(data)))
	return append(b, data...)
}

// AppendWritten appends the answer to a write that was done.
func (r Request) AppendWritten(b []byte) []byte {
	b = append(b, byte(r.Function))
	b = binary.BigEndian.AppendUint16(b, r.Address)
	switch r.Function {
	case WriteOneCoil:
		if Bit(r.Data, 0) {
			return append(b, 0xff, 0)
		}
		return append(b, 0, 0)
	case WriteOneRegister:
		return append(b, r.Data...)
	}
	return binary.BigEndian.AppendUint16(b, r.Count)
}

// AppendTo appends the refusal as an answer's PDU.
func (e *Exception) AppendTo(b []byte) []byte {
	return append(b, byte(e.Function)|exceptionBit, byte(e.Code))
}

// checkAnswer tells whether an answer's PDU fits its request's: the request's
// function and exactly the length and echo that were asked for, or the refusal
// of that function, which is an *Exception. A device that answers less than it
// was asked for would otherwise shift every value behind the gap.
func checkAnswer(request, answer []byte) error {
	f := Function(request[0])
	if len(answer) == 2 && answer[0] == request[0]|exceptionBit {
		return &Exception{Function: f, Code: Code(answer[1])}
	}
	if len(answer) == 0 || answer[0] != request[0] {
		return fmt.Errorf("answer % x to function %d", head(answer), f)
	}
	want := answerLength(request)
	if !f.Writes() {
		n := want - 2
		if len(answer) != want || int(answer[1]) != n {
			return fmt.Errorf("answer of %d bytes where function %d with its %d bytes of data was asked for", len(answer), f, n)
		}
		return nil
	}
	if len(answer) != want || string(answer) != string(request[:want]) {
		return fmt.Errorf("answer % x does not repeat the write % x", head(answer), request[:want])
	}
	return nil
}

// answerLength is the length of the answer that a request's PDU asks for.
func answerLength(request []byte) int {
	f := Function(request[0])
	n := int(binary.BigEndian.Uint16(request[3:]))
	switch {
	case f.Writes():
		return 5
	case f.Table().Bits():
		return 2 + (n+7)/8
	}
	return 2 + 2*n
}

// fits tells whether an answer's PDU, perhaps a refusal, is one to a request's.
func fits(request, answer []byte) bool {
	err := checkAnswer(request, answer)
	var refusal *Exception
	return err == nil || errors.As(err, &refusal)
}

// head keeps messages short.
func head(b []byte) []byte { return b[:min(len(b), 16)] }
