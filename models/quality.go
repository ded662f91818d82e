package models

import (
	"fmt"
	"time"
)

// Quality says how far a reported value may be trusted. Its numbers are written
// to disk and to the wire: append only. The zero Quality is Good.
type Quality uint8

// The three qualities, as OPC UA has them.
const (
	Good      Quality = 0
	Uncertain Quality = 1
	Bad       Quality = 2
)

var qualityNames = [...]string{"good", "uncertain", "bad"}

func (q Quality) String() string {
	if int(q) < len(qualityNames) {
		return qualityNames[q]
	}
	return fmt.Sprintf("quality(%d)", uint8(q))
}

// MarshalText implements encoding.TextMarshaler.
func (q Quality) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (q *Quality) UnmarshalText(text []byte) error {
	for i, name := range qualityNames {
		if string(text) == name {
			*q = Quality(i)
			return nil
		}
	}
	return fmt.Errorf("quality %q is none of good, uncertain, bad", text)
}

// Reason says why a value is not good. Mappers may use further reasons: short,
// lower case, words joined by "-".
type Reason string

// The reasons Whimbrel itself gives.
const (
	ReasonNone           Reason = ""
	ReasonTimeout        Reason = "timeout"         // the device did not answer in time
	ReasonNotConnected   Reason = "not-connected"   // the device could not be reached
	ReasonDeviceError    Reason = "device-error"    // the device answered with an error
	ReasonProtocolError  Reason = "protocol-error"  // the answer was not understood
	ReasonOutOfRange     Reason = "out-of-range"    // outside minimum and maximum
	ReasonNotANumber     Reason = "not-a-number"    // NaN or infinity
	ReasonNotImplemented Reason = "not-implemented" // the device says that it has no such value
	ReasonStale          Reason = "stale"           // not refreshed for three intervals
	ReasonMapperLost     Reason = "mapper-lost"     // the mapper's process is gone
	ReasonConfiguration  Reason = "configuration"   // the device has something else there than the property says
	ReasonMisconfigured  Reason = "misconfigured"   // the property does not fit its protocol: nothing is asked for it
)

// Sample is one observation of one property.
type Sample struct {
	Value   Value // Null when Quality is Bad and there is no value
	Quality Quality
	Reason  Reason
	Time    time.Time // when it was observed, by the edge's or the device's clock
}

// DeviceState says how a device is doing.
type DeviceState string

// The device states.
const (
	StateUnknown  DeviceState = "unknown"  // nothing has been heard of it yet, or its node is away
	StateOnline   DeviceState = "online"   // its last cycle succeeded
	StateDegraded DeviceState = "degraded" // part of its properties fail
	StateOffline  DeviceState = "offline"  // it does not answer
)
