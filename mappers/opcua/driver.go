// Package opcua is the driver for OPC UA servers. It keeps one session per
// device and builds it anew when it is lost, has the server tell of changes,
// polls what the server will not monitor, and turns values, status codes and
// source timestamps into observations, and desired values into typed writes.
// What a value is in OPC UA's terms is protocols/opcua's.
package opcua

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/hostport"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

// Name is the protocol's, as DeviceModel.spec.protocol says it.
const Name = "opcua"

// Version is the driver's own.
const Version = "1.1.0"

//go:embed connection.schema.json
var connectionSchema []byte

//go:embed address.schema.json
var addressSchema []byte

//go:embed property.schema.json
var propertySchema []byte

// Driver is the OPC UA driver. Its devices show servers the same certificate.
type Driver struct{ identities identities }

var _ mappers.Driver = (*Driver)(nil)

// New returns a driver without devices.
func New() *Driver { return &Driver{} }

// Info implements mappers.Driver.
func (d *Driver) Info() mappers.Info {
	return mappers.Info{Name: Name, Version: Version, Connection: connectionSchema, Address: addressSchema, Property: propertySchema}
}

// secretRef is where a field comes from. The edge has looked it up
// (mappers.DeviceConfig.Secrets).
type secretRef struct {
	Secret string `json:"secret"`
	Key    string `json:"key"`
}

// connection is Device.spec.connection as users write it
// (connection.schema.json).
type connection struct {
	URL                string           `json:"url"`
	Policy             string           `json:"policy"`
	Mode               string           `json:"mode"`
	Trust              []string         `json:"trust"`
	Username           string           `json:"username"`
	Password           *string          `json:"password"`
	PasswordFrom       *secretRef       `json:"passwordFrom"`
	CertificateFrom    *secretRef       `json:"certificateFrom"`
	Subscribe          *bool            `json:"subscribe"`
	PublishingInterval *models.Duration `json:"publishingInterval"`
	SamplingInterval   *models.Duration `json:"samplingInterval"`
	QueueSize          *int             `json:"queueSize"`
	Timeout            *models.Duration `json:"timeout"`
}

// target is a connection, compiled.
type target struct {
	device     string
	url        string
	policy     string // or auto
	mode       string // or auto
	trust      []string
	username   string
	password   mappers.Secret
	user       *wire.Identity // who signs in with a certificate; nil for others
	subscribe  bool
	publishing time.Duration // 0: by the properties
	sampling   time.Duration // below 0: each property's own
	queue      uint32
	timeout    time.Duration
}

// The defaults and bounds of a connection.
const (
	defaultPort    = "4840"
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
	defaultQueue   = 10
	maxQueue       = 10_000
	minPublishing  = 10 * time.Millisecond
	maxPublishing  = 10 * time.Minute
	auto           = "auto"
	none           = "None"
)

var (
	policies = []string{none, "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", auto}
	modes    = []string{none, "Sign", "SignAndEncrypt", auto}
)

