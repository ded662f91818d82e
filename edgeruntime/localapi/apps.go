package localapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/devices"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// App is who asks with a token of its own, and what it may do.
type App interface {
	// Name stands behind the values that it sets.
	Name() string
	// Namespace is where its routes and services are.
	Namespace() string
	// Device reports whether it may read, or write, a property of the device with
	// that local id; property "" asks whether any at all.
	Device(device, property string, write bool) bool
	// Route reports whether it may post to a route of its namespace.
	Route(name string) bool
}

// asking is the key of the App in a request's context. Without one it is who has
// the edge's own token, and may everything.
type asking struct{}

func appOf(r *http.Request) App {
	a, _ := r.Context().Value(asking{}).(App)
	return a
}

// authenticate returns who asks, nil for who has the edge's own token.
func (s *Server) authenticate(r *http.Request) (App, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, false
	}
	token = strings.TrimSpace(token)
	sum := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1 {
		return nil, true
	}
	if s.cfg.Apps == nil {
		return nil, false
	}
	return s.cfg.Apps(token)
}

func withApp(r *http.Request, a App) *http.Request {
	if a == nil {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), asking{}, a))
}

// who is behind what r asks for.
func who(r *http.Request) string {
	if a := appOf(r); a != nil {
		return a.Name()
	}
	return by
}

// origin is by which way a write came.
func origin(r *http.Request) string {
	if appOf(r) != nil {
		return devices.OriginApp
	}
	return devices.OriginREST
}

// forbidden is what an app is told. It does not say whether there is such a thing.
func forbidden(format string, args ...any) error {
	return models.Errorf(models.KindForbidden, "%s is not among what this app may touch: see access in its pod's spec", fmt.Sprintf(format, args...))
}

// mayRead says no where an app may read nothing of a device.
func mayRead(r *http.Request, device string) error {
	if a := appOf(r); a != nil && !a.Device(device, "", false) {
		return forbidden("reading device %s", device)
	}
	return nil
}

// visible are the devices that who asks may read.
func visible(r *http.Request, all []devices.Summary) []devices.Summary {
	a := appOf(r)
	if a == nil {
		return all
	}
	return slices.DeleteFunc(all, func(d devices.Summary) bool { return !a.Device(d.ID, "", false) })
}

// shown is as much of a twin as who asks may read or write.
func shown(r *http.Request, device string, doc twin.Document) twin.Document {
	a := appOf(r)
	if a == nil {
		return doc
	}
	all := doc.Properties
	doc.Properties = map[string]twin.PropertyDoc{}
	for name, p := range all {
		reads, writes := a.Device(device, name, false), a.Device(device, name, true)
		if !reads {
			p.Reported = nil // who may only write sees what became of it
		}
		if reads || writes {
			doc.Properties[name] = p
		}
	}
	return doc
}

// mayWrite says no where an app may not write all that a patch is about.
func mayWrite(r *http.Request, device string, patch []byte) error {
	a := appOf(r)
	if a == nil {
		return nil
	}
	if !a.Device(device, "", true) {
		return forbidden("writing device %s", device)
	}
	values, _, err := models.DecodePatch(patch)
	if err != nil {
		return err
	}
	var fields []models.FieldError
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !a.Device(device, name, true) {
			fields = append(fields, models.FieldError{Pointer: "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name),
				Detail: "is not among what this app may write: see access in its pod's spec"})
		}
	}
	if len(fields) > 0 {
		return &models.Error{Kind: models.KindForbidden, Detail: "not allowed", Fields: fields}
	}
	return nil
}

// readable are the properties that are to be read: those asked for, or with none
// all that there are, as far as who asks may.
func (s *Server) readable(r *http.Request, device string, names []string) ([]string, error) {
	a := appOf(r)
	if a == nil {
		return names, nil
	}
	if len(names) == 0 {
		doc, err := s.cfg.Devices.Document(device)
		if err != nil {
			return nil, err
		}
		for name := range doc.Properties {
			if a.Device(device, name, false) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names, nil
	}
	for _, name := range names {
		if !a.Device(device, name, false) {
			return nil, forbidden("reading property %s of device %s", name, device)
		}
	}
	return names, nil
}

// Listen serves a further address, host:port, until end is called or Run ends.
func (s *Server) Listen(addr string) (end func(), err error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("local API: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = ln.Close()
		return nil, fmt.Errorf("local API: %w", net.ErrClosed)
	}
	s.further[ln] = true
	if s.serve1 != nil {
		s.serve1(ln)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.further, ln)
		_ = ln.Close()
	}, nil
}
