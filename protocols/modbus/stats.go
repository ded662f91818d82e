package modbus

import (
	"errors"
	"sync/atomic"
	"time"
)

// Stats counts what a line has done since it was made.
type Stats struct {
	Requests     uint64 // sent or tried, whatever became of them
	Answers      uint64 // frames that answered, refusals included
	Exceptions   uint64 // refusals by a device
	Timeouts     uint64
	NotConnected uint64
	Protocol     uint64
	Dials        uint64 // connections made
	BytesOut     uint64 // of answered requests
	BytesIn      uint64
	RTT          time.Duration // sum over Answers, from request to answer, dialling included
	MaxRTT       time.Duration
}

// Errors is how many requests brought no usable answer.
func (s Stats) Errors() uint64 { return s.Exceptions + s.Timeouts + s.NotConnected + s.Protocol }

// MeanRTT is the mean time to an answer, 0 before the first.
func (s Stats) MeanRTT() time.Duration {
	if s.Answers == 0 {
		return 0
	}
	return s.RTT / time.Duration(s.Answers)
}

// counters is Stats as the gate's holder writes and anyone reads it.
type counters struct {
	requests, answers, exceptions, timeouts, notConnected, protocol atomic.Uint64
	dials, bytesOut, bytesIn                                        atomic.Uint64
	rtt, maxRTT                                                     atomic.Int64
}

func (c *counters) answered(out, in int, rtt time.Duration) {
	c.answers.Add(1)
	c.bytesOut.Add(uint64(out))
	c.bytesIn.Add(uint64(in))
	c.rtt.Add(int64(rtt))
	if int64(rtt) > c.maxRTT.Load() {
		c.maxRTT.Store(int64(rtt))
	}
}

func (c *counters) failed(err error) {
	switch {
	case errors.Is(err, ErrTimeout):
		c.timeouts.Add(1)
	case errors.Is(err, ErrProtocol):
		c.protocol.Add(1)
	default:
		c.notConnected.Add(1)
	}
}

// Stats gives the counters as they are now.
func (l *Line) Stats() Stats {
	c := &l.stats
	return Stats{
		Requests: c.requests.Load(), Answers: c.answers.Load(), Exceptions: c.exceptions.Load(),
		Timeouts: c.timeouts.Load(), NotConnected: c.notConnected.Load(), Protocol: c.protocol.Load(),
		Dials: c.dials.Load(), BytesOut: c.bytesOut.Load(), BytesIn: c.bytesIn.Load(),
		RTT: time.Duration(c.rtt.Load()), MaxRTT: time.Duration(c.maxRTT.Load()),
	}
}
