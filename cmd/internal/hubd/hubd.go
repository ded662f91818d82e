// Package hubd runs a hub as a process does: it opens the store that a URL
// names, serves the REST API over TLS or plain HTTP, and keeps the files of the
// hub's directory (context.json, ca.pem, the key that seals secrets).
package hubd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/listenaddr"
	"github.com/whimbrel-edge/whimbrel/devicehub"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/routing"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/postgres"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/sqlite"
	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/internal/filelock"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/internal/version"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Config says how a hub process is run.
type Config struct {
	Data         string // directory for what the hub keeps in files
	Database     string // postgres://… or sqlite://PATH; default sqlite://DATA/hub.db
	Listen       string // of the REST API
	Link         string // of the link
	PublicURL    string // how the REST API is reached from elsewhere, "" for as it listens
	KeyFile      string // default DATA/hub.key
	TLSCert      string // PEM files for the REST API; default the hub's own authority
	TLSKey       string
	InsecureHTTP bool     // the REST API in plain HTTP, on loopback only
	Images       string   // directory for container images; default DATA/images
	ImageSpace   string   // how much they may take, such as 50Gi; "": images.DefaultSpace
	RouteAllow   []string // prefixes of addresses that routes may reach although they are the hub's own
	Mappers      []*models.Mapper
	Log          *slog.Logger
}

// Daemon is an open hub process.
type Daemon struct {
	cfg      Config
	hub      *devicehub.Hub
	store    devicehub.Store
	locks    []*os.File // held while the store is open
	registry *prometheus.Registry
	listener net.Listener
	tls      *tls.Config // nil for plain HTTP
	ready    chan struct{}
}

// Check says what is wrong with the configuration as such, whatever there is on
// the machine.
func (c Config) Check() error {
	if _, err := routing.ParseGuard(c.RouteAllow); err != nil {
		return err
	}
	for _, addr := range []struct{ flag, value string }{{"--listen", c.Listen}, {"--link", c.Link}} {
		if err := listenaddr.Check(addr.flag, addr.value); err != nil {
			return err
		}
	}
	if c.InsecureHTTP && !loopback(c.Listen) {
		return fmt.Errorf("plain HTTP needs a loopback address, --listen is %s: tokens would cross the network in the clear", c.Listen)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if c.InsecureHTTP && c.TLSCert != "" {
		return errors.New("--insecure-http and --tls-cert cannot be given together")
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Host == "" {
			return fmt.Errorf("--public-url %q is not a URL such as https://hub.example.com:8080", c.PublicURL)
		}
	}
	if _, err := c.imageSpace(); err != nil {
		return err
	}
	return c.checkDatabase()
}

// imageSpace is how many bytes images may take, 0 for the default.
func (c Config) imageSpace() (int64, error) {
	if c.ImageSpace == "" {
		return 0, nil
	}
	q, err := models.ParseQuantity(c.ImageSpace)
	if err != nil || q.Value() < 1<<20 {
		return 0, fmt.Errorf("--image-space must be a number of bytes such as 50Gi, and 1Mi or more, got %q", c.ImageSpace)
	}
	return q.Value(), nil
}

func (c Config) imageDir() string {
	if c.Images != "" {
		return c.Images
	}
	return filepath.Join(c.Data, "images")
}

// imageHost reports whether those who push images may call the hub so: by a name
// that it has, with its port, or as --public-url does.
func (d *Daemon) imageHost(host string) bool {
	if u, err := url.Parse(d.cfg.PublicURL); err == nil && u.Host != "" {
		port := map[string]string{"https": "443", "http": "80"}[u.Scheme]
		if host == u.Host || u.Port() == port && host == u.Hostname() || u.Port() == "" && host == net.JoinHostPort(u.Hostname(), port) {
			return true
		}
	}
	_, port, _ := net.SplitHostPort(d.listener.Addr().String())
	name, hostPort, err := net.SplitHostPort(host)
	return err == nil && hostPort == port && slices.Contains(d.cfg.hosts(), name)
}

func (c Config) checkDatabase() error {
	for _, scheme := range []string{"sqlite://", "postgres://", "postgresql://"} {
		if c.Database == "" || strings.HasPrefix(c.Database, scheme) && len(c.Database) > len(scheme) {
			return nil
		}
	}
	scheme, _, _ := strings.Cut(c.Database, ":") // the rest may hold a password
	return fmt.Errorf("--database must be postgres://… or sqlite://PATH, got %s:…", scheme)
}

// Open opens the store, loads the hub and opens both ports.
func Open(ctx context.Context, cfg Config) (_ *Daemon, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	d := &Daemon{cfg: cfg, registry: prometheus.NewRegistry(), ready: make(chan struct{})}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeStore())
		}
	}()
	if err := d.lock(); err != nil {
		return nil, err
	}
	if d.store, err = openStore(ctx, cfg); err != nil {
		return nil, err
	}
	_, noKey := os.Stat(cfg.keyFile())
	key, err := pki.LoadSealKey(cfg.keyFile())
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	if d.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, listenaddr.Taken(fmt.Errorf("listen for the REST API: %w", err), "--listen")
	}
	defer func() {
		if err != nil {
			_ = d.listener.Close()
		}
	}()
	hosts := cfg.hosts()
	guard, err := routing.ParseGuard(cfg.RouteAllow)
	if err != nil {
		return nil, err
	}
	space, err := cfg.imageSpace()
	if err != nil {
		return nil, err
	}
	d.hub, err = devicehub.New(ctx, devicehub.Config{ImageDir: cfg.imageDir(), ImageSpace: space, ImageHosts: d.imageHost, Store: d.store, Key: key, LinkAddr: cfg.Link, Hosts: hosts, Mappers: cfg.Mappers, RouteGuard: guard,
		Log: cfg.Log, Registerer: d.registry})
	if errors.Is(err, pki.ErrUnseal) {
		return nil, cfg.wrongKey(err, errors.Is(noKey, os.ErrNotExist))
	}
	if err != nil {
		return nil, listenaddr.Taken(err, "--link")
	}
	switch {
	case cfg.InsecureHTTP:
	case cfg.TLSCert != "":
		cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load the TLS certificate: %w", err), d.hub.Close())
		}
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	default:
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return d.hub.ServerCert().Current(time.Now())
		}}
	}
	return d, nil
}