// Open implements mappers.Driver.
func (d *Driver) Open(cfg mappers.DeviceConfig) (mappers.Device, error) {
	c := checker{secrets: cfg.Secrets}
	c.Connection()
	t := c.target(cfg.Connection)
	t.device = cfg.Name
	points := make([]point, len(cfg.Points))
	for i, p := range cfg.Points {
		c.Address(p.Property)
		points[i] = c.compile(p)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	identify := func() (*wire.Identity, error) { return d.identities.in(cfg.DataDir) }
	return newDevice(t, points, identify, log), nil
}

// checker collects what is wrong with a document, with pointers from its root.
type checker struct {
	mappers.Checker
	secrets map[string]mappers.Secret
}

// target checks a connection.
func (c *checker) target(text json.RawMessage) target {
	t := target{policy: none, mode: none, subscribe: true, sampling: -1, queue: defaultQueue, timeout: defaultTimeout}
	var conn connection
	if len(text) == 0 {
		text = json.RawMessage("{}")
	}
	if !c.Decode(text, &conn) {
		return t
	}
	t.url = c.url(conn.URL)
	c.security(&t, conn)
	c.user(&t, conn)
	if conn.Subscribe != nil {
		t.subscribe = *conn.Subscribe
	}
	c.Duration("/publishingInterval", conn.PublishingInterval, &t.publishing, minPublishing, maxPublishing)
	c.Duration("/samplingInterval", conn.SamplingInterval, &t.sampling, 0, maxPublishing)
	c.Duration("/timeout", conn.Timeout, &t.timeout, time.Millisecond, maxTimeout)
	if n := conn.QueueSize; n != nil {
		if *n < 1 || *n > maxQueue {
			c.Fail("/queueSize", "must be from 1 to %d, got %d", maxQueue, *n)
		} else {
			t.queue = uint32(*n)
		}
	}
	return t
}

// url returns the server's URL with its port.
func (c *checker) url(text string) string {
	const form = "opc.tcp://192.0.2.1:4840"
	u, err := url.Parse(text)
	switch {
	case text == "":
		c.Fail("/url", "is required, such as %s", form)
		return ""
	case err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Contains(text, "#"):
		c.Fail("/url", "must be such as %s, got %q", form, text)
		return ""
	case !hostport.Valid(u.Hostname()):
		c.Fail("/url", "has a host that is neither a name nor an address, %q", u.Hostname())
		return ""
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		c.Fail("/url", "port must be from 1 to 65535, got %q", text)
	}
	return "opc.tcp://" + net.JoinHostPort(u.Hostname(), port) + u.EscapedPath()
}

// security checks how the connection is to be secured.
func (c *checker) security(t *target, conn connection) {
	if conn.Policy != "" || conn.Mode != "" {
		t.policy, t.mode = auto, auto
	}
	if conn.Policy != "" {
		if t.policy = conn.Policy; !slices.Contains(policies, t.policy) {
			c.Fail("/policy", "must be one of %s, got %q", strings.Join(policies, ", "), t.policy)
		}
	}
	if conn.Mode != "" {
		if t.mode = conn.Mode; !slices.Contains(modes, t.mode) {
			c.Fail("/mode", "must be one of %s, got %q", strings.Join(modes, ", "), t.mode)
		}
	}
	switch {
	case t.policy == none && t.mode == auto:
		t.mode = none
	case t.mode == none && t.policy == auto:
		t.policy = none
	case (t.policy == none) != (t.mode == none):
		c.Fail("/mode", "is %s, which does not go with policy %s: both are None or neither is", t.mode, t.policy)
	}
	for i, fingerprint := range conn.Trust {
		digits, ok := strings.CutPrefix(fingerprint, "sha256:")
		if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != 32 {
			c.Fail("/trust/"+strconv.Itoa(i), "must be sha256: and 64 hexadecimal digits, got %q", fingerprint)
		}
		t.trust = append(t.trust, strings.ToLower(fingerprint))
	}
}

// user checks who signs in.
func (c *checker) user(t *target, conn connection) {
	t.username = conn.Username
	if conn.Password != nil {
		if t.password = mappers.NewSecret([]byte(*conn.Password)); t.username == "" {
			c.Fail("/password", "needs a username")
		}
	}
	if conn.PasswordFrom != nil {
		t.password = c.secret("passwordFrom")
		switch {
		case t.username == "":
			c.Fail("/passwordFrom", "needs a username")
		case conn.Password != nil:
			c.Fail("/passwordFrom", "cannot stand beside password: leave one of them out")
		}
	}
	if conn.CertificateFrom != nil {
		text := c.secret("certificateFrom").Reveal()
		if t.username != "" {
			c.Fail("/certificateFrom", "cannot stand beside username: a user signs in with one of them")
		}
		if text == "" {
			return
		}
		var err error
		if t.user, err = wire.ParseIdentity([]byte(text)); err != nil {
			c.Fail("/certificateFrom", "the secret must be a certificate and its private key in PEM: %s", err)
		}
	}
}

// secret returns what a field of the connection refers to.
func (c *checker) secret(field string) mappers.Secret {
	secret, ok := c.secrets[field]
	if !ok {
		c.Fail("/"+field, "must be {secret: NAME, key: KEY} of a Secret that is there")
	}
	return secret
}

// address is a property's address as users write it (address.schema.json).
type address struct {
	Node  string `json:"node"`
	Index *int   `json:"index,omitempty"`
}

// point is a property, compiled.
type point struct {
	property string
	kind     models.Type
	readable bool
	node     wire.Ref
	address  string // the same as its user wrote it
	index    int    // of an array's element; -1: the whole value
}

const maxIndex = 1<<31 - 2

// compile checks a property's address and makes a point of it.
func (c *checker) compile(p mappers.Point) point {
	pt := point{property: p.Property, kind: p.Type, readable: p.Access.Readable(), index: -1}
	if len(p.Address) == 0 {
		c.Fail("", "is required: node")
		return pt
	}
	var a address
	if !c.Decode(p.Address, &a) {
		return pt
	}
	if p.Type == models.TypeObject {
		c.Fail("", "nodes hold no objects: the type must be bool, int, float, string, bytes or array")
	}
	if a.Node == "" {
		c.Fail("/node", "is required, such as ns=2;s=Boiler.Temp")
	} else if node, err := wire.ParseRef(a.Node); err != nil {
		c.Fail("/node", "%s", err)
	} else {
		pt.node, pt.address = node, a.Node
	}
	if a.Index != nil {
		if pt.index = *a.Index; pt.index < 0 || pt.index > maxIndex {
			c.Fail("/index", "must be from 0 to %d, got %d", maxIndex, pt.index)
		}
	}
	return pt
}
