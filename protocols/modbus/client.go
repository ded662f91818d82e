package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/goburrow/modbus"
)

// Client asks one unit over a Line. It is safe for concurrent use, and what it
// returns belongs to the caller. Reads give bytes as they travelled: registers
// high byte first, or bits packed (see Bit), and always as many as were asked
// for. Errors are those of errors.go.
//
// A context that ends while a request is under way ends that request and, on
// TCP, the connection with it.
//
// On a serial line, or behind RTU over TCP, unit 0 is all units: a write to it
// is done when it was sent, and reads of it are refused.
type Client struct {
	line    *Line
	unit    byte
	timeout time.Duration
	urgent  bool
	tap     *Tap
	calls   *sync.Pool // of *call
}

// Client makes a client for a unit. A timeout of 0 is DefaultTimeout; it
// starts when the line is free.
func (l *Line) Client(unit byte, timeout time.Duration) *Client {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	c := &Client{line: l, unit: unit, timeout: timeout}
	packager := l.framing.packager(unit)
	c.calls = &sync.Pool{New: func() any {
		k := &call{}
		k.client = modbus.NewClient2(packager, k)
		return k
	}}
	return c
}

// Urgent is the same client whose reads, too, go before other waiting reads:
// for the read that confirms a write, or that a person waits for.
func (c *Client) Urgent() *Client {
	u := *c
	u.urgent = true
	return &u
}

// Tapped is the same client, whose exchanges t shows.
func (c *Client) Tapped(t *Tap) *Client {
	u := *c
	u.tap = t
	return &u
}

// call is one request under goburrow's client, whose Send has no context.
type call struct {
	client  modbus.Client
	line    *Line
	ctx     context.Context
	timeout time.Duration
	urgent  bool
	tap     *Tap
}

// Send is the transport that goburrow's client asks for.
func (k *call) Send(adu []byte) ([]byte, error) {
	return k.line.send(k.ctx, k.timeout, k.urgent, k.tap, adu)
}

func (c *Client) do(ctx context.Context, urgent bool, f func(modbus.Client) ([]byte, error)) ([]byte, error) {
	if c.unit == 0 && !urgent && c.line.cfg.Framing != TCP {
		return nil, invalid("unit 0 is all units of the line, and none of them answers: it cannot be read")
	}
	k := c.calls.Get().(*call)
	k.line, k.ctx, k.timeout, k.urgent, k.tap = c.line, ctx, c.timeout, urgent || c.urgent, c.tap
	data, err := f(k.client)
	k.ctx = nil
	c.calls.Put(k)
	if err == nil {
		return data, nil
	}
	var refusal *modbus.ModbusError
	if errors.As(err, &refusal) {
		return nil, &Exception{Function: Function(refusal.FunctionCode &^ exceptionBit), Code: Code(refusal.ExceptionCode)}
	}
	return nil, err
}

func quantity(addr uint16, n, most int) error {
	if n < 1 || n > most {
		return invalid("quantity %d is not within 1 to %d", n, most)
	}
	if int(addr)+n > 1<<16 {
		return invalid("%d from address %d go beyond 65535", n, addr)
	}
	return nil
}

// ReadHolding reads n holding registers (APS 6.3).
func (c *Client) ReadHolding(ctx context.Context, addr, n uint16) ([]byte, error) {
	if err := quantity(addr, int(n), MaxReadRegisters); err != nil {
		return nil, err
	}
	return c.do(ctx, false, func(m modbus.Client) ([]byte, error) { return m.ReadHoldingRegisters(addr, n) })
}

// ReadInput reads n input registers (APS 6.4).
func (c *Client) ReadInput(ctx context.Context, addr, n uint16) ([]byte, error) {
	if err := quantity(addr, int(n), MaxReadRegisters); err != nil {
		return nil, err
	}
	return c.do(ctx, false, func(m modbus.Client) ([]byte, error) { return m.ReadInputRegisters(addr, n) })
}

// ReadCoils reads n coils, packed (APS 6.1).
func (c *Client) ReadCoils(ctx context.Context, addr, n uint16) ([]byte, error) {
	if err := quantity(addr, int(n), MaxReadBits); err != nil {
		return nil, err
	}
	return c.do(ctx, false, func(m modbus.Client) ([]byte, error) { return m.ReadCoils(addr, n) })
}

// ReadDiscrete reads n discrete inputs, packed (APS 6.2).
func (c *Client) ReadDiscrete(ctx context.Context, addr, n uint16) ([]byte, error) {
	if err := quantity(addr, int(n), MaxReadBits); err != nil {
		return nil, err
	}
	return c.do(ctx, false, func(m modbus.Client) ([]byte, error) { return m.ReadDiscreteInputs(addr, n) })
}

// Read reads n from whichever table.
func (c *Client) Read(ctx context.Context, t Table, addr, n uint16) ([]byte, error) {
	switch t {
	case Coil:
		return c.ReadCoils(ctx, addr, n)
	case Discrete:
		return c.ReadDiscrete(ctx, addr, n)
	case Input:
		return c.ReadInput(ctx, addr, n)
	case Holding:
		return c.ReadHolding(ctx, addr, n)
	}
	return nil, invalid("no table %v", t)
}

// WriteRegisters writes holding registers with function 16 (APS 6.12).
func (c *Client) WriteRegisters(ctx context.Context, addr uint16, regs []byte) error {
	if len(regs)%2 != 0 {
		return invalid("%d bytes are no whole registers", len(regs))
	}
	n := len(regs) / 2
	if err := quantity(addr, n, MaxWriteRegisters); err != nil {
		return err
	}
	_, err := c.do(ctx, true, func(m modbus.Client) ([]byte, error) {
		return m.WriteMultipleRegisters(addr, uint16(n), regs)
	})
	return err
}

// WriteRegister writes one holding register, two bytes, with function 6 (APS
// 6.6).
func (c *Client) WriteRegister(ctx context.Context, addr uint16, reg []byte) error {
	if len(reg) != 2 {
		return invalid("%d bytes are not one register", len(reg))
	}
	v := binary.BigEndian.Uint16(reg)
	_, err := c.do(ctx, true, func(m modbus.Client) ([]byte, error) { return m.WriteSingleRegister(addr, v) })
	return err
}

// WriteCoil writes one coil with function 5 (APS 6.5).
func (c *Client) WriteCoil(ctx context.Context, addr uint16, on bool) error {
	v := uint16(0)
	if on {
		v = 0xff00
	}
	_, err := c.do(ctx, true, func(m modbus.Client) ([]byte, error) { return m.WriteSingleCoil(addr, v) })
	return err
}

// WriteCoils writes coils with function 15 (APS 6.11).
func (c *Client) WriteCoils(ctx context.Context, addr uint16, on []bool) error {
	if err := quantity(addr, len(on), MaxWriteBits); err != nil {
		return err
	}
	_, err := c.do(ctx, true, func(m modbus.Client) ([]byte, error) {
		return m.WriteMultipleCoils(addr, uint16(len(on)), PackBits(on))
	})
	return err
}