// lock keeps a second hub out of the directory, whose context.json it would
// overwrite, and out of a SQLite database, of which each would take its own
// memory for the truth.
func (d *Daemon) lock() error {
	paths := []string{filepath.Join(d.cfg.Data, "hub.lock")}
	if path, isSQLite := strings.CutPrefix(d.cfg.Database, "sqlite://"); isSQLite {
		paths = append(paths, path+".lock")
	}
	for _, path := range paths {
		f, err := filelock.Lock(path)
		if err != nil {
			return fmt.Errorf("is a hub running here? %w", err)
		}
		d.locks = append(d.locks, f)
	}
	return nil
}

// closeStore closes what Open has opened of the store, and then its locks.
func (d *Daemon) closeStore() (err error) {
	if d.store != nil {
		err = d.store.Close()
	}
	for _, f := range d.locks {
		err = errors.Join(err, f.Close())
	}
	return err
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "whimbrel_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version.Version}})
	g.Set(1)
	return g
}

func (c Config) keyFile() string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return filepath.Join(c.Data, "hub.key")
}

// wrongKey says which file does not open the database. One that this start has made is
// removed again: it opens nothing, and the next start would take it for the right one.
func (c Config) wrongKey(err error, made bool) error {
	file := c.keyFile()
	if !made {
		return fmt.Errorf("the key in %s (--key-file) is not the one that sealed this database, or the database is damaged; give the key file that its hub had: %w", file, err)
	}
	if gone := os.Remove(file); gone != nil {
		err = errors.Join(err, gone)
	}
	return fmt.Errorf("there is no key file %s (--key-file), and this database is sealed; give the key file that its hub had: %w", file, err)
}

