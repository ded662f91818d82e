package opcuasim

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/protocols/opcua"
	"github.com/whimbrel-edge/whimbrel/simulators/scenario"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// Kind is the kind of this simulator's documents in a file.
const Kind = "OPCUASimulator"

// What is used where a Config says nothing.
const (
	DefaultListen = "127.0.0.1:0"
	DefaultTick   = 100 * time.Millisecond
)

// Namespace is the index of the namespace of nodes that do not name another; 0
// is the specification's.
const Namespace = 2

// maxNamespace bounds the table of namespaces, which has no holes.
const maxNamespace = 200

// Config describes a server and the signals that drive its nodes. See the
// package comment for the same as YAML.
type Config struct {
	Name   string `yaml:"name"`
	Listen string `yaml:"listen"` // host:port; port 0 takes a free one
	// Tick is how often signals move; they also do after every write.
	Tick    time.Duration          `yaml:"tick"`
	Signals map[string]signal.Spec `yaml:"signals"`
	Nodes   []Node                 `yaml:"nodes"`
	// Namespaces are the URIs of the namespaces from 2 on; "" has one of the
	// simulator's own, and so have those that are not listed.
	Namespaces []string `yaml:"namespaces"`
	// Security lists what clients may choose from, policy and mode: None,
	// Basic256Sha256/Sign, Basic256Sha256/SignAndEncrypt and the same with
	// Aes128_Sha256_RsaOaep and Aes256_Sha256_RsaPss; or all. Default None. Any
	// client certificate will do.
	Security []string `yaml:"security"`
	// Certificate is the file that keeps the server's key and certificate; they
	// are made where it is not there yet. Without it they are others each time.
	Certificate string `yaml:"certificate"`
	// Users are names and passwords. With users, anonymous sessions are refused
	// unless Anonymous is true.
	Users     map[string]string `yaml:"users"`
	Anonymous *bool             `yaml:"anonymous"`
	// UserCertificates are files with the certificates (PEM) that users may sign in
	// with. With them, too, anonymous sessions are refused unless Anonymous is true.
	UserCertificates []string `yaml:"userCertificates"`
	// MaxMonitoredItems is how many items all subscriptions of a session may
	// monitor; further ones are refused with BadTooManyMonitoredItems. 0 is any
	// number, -1 none.
	MaxMonitoredItems int `yaml:"maxMonitoredItems"`
	// MaxOperations is how many nodes a request to read, write or monitor may name;
	// others are refused with BadTooManyOperations. 0 is any number.
	MaxOperations int          `yaml:"maxOperations"`
	Log           *slog.Logger `yaml:"-"`
}

// Node is one variable. What it shows is the signal named Signal (by default
// the node's own name), or Value, which never changes. A writable node is an
// input: it starts with Value, and signals see what clients write under that
// name. An array shows Value and what is written.
type Node struct {
	Name string `yaml:"name"`
	Node string `yaml:"node"` // default ns=2;s=NAME; nsu=URI;s=NAME with one of the namespaces
	// Type is the specification's name: Boolean, Int16, UInt64, Double, String,
	// DateTime (a string), ByteString (a string in base64) …
	Type     string   `yaml:"type"`
	Array    bool     `yaml:"array"`
	Signal   string   `yaml:"signal"`
	Value    any      `yaml:"value"`
	Writable bool     `yaml:"writable"`
	Minimum  *float64 `yaml:"minimum"` // writes beyond get BadOutOfRange
	Maximum  *float64 `yaml:"maximum"`
	Unit     string   `yaml:"unit"` // engineering units, such as °C, that clients find beside the node
}

// security is a policy and mode.
type security struct {
	policy string
	mode   ua.MessageSecurityMode
}

func (s security) none() bool { return s.mode == ua.MessageSecurityModeNone }

