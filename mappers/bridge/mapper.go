package bridge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

const (
	// acceptWithin is how long a mapper may take to accept or refuse a device,
	// before it is told of it again.
	acceptWithin = 5 * time.Second
	// maxAssigning bounds the devices that a mapper is told of and has not
	// answered for: the broker queues only so much for one client.
	maxAssigning = 64
)

// Mapper is a mapper in a process of its own, as a driver. It outlives the
// process: while that is gone, its devices are mapper-lost.
type Mapper struct {
	b    *Bridge
	name string

	// What the edge publishes is for this connection alone while publishing.
	addressee  atomic.Uint64
	publishing atomic.Bool

	sending sync.Mutex // held while out is published, so that it stays in order; before mu

	mu      sync.Mutex
	info    mappers.Info
	session *session           // nil: there is none
	lostAt  time.Time          // without a session: when it counts as lost
	why     string             // it is
	devices map[string]*device // open ones, by assignment
	asked   map[string]chan<- answer
	out     []outgoing // to be published
	waiting int        // batches not stored yet
	bytes   int        // of them
	resent  resent
}

// session is a connection that has announced itself.
type session struct {
	conn      uint64
	client    string
	heartbeat time.Duration
	heard     time.Time
	local     bool // its connection does not leave this machine
	secrets   bool // it wants them
}

type outgoing struct {
	conn    uint64
	kind    mqtt.MapperTopicKind
	message any
}

var _ mappers.Driver = (*Mapper)(nil)

func newMapper(b *Bridge, info mappers.Info) *Mapper {
	return &Mapper{b: b, name: info.Name, info: info, lostAt: time.Now().Add(b.cfg.AppearWithin), why: "it has not come up",
		devices: map[string]*device{}, asked: map[string]chan<- answer{}}
}

// Info implements mappers.Driver: what the mapper announced last.
func (m *Mapper) Info() mappers.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

// Live reports whether the mapper has a session.
func (m *Mapper) Live() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session != nil
}

// Heartbeat is how often the mapper promised to be heard in its session.
func (m *Mapper) Heartbeat() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return defaultHeartbeat
	}
	return m.session.heartbeat
}

// takenBy returns the client that has the session, if that is another one than
// conn.
func (m *Mapper) takenBy(conn uint64) (client string, taken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil || m.session.conn == conn {
		return "", false
	}
	return m.session.client, true
}

// heard notes a sign of life; false when the connection has no session.
func (m *Mapper) heard(conn uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil || m.session.conn != conn {
		return false
	}
	m.session.heard = time.Now()
	return true
}

// addresses reports whether conn is to get what is being published now. While
// nothing is, anybody may subscribe.
func (m *Mapper) addresses(conn uint64) bool {
	return !m.publishing.Load() || m.addressee.Load() == conn
}

// begin begins a session and hands everything over.
func (m *Mapper) begin(info mappers.Info, msg Message, a announce) error {
	heartbeat := a.heartbeat()
	m.mu.Lock()
	if m.session != nil && m.session.conn != msg.Conn { // since takenBy
		client := m.session.client
		m.mu.Unlock()
		return models.Errorf(models.KindConflict, "the mapper runs already, as client %s; one at a time", client)
	}
	if m.session != nil { // it begins anew without having hung up
		m.endLocked("it announced itself again")
	}
	m.info = info
	m.session = &session{conn: msg.Conn, client: msg.Client, heartbeat: heartbeat, heard: time.Now(), local: msg.Local, secrets: a.Secrets}
	m.sayLocked(mqtt.MapperWelcome, welcome{Protocol: Protocol, Mapper: m.name, Node: m.b.cfg.Node, Client: msg.Client,
		Heartbeat: models.Duration(heartbeat), MaxMessage: MaxMessage, MaxWaiting: MaxWaiting})
	m.assignLocked(time.Now())
	m.mu.Unlock()
	m.b.log.Info("mapper is there", "mapper", m.name, "version", info.Version, "client", msg.Client)
	m.flush()
	return nil
}

// end ends the session if conn has it.
func (m *Mapper) end(conn uint64, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil || m.session.conn != conn {
		return
	}
	m.endLocked(why)
}

func (m *Mapper) endLocked(why string) {
	m.b.log.Warn("mapper is lost", "mapper", m.name, "client", m.session.client, "reason", why)
	m.session, m.why, m.lostAt = nil, why, time.Now()
	m.out = nil
	for _, d := range m.devices {
		d.unassignLocked()
		d.lostLocked(m.lost())
	}
	m.asked = map[string]chan<- answer{}
}

// lost is why nothing goes while there is no session.
func (m *Mapper) lost() *mappers.Failure {
	return mappers.Fail(models.ReasonMapperLost, fmt.Errorf("mapper %s is gone: %s", m.name, m.why))
}

// watch does what time brings: it ends the session of a mapper that is not
// heard, gives a mapper up that has not come, and repeats what was not answered.
// stood is how long the edge itself stood still.
func (m *Mapper) watch(now time.Time, stood time.Duration) {
	var hangUp uint64
	m.mu.Lock()
	switch s := m.session; {
	case s == nil:
		m.lostAt = m.lostAt.Add(stood)
		if !now.Before(m.lostAt) {
			for _, d := range m.devices {
				if !d.toldLost {
					d.lostLocked(m.lost())
				}
			}
		}
	default:
		s.heard = s.heard.Add(stood)
		if silent := now.Sub(s.heard); silent > missedHeartbeats*s.heartbeat {
			hangUp = s.conn
			m.endLocked(fmt.Sprintf("no sign of life for %v", silent.Round(time.Millisecond)))
			break
		}
		m.assignLocked(now)
	}
	m.mu.Unlock()
	if hangUp != 0 {
		m.b.cfg.Disconnect(hangUp)
	}
	m.flush()
}