// openStore opens the database that the URL names. With an error the store is
// nil, not an interface that holds a nil.
func openStore(ctx context.Context, cfg Config) (devicehub.Store, error) {
	path, isSQLite := strings.CutPrefix(cfg.Database, "sqlite://")
	if cfg.Database == "" {
		path, isSQLite = filepath.Join(cfg.Data, "hub.db"), true
	}
	if isSQLite {
		s, err := sqlite.Open(ctx, path, cfg.Log)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := postgres.Open(ctx, cfg.Database, cfg.Log)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// hosts is every name and address that the hub may be reached by, the one to
// tell edges first.
func (c Config) hosts() (hosts []string) {
	add := func(host string) {
		ip, err := netip.ParseAddr(host)
		if host == "" || err == nil && (ip.IsUnspecified() || ip.IsLinkLocalUnicast()) {
			return
		}
		for _, h := range hosts {
			if h == host {
				return
			}
		}
		hosts = append(hosts, host)
	}
	if u, err := url.Parse(c.PublicURL); err == nil {
		add(u.Hostname())
	}
	for _, addr := range []string{c.Link, c.Listen} {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			add(host)
		}
	}
	linkHost, _, _ := net.SplitHostPort(c.Link)
	if !loopback(c.Link) || linkHost == "" {
		if name, err := os.Hostname(); err == nil {
			add(strings.ToLower(name))
		}
		if addrs, err := net.InterfaceAddrs(); err == nil {
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok {
					add(n.IP.String())
				}
			}
		}
	}
	for _, h := range []string{"localhost", "127.0.0.1", "::1"} {
		add(h)
	}
	return hosts
}

// APIURL returns where the REST API is reached from this machine.
func (d *Daemon) APIURL() string {
	scheme := "https"
	if d.tls == nil {
		scheme = "http"
	}
	host, port, _ := net.SplitHostPort(d.listener.Addr().String())
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// LinkURL returns where edges connect to.
func (d *Daemon) LinkURL() string { return d.hub.LinkURL() }

// LinkAddr returns where the link listens.
func (d *Daemon) LinkAddr() string { return d.hub.LinkAddr() }

// Hub returns the hub itself.
func (d *Daemon) Hub() *devicehub.Hub { return d.hub }

// Ready is closed when the API answers and context.json is written.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// ContextFile is how clients find a hub or an edge and show who they are.
type ContextFile struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	CA     string `json:"ca"`
}

// ContextPath returns where the daemon writes its context.
func (d *Daemon) ContextPath() string { return filepath.Join(d.cfg.Data, "context.json") }

// trusted reports whether clients on this machine take a certificate for good as
// it is: who signed it is in the system's list.
func trusted(cert tls.Certificate) bool {
	rest := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			rest.AddCert(c)
		}
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{Intermediates: rest})
	return err == nil
}

// writeContext writes context.json, keeping the token that is there when there
// is no new one.
func (d *Daemon) writeContext(token string) error {
	c := ContextFile{Server: d.APIURL(), Token: token}
	if d.cfg.PublicURL != "" {
		c.Server = strings.TrimSuffix(d.cfg.PublicURL, "/")
	}
	if token == "" {
		if text, err := os.ReadFile(d.ContextPath()); err == nil {
			var old ContextFile
			if json.Unmarshal(text, &old) == nil {
				c.Token = old.Token
			}
		}
		if c.Token == "" {
			d.cfg.Log.Warn("there is no admin token in " + d.ContextPath() + "; `whimbrel hub reset-admin` makes a new one")
		}
	}
	if d.tls != nil && d.cfg.TLSCert == "" {
		ca, err := filepath.Abs(filepath.Join(d.cfg.Data, "ca.pem"))
		if err != nil {
			return err
		}
		if err := atomicfile.WriteFile(ca, d.hub.Identity.CABundle(), 0o644); err != nil {
			return fmt.Errorf("write the authority's certificate: %w", err)
		}
		c.CA = ca
	}
	if d.cfg.TLSCert != "" && !trusted(d.tls.Certificates[0]) {
		ca, err := filepath.Abs(d.cfg.TLSCert)
		if err != nil {
			return err
		}
		c.CA = ca
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(d.ContextPath(), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the context: %w", err)
	}
	return nil
}

// Run runs the hub and its REST API until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.closeStore()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx)) // the API ends first
	defer stopHub()
	wait.Go(func() {
		if err := d.hub.Run(hubCtx); err != nil && hubCtx.Err() == nil {
			cancel(fmt.Errorf("hub: %w", err))
		}
	})
	err := d.serve(ctx)
	_ = d.listener.Close()
	stopHub()
	wait.Wait()
	return err
}