var policies = []string{"Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}

func parseSecurity(list []string) ([]security, error) {
	var out []security
	for _, text := range list {
		switch policy, mode, _ := strings.Cut(text, "/"); {
		case text == "all":
			out = append(out, security{"None", ua.MessageSecurityModeNone})
			for _, p := range policies {
				out = append(out, security{p, ua.MessageSecurityModeSign}, security{p, ua.MessageSecurityModeSignAndEncrypt})
			}
		case text == "None":
			out = append(out, security{"None", ua.MessageSecurityModeNone})
		case !slices.Contains(policies, policy) || mode != "Sign" && mode != "SignAndEncrypt":
			return nil, fmt.Errorf("security %q is none of None, all, and one of %s with /Sign or /SignAndEncrypt", text, strings.Join(policies, ", "))
		case mode == "Sign":
			out = append(out, security{policy, ua.MessageSecurityModeSign})
		default:
			out = append(out, security{policy, ua.MessageSecurityModeSignAndEncrypt})
		}
	}
	return out, nil
}

// Load reads the one OPCUASimulator of a file.
func Load(path string) (Config, error) { return scenario.Load[Config](path, Kind) }

// compile checks a Config and makes it ready to run. The error names all that
// is wrong.
func compile(cfg Config) (*Server, error) {
	cfg.Name = cmp.Or(cfg.Name, "opcua")
	cfg.Listen = cmp.Or(cfg.Listen, DefaultListen)
	cfg.Tick = cmp.Or(cfg.Tick, DefaultTick)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Security) == 0 {
		cfg.Security = []string{"None"}
	}
	s := &Server{cfg: cfg, byName: map[string]*node{}, byID: map[string]*node{}, active: map[string]bool{}, again: map[*node]bool{},
		cable: cable{addr: cfg.Listen}}
	s.anonymous = len(cfg.Users) == 0 && len(cfg.UserCertificates) == 0
	if cfg.Anonymous != nil {
		s.anonymous = *cfg.Anonymous
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
		wrong("listen: %w", err)
	}
	if cfg.Tick < time.Millisecond {
		wrong("tick %v is below 1ms", cfg.Tick)
	}
	if len(cfg.Nodes) == 0 {
		wrong("no nodes")
	}
	var err error
	if s.security, err = parseSecurity(cfg.Security); err != nil {
		errs = append(errs, err)
	}
	if cfg.Certificate != "" && !slices.ContainsFunc(s.security, func(x security) bool { return !x.none() }) {
		wrong("certificate goes with a security other than None")
	}
	if !s.anonymous && len(cfg.Users) == 0 && len(cfg.UserCertificates) == 0 {
		wrong("nobody may connect: anonymous is false and there are no users")
	}
	if len(cfg.UserCertificates) > 0 && !slices.ContainsFunc(s.security, func(x security) bool { return !x.none() }) {
		wrong("userCertificates go with a security other than None: users have to prove that theirs are their own")
	}
	for i, path := range cfg.UserCertificates {
		cert, err := loadCertificate(path)
		if err != nil {
			wrong("userCertificates %d: %w", i+1, err)
			continue
		}
		s.users = append(s.users, cert)
	}
	if len(cfg.Namespaces) > maxNamespace-1 {
		wrong("more than %d namespaces", maxNamespace-1)
		cfg.Namespaces = nil
	}
	s.namespaces = namespaces(cfg)
	b := builder{namespaces: s.namespaces, signals: cfg.Signals, inputs: map[string]any{}}
	for _, nc := range cfg.Nodes {
		n, err := b.node(nc)
		switch {
		case err != nil:
			wrong("node %s: %w", nc.Name, err)
			continue
		case s.byName[n.name] != nil:
			wrong("node %s: two nodes have this name", nc.Name)
		case s.byID[n.id.String()] != nil:
			wrong("node %s: %s is taken by %s", nc.Name, n.id, s.byID[n.id.String()].name)
		}
		s.nodes = append(s.nodes, n)
		s.byName[n.name], s.byID[n.id.String()] = n, n
	}
	set, err := signal.Compile(cfg.Signals, b.inputs)
	if err != nil {
		errs = append(errs, err)
	} else {
		for _, n := range s.nodes {
			if err := n.fits(set); err != nil {
				wrong("node %s: %w", n.name, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("opcuasim: %s: %w", cfg.Name, err)
	}
	s.set = set
	return s, nil
}

// loadCertificate reads the first certificate of a PEM file.
func loadCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if _, ok := cert.PublicKey.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("%s: its key is not RSA", path)
		}
		return cert, nil
	}
	return nil, fmt.Errorf("%s holds no certificate in PEM", path)
}

// specification is the namespace with the index 0.
const specification = "http://opcfoundation.org/UA/"

// namespaces are the URIs by index, as far as the configuration names them.
func namespaces(cfg Config) []string {
	own := "urn:whimbrel:simulator:" + cfg.Name
	out := []string{specification, own} // as everywhere, the second is the server's own
	for i, uri := range append(cfg.Namespaces, make([]string, max(0, 1-len(cfg.Namespaces)))...) {
		switch {
		case uri != "":
		case i == 0:
			uri = own + ":nodes"
		default:
			uri = fmt.Sprintf("%s:nodes:%d", own, i+Namespace)
		}
		out = append(out, uri)
	}
	return out
}

// builder gathers what the nodes make of signals.
type builder struct {
	namespaces []string
	signals    map[string]signal.Spec
	inputs     map[string]any
}

func (b *builder) node(nc Node) (*node, error) {
	if nc.Name == "" {
		return nil, errors.New("a node needs a name")
	}
	n := &node{cfg: nc, name: nc.Name, signal: cmp.Or(nc.Signal, nc.Name)}
	var err error
	if n.shape.Type, err = opcua.ParseType(nc.Type); err != nil {
		return nil, err
	}
	n.shape.Array = nc.Array
	ref, err := opcua.ParseRef(cmp.Or(nc.Node, fmt.Sprintf("ns=%d;s=%s", Namespace, nc.Name)))
	if err != nil {
		return nil, err
	}
	if uri := ref.Unknown(b.namespaces); uri != "" {
		return nil, fmt.Errorf("node: %s is not among the namespaces", uri)
	}
	n.id = ref.In(b.namespaces)
	if ns := n.id.Namespace(); ns < 1 || ns > maxNamespace {
		return nil, fmt.Errorf("%s: nodes are in namespaces 1 to %d", n.id, maxNamespace)
	}
	if nc.Array {
		if nc.Signal != "" {
			return nil, errors.New("an array shows its value, not a signal")
		}
		n.signal = ""
		return n, n.keep(nc.Value)
	}
	_, isSignal := b.signals[n.signal]
	switch {
	case (nc.Minimum != nil || nc.Maximum != nil) && !nc.Writable:
		return nil, errors.New("minimum and maximum are for writable nodes")
	case nc.Writable && isSignal:
		return nil, fmt.Errorf("a writable node is an input, but %s is a signal: let the signal be an expression over the input", n.signal)
	case nc.Writable:
		if _, taken := b.inputs[n.signal]; taken {
			return nil, fmt.Errorf("the input %s is declared by another node already", n.signal)
		}
		b.inputs[n.signal] = nc.Value
		if nc.Value == nil {
			b.inputs[n.signal] = n.zero()
		}
	case nc.Value != nil && nc.Signal != "":
		return nil, errors.New("value and signal: give one or the other")
	case nc.Value != nil:
		// No identifier, so no expression can mean it and no signal can clash.
		n.signal = "node " + n.name
		b.inputs[n.signal] = nc.Value
	case !isSignal:
		return nil, fmt.Errorf("there is no signal %s, and no value", n.signal)
	}
	return n, nil
}
