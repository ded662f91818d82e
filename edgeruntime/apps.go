package edgeruntime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/docker"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/images"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/localapi"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/workload"
)

// settingLife tells one life of the store from another.
const settingLife = "apps.life"

// runApps makes what runs containers. That there is an engine is not needed for it.
func (e *Edge) runApps(before map[string]string, newID func() string) error {
	cfg := &e.cfg
	dir, err := filepath.Abs(filepath.Join(cfg.DataDir, "apps"))
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	if e.life = before[settingLife]; e.life == "" {
		e.life = newID()
	}
	if e.engine, err = docker.New(cfg.EngineHost); err != nil {
		return err
	}
	e.gateway = &gateway{e: e}
	puller := images.New(images.Config{Dir: filepath.Join(cfg.DataDir, "images"), Engine: e.engine, Hub: func() images.Hub { return e.link }, Room: e.engineRoom, Log: cfg.Log})
	e.apps, err = workload.New(workload.Config{Engine: e.engine, Store: e.store, Node: cfg.Node, Life: e.life, DataDir: dir,
		SecretDir: workload.MemoryDir(dir), Listen: e.gateway.listen, Images: puller, RestartDelay: cfg.AppRestartDelay, StopAtEnd: cfg.StopApps, Log: cfg.Log,
		Local: func() workload.Endpoints { return endpoints("127.0.0.1", e.MQTTAddr(), e.APIAddr()) }})
	return err
}

// engineRoom is how much of the disk is free that the engine keeps images on.
func (e *Edge) engineRoom(ctx context.Context) (free, total uint64, err error) {
	info, err := e.engine.Info(ctx)
	if err != nil {
		return 0, 0, err
	}
	return diskBytes(info.Root)
}

// endpoints are the edge's two servers as a host finds them.
func endpoints(host, mqtt, api string) workload.Endpoints {
	return workload.Endpoints{MQTT: "mqtt://" + at(host, mqtt), API: "http://" + at(host, api)}
}

func at(host, addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(host, port)
}

// appByToken is localapi.Config.Apps.
func (e *Edge) appByToken(token string) (localapi.App, bool) {
	a, ok := e.apps.AppByToken(token)
	return a, ok
}

// authenticators are asked one after the other.
type authenticators []broker.Authenticator

// Authenticate implements broker.Authenticator.
func (all authenticators) Authenticate(username, password string) (broker.Identity, bool) {
	for _, a := range all {
		if id, ok := a.Authenticate(username, password); ok {
			return id, true
		}
	}
	return broker.Identity{}, false
}

// appAuth knows the apps.
type appAuth struct{ *workload.Manager }

// Authenticate implements broker.Authenticator.
func (a appAuth) Authenticate(username, password string) (broker.Identity, bool) {
	app, ok := a.AppByPassword(username, password)
	if !ok {
		return broker.Identity{}, false
	}
	return broker.Identity{Name: app.Name(), Access: app, Current: app.Current}, true
}

// gateway is the edge's servers at the address where containers find this machine.
type gateway struct {
	e *Edge

	mu   sync.Mutex
	addr string // "" as long as they do not listen there
	end  []func()
}

// listen makes that they listen there, with "" nowhere, besides their own addresses.
func (g *gateway) listen(addr string) (workload.Endpoints, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.e
	out := endpoints(addr, e.MQTTAddr(), e.APIAddr())
	if g.addr == addr {
		return out, nil
	}
	for _, end := range g.end {
		end()
	}
	g.addr, g.end = "", nil
	if addr == "" {
		return workload.Endpoints{}, nil
	}
	for _, s := range []struct {
		own    string
		listen func(string) (func(), error)
	}{{e.MQTTAddr(), e.broker.Listen}, {e.APIAddr(), e.api.Listen}} {
		if covers(s.own, addr) {
			continue
		}
		end, err := s.listen(at(addr, s.own))
		if err != nil {
			for _, end := range g.end {
				end()
			}
			g.end = nil
			return workload.Endpoints{}, err
		}
		g.end = append(g.end, end)
	}
	g.addr = addr
	return out, nil
}

// covers reports whether a server with an address of its own is reached at host too.
func covers(own, host string) bool {
	ip, _, _ := net.SplitHostPort(own)
	return ip == host || net.ParseIP(ip).IsUnspecified()
}

// closeApps gives up what runApps made.
func (e *Edge) closeApps() error {
	if e.engine == nil {
		return nil
	}
	err := e.engine.Close()
	e.engine = nil
	if err != nil {
		return errors.Join(errors.New("container engine"), err)
	}
	return nil
}

// Engine says in one line which container engine runs the apps, or why none does.
func (e *Edge) Engine() string {
	version, trouble, known := e.apps.Engine()
	switch {
	case !known:
		return "a container engine is being looked for at " + e.engine.Host()
	case trouble != "":
		return trouble + "; apps wait for one, everything else works"
	}
	return "run by " + version + " at " + e.engine.Host()
}