// serve makes the first admin and serves the API until ctx ends.
func (d *Daemon) serve(ctx context.Context) error {
	select {
	case <-d.hub.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	token, err := d.hub.Identity.EnsureAdmin(ctx)
	if err != nil {
		return fmt.Errorf("make the first admin: %w", err)
	}
	if token != "" {
		if err := d.auditToken(ctx, store.AuditCreated, identity.AdminUser, "", ""); err != nil {
			return err
		}
	}
	if err := d.writeContext(token); err != nil {
		return err
	}
	handler, err := cloudapi.New(d.apiConfig())
	if err != nil {
		return fmt.Errorf("build the REST API: %w", err)
	}
	srv := cloudapi.Server(handler)
	srv.ErrorLog = slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug)
	listener := d.listener
	if d.tls != nil {
		d.tls.NextProtos = []string{"h2", "http/1.1"}
		srv.TLSConfig = d.tls
	}
	served := make(chan error, 1)
	go func() { // ends with Shutdown or Close below
		if d.tls != nil {
			served <- srv.ServeTLS(listener, "", "")
		} else {
			served <- srv.Serve(listener)
		}
	}()
	close(d.ready)
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case err = <-served:
		return fmt.Errorf("serve the REST API: %w", err)
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer stop()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// byReset is who the audit says was at work: nobody who is known.
const byReset = "reset-admin"

// ResetAdmin makes a new admin token offline and writes it into context.json.
func ResetAdmin(ctx context.Context, cfg Config) (token string, err error) {
	cfg.Listen, cfg.Link, cfg.InsecureHTTP = "127.0.0.1:0", "127.0.0.1:0", true
	server := ""
	if text, err := os.ReadFile(filepath.Join(cfg.Data, "context.json")); err == nil {
		var old ContextFile
		if json.Unmarshal(text, &old) == nil {
			server = old.Server
		}
	}
	d, err := Open(ctx, cfg)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = d.hub.Run(ctx) // ends with cancel
	})
	defer func() {
		cancel()
		wait.Wait()
		_ = d.listener.Close()
		err = errors.Join(err, d.closeStore())
	}()
	select {
	case <-d.hub.Ready():
	case <-time.After(30 * time.Second):
		return "", errors.New("the hub did not start; is another one using its database?")
	}
	reset, err := d.hub.Identity.ResetAdmin(ctx)
	for _, t := range reset.Revoked {
		if e := d.auditToken(ctx, store.AuditDeleted, identity.AdminUser, t.ID, byReset); e != nil {
			return "", errors.Join(err, e)
		}
	}
	if err != nil {
		return "", err
	}
	if err := d.auditToken(ctx, store.AuditCreated, identity.AdminUser, reset.Made.ID, byReset); err != nil {
		return "", err
	}
	token = reset.Token
	if server != "" {
		old := ContextFile{}
		text, err := os.ReadFile(d.ContextPath())
		if err == nil && json.Unmarshal(text, &old) == nil {
			old.Token = token
			if text, err = json.MarshalIndent(old, "", "  "); err == nil {
				err = atomicfile.WriteFile(d.ContextPath(), append(text, '\n'), 0o600)
			}
		}
		if err != nil {
			return token, fmt.Errorf("the token is good, but context.json could not be updated: %w", err)
		}
	}
	return token, nil
}