// assignLocked tells the mapper of devices that it does not know of, or has not
// answered for in time, not too many at once.
func (m *Mapper) assignLocked(now time.Time) {
	if m.session == nil {
		return
	}
	assigning := 0
	var next []*device
	for _, d := range m.devices {
		switch {
		case d.stage == told && now.Sub(d.toldAt) < acceptWithin:
			assigning++
		case d.stage == told || d.stage == untold:
			next = append(next, d)
		}
	}
	slices.SortFunc(next, func(a, b *device) int { return cmp.Or(cmp.Compare(a.tries, b.tries), cmp.Compare(a.name, b.name)) })
	for _, d := range next[:min(len(next), max(0, maxAssigning-assigning))] {
		config, err := d.disclose(m.session.local, m.session.secrets)
		if err != nil {
			d.settleLocked(unserved, err)
			d.failLocked(mappers.Fail(models.ReasonConfiguration, err))
			continue
		}
		d.stage, d.toldAt = told, now
		if d.tries++; d.tries > 2 {
			d.failLocked(mappers.Fail(models.ReasonTimeout, fmt.Errorf("mapper %s neither accepts nor refuses the device", m.name)))
		}
		m.sayLocked(mqtt.MapperDevices, config)
	}
}

func (m *Mapper) sayLocked(kind mqtt.MapperTopicKind, message any) {
	m.out = append(m.out, outgoing{m.session.conn, kind, message})
}

// flush publishes what is to be said, in order. Nobody holds mu.
func (m *Mapper) flush() {
	m.sending.Lock()
	defer m.sending.Unlock()
	for {
		m.mu.Lock()
		out := m.out
		m.out = nil
		m.mu.Unlock()
		if len(out) == 0 {
			return
		}
		for _, o := range out {
			m.addressee.Store(o.conn)
			m.publishing.Store(true)
			m.b.publish(m.name, o.kind, o.message)
			m.publishing.Store(false)
		}
	}
}

// state takes what the mapper says of a device.
func (m *Mapper) state(s state) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[s.Assignment]
	if d == nil || d.name != s.Device {
		return nil // of a configuration that is no longer: it has been told so
	}
	switch s.State {
	case accepted:
		d.settleLocked(served, nil)
		d.askLocked()
	case refused:
		err := s.refusal()
		d.settleLocked(unserved, err)
		d.failLocked(mappers.Fail(models.ReasonConfiguration, err))
	case offline:
		message := s.Message
		if message == "" {
			message = "the device does not answer"
		}
		d.settleLocked(served, nil)
		d.failLocked(mappers.Fail(s.Reason, errors.New(message)))
	}
	return nil
}

// answer wakes who waits for it. Late ones are dropped.
func (m *Mapper) answer(a answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if waiting := m.asked[a.ID]; waiting != nil {
		delete(m.asked, a.ID)
		waiting <- a // has room for one
	}
}

// batch hands a batch to its device. handled is false when done is called later.
func (m *Mapper) batch(msg Message, b batch) (handled bool, err error) {
	m.mu.Lock()
	d := m.devices[b.Assignment]
	if d == nil || d.name != b.Device {
		m.mu.Unlock()
		m.b.log.Debug("a batch of a former assignment is ignored", "mapper", m.name, "device", b.Device, "assignment", b.Assignment)
		return true, nil
	}
	if m.waiting >= MaxWaiting || m.bytes+len(msg.Payload) > maxBytes && m.waiting > 0 {
		m.mu.Unlock()
		m.b.log.Warn("a mapper sends faster than can be stored; its connection is ended", "mapper", m.name, "client", msg.Client, "waiting", MaxWaiting)
		m.b.cfg.Disconnect(msg.Conn)
		return false, nil // not acknowledged: it comes again
	}
	if b.timed() {
		a, again := m.resent.take(b.Assignment, msg)
		if again {
			stored := a.stored
			m.mu.Unlock()
			return stored, nil // else it is done with when the first one is
		}
		msg.Done = func(err error) {
			m.mu.Lock()
			done := m.resent.end(a, err)
			m.mu.Unlock()
			done(err)
		}
	}
	err = d.batchLocked(msg, b)
	m.mu.Unlock()
	return false, err
}

// countLocked counts a batch that waits, or with a negative n no longer does.
func (m *Mapper) countLocked(n, bytes int) {
	m.waiting += n
	m.bytes += bytes
}

// Open implements mappers.Driver. Whether the mapper takes the device as it is
// configured shows later: it may not be there now.
func (m *Mapper) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	d, err := newDevice(m, cfg)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.devices[d.config.Assignment] != nil {
		m.mu.Unlock()
		return nil, models.Errorf(models.KindConflict, "device %s is open already, with the same configuration", cfg.Name)
	}
	m.devices[d.config.Assignment] = d
	m.assignLocked(time.Now())
	m.mu.Unlock()
	m.flush()
	return d, nil
}

// Devices returns the names of the open devices.
func (m *Mapper) Devices() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.devices))
	for d := range maps.Values(m.devices) {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return names
}

// compact returns a JSON text without spaces, or as it is when it is none.
func compact(text json.RawMessage) json.RawMessage {
	if len(text) == 0 {
		return nil
	}
	out, err := json.Marshal(text)
	if err != nil {
		return text
	}
	return out
}
