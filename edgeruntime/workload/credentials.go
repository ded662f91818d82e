package workload

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// credentials are who the apps are: the broker and the local REST ask it. There
// is nothing in it that the store does not have.
type credentials struct {
	mu     sync.RWMutex
	slots  map[key][]*App
	tokens map[[sha256.Size]byte]*App
	labels map[key]map[string]string // of devices
}

// App is who a pod is at the edge: one for each generation, since two may differ
// in what they may touch. All methods may be called from any goroutine; what they
// say may change from one call to the next.
type App struct {
	name            string
	hash            string
	namespace       string
	password, token [sha256.Size]byte
	from            *credentials
	grants          atomic.Pointer[[]models.AccessGrant]
	revoked         atomic.Bool
}

// username is what a pod calls itself at the broker, and what stands behind the
// values that it sets. No name of others has a dot.
func username(k key) string { return k.namespace + "." + k.name }

// admit makes the apps of a slot these.
func (m *Manager) admit(k key, records []record) { m.credentials.admit(k, records) }

func (c *credentials) admit(k key, records []record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots, c.tokens = map[key][]*App{}, map[[sha256.Size]byte]*App{}
	}
	var apps []*App
	for _, r := range records {
		var a *App
		for _, old := range c.slots[k] {
			if old.hash == r.Hash && old.token == sha256.Sum256([]byte(r.Token)) {
				a = old
			}
		}
		if a == nil {
			a = &App{name: username(k), hash: r.Hash, namespace: k.namespace, from: c,
				password: sha256.Sum256([]byte(r.Password)), token: sha256.Sum256([]byte(r.Token))}
		}
		a.grants.Store(new(r.Pod.Spec.Access))
		apps = append(apps, a)
	}
	for _, old := range c.slots[k] {
		if !slices.Contains(apps, old) {
			old.revoked.Store(true)
			delete(c.tokens, old.token)
		}
	}
	for _, a := range apps {
		c.tokens[a.token] = a
	}
	if c.slots[k] = apps; len(apps) == 0 {
		delete(c.slots, k)
	}
}

// devices says what devices there are, and their labels.
func (c *credentials) devices(labels map[key]map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.labels = labels
}

// AppByPassword returns the app that a user name and a password prove.
func (m *Manager) AppByPassword(name, password string) (*App, bool) {
	sum := sha256.Sum256([]byte(password))
	m.credentials.mu.RLock()
	defer m.credentials.mu.RUnlock()
	for _, apps := range m.credentials.slots {
		for _, a := range apps {
			if a.name == name && subtle.ConstantTimeCompare(sum[:], a.password[:]) == 1 {
				return a, true
			}
		}
	}
	return nil, false
}

// AppByToken returns the app that a token of the local REST proves.
func (m *Manager) AppByToken(token string) (*App, bool) {
	m.credentials.mu.RLock()
	defer m.credentials.mu.RUnlock()
	a, ok := m.credentials.tokens[sha256.Sum256([]byte(token))] // by hash: how long it takes says nothing of the token
	return a, ok
}

// Name is what the app is called.
func (a *App) Name() string { return a.name }

// Namespace is the pod's.
func (a *App) Namespace() string { return a.namespace }

// Current reports whether the app's credentials still hold.
func (a *App) Current() bool { return !a.revoked.Load() }

// Device reports whether the app may read, or write, a property of the device
// with a local id; property "" asks whether any at all.
func (a *App) Device(device, property string, write bool) bool {
	namespace, name, err := mqtt.ParseLocalID(device)
	if err != nil || namespace != a.namespace || a.revoked.Load() {
		return false
	}
	a.from.mu.RLock()
	labels := a.from.labels[key{namespace, name}]
	a.from.mu.RUnlock()
	for _, g := range *a.grants.Load() {
		if g.Devices.IsZero() || !g.Devices.Matches(name, labels) || !slices.Contains(g.Verbs, verb(write, models.VerbWrite, models.VerbRead)) {
			continue
		}
		if len(g.Properties) == 0 || property == "" || slices.Contains(g.Properties, property) {
			return true
		}
	}
	return false
}

// AnyDevice reports whether the app may read, or write, devices at all.
func (a *App) AnyDevice(write bool) bool {
	return !a.revoked.Load() && slices.ContainsFunc(*a.grants.Load(), func(g models.AccessGrant) bool {
		return !g.Devices.IsZero() && slices.Contains(g.Verbs, verb(write, models.VerbWrite, models.VerbRead))
	})
}

// Topic reports whether the app may publish to a topic of the apps' own, or read
// one, or one that matches a filter.
func (a *App) Topic(filter string, publish bool) bool {
	return !a.revoked.Load() && slices.ContainsFunc(*a.grants.Load(), func(g models.AccessGrant) bool {
		return slices.Contains(g.Verbs, verb(publish, models.VerbPublish, models.VerbSubscribe)) &&
			slices.ContainsFunc(g.Topics, func(t string) bool { return mqtt.Overlap(t, filter) })
	})
}

// Route reports whether the app may post to a route of its namespace.
func (a *App) Route(name string) bool {
	return !a.revoked.Load() && slices.ContainsFunc(*a.grants.Load(), func(g models.AccessGrant) bool {
		return slices.Contains(g.Routes, name) && slices.Contains(g.Verbs, models.VerbPublish)
	})
}

func verb(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// longHash is of variables. They have a random secret in them, so that those that
// could be guessed cannot be.
func longHash(env []string) string {
	sum := sha256.Sum256([]byte(strings.Join(env, "\x00")))
	return hex.EncodeToString(sum[:])
}

// shortHash tells data directories apart in names.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}
