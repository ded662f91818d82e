package edgeruntime

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"time"
)

// The settings that make `--data` alone enough for a restart.
const (
	settingNode      = "node"
	settingLabels    = "labels"
	settingHub       = "hub"
	settingMQTT      = "mqtt.address" // as it was opened
	settingMQTTAsked = "mqtt.asked"   // as it was asked for
	settingAPI       = "api.address"
	settingAPIAsked  = "api.asked"
	settingAnonymous = "mqtt.anonymous"
	settingBytes     = "outbox.bytes"
	settingAge       = "outbox.age"
	settingFsync     = "outbox.fsync"
	settingEra       = "twins.era"
)

// eraAfter is the era that the versions of twins count on from: how many times the
// edge was started before, as far as this directory knows.
func eraAfter(before map[string]string) uint64 {
	last, known := before[settingEra]
	if !known {
		return 0
	}
	era, err := strconv.ParseUint(last, 10, 32)
	if err != nil {
		return 0 // unreachable: only New writes it
	}
	return era + 1
}

// remember fills in from the start before what is left open.
func (c *Config) remember(before map[string]string) error {
	for _, s := range []struct {
		field *string
		name  string
	}{{&c.Node, settingNode}, {&c.HubURL, settingHub}} {
		if *s.field == "" {
			*s.field = before[s.name]
		}
	}
	if c.Labels == nil && before[settingLabels] != "" {
		if err := json.Unmarshal([]byte(before[settingLabels]), &c.Labels); err != nil {
			return fmt.Errorf("stored labels: %w", err)
		}
	}
	if !c.MQTTNamed && before[settingAnonymous] == "true" {
		c.MQTTAnonymous = true
	}
	if c.OutboxBytes == 0 && before[settingBytes] != "" {
		n, err := strconv.ParseInt(before[settingBytes], 10, 64)
		if err != nil {
			return fmt.Errorf("stored %s: %w", settingBytes, err)
		}
		c.OutboxBytes = n
	}
	for _, s := range []struct {
		field *time.Duration
		name  string
	}{{&c.OutboxAge, settingAge}, {&c.Fsync, settingFsync}} {
		if *s.field != 0 || before[s.name] == "" {
			continue
		}
		d, err := time.ParseDuration(before[s.name])
		if err != nil {
			return fmt.Errorf("stored %s: %w", s.name, err)
		}
		*s.field = d
	}
	return nil
}

// settings is what the next start is to remember.
func (c *Config) settings(mqtt, api string) (map[string]string, error) {
	labels, err := json.Marshal(c.Labels)
	if err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	s := map[string]string{settingNode: c.Node, settingHub: c.HubURL, settingLabels: string(labels), settingMQTT: mqtt, settingAPI: api,
		settingAnonymous: strconv.FormatBool(c.MQTTAnonymous), settingBytes: strconv.FormatInt(c.OutboxBytes, 10),
		settingAge: c.OutboxAge.String(), settingFsync: c.Fsync.String()}
	if c.MQTTAddr != "" {
		s[settingMQTTAsked] = c.MQTTAddr
	}
	if c.APIAddr != "" {
		s[settingAPIAsked] = c.APIAddr
	}
	return s, nil
}

// listen opens the address that is asked for or, with none, the one that there
// was before. Where that was any free port and somebody else has it now, it is
// another.
func listen(asked, before, askedBefore string, open func(addr string) error) error {
	if asked != "" {
		return open(asked)
	}
	err := open(before)
	if _, port, splitErr := net.SplitHostPort(askedBefore); err != nil && splitErr == nil && port == "0" {
		return open(askedBefore)
	}
	return err
}
