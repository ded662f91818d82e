package routing

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// Guard says which addresses routes may reach from the hub. A route's target is
// chosen by whoever may write routes; the hub's own machine and its network's
// own services are not theirs.
type Guard struct {
	Allow []netip.Prefix // of what is forbidden otherwise
}

// ParseGuard reads what is allowed: addresses and prefixes, such as 127.0.0.1 or
// 127.0.0.0/8.
func ParseGuard(allow []string) (g Guard, err error) {
	for _, text := range allow {
		p, err := netip.ParsePrefix(text)
		if a, single := netip.ParseAddr(text); single == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return Guard{}, fmt.Errorf("--route-allow %q: must be an address or a prefix, such as 127.0.0.0/8", text)
		}
		g.Allow = append(g.Allow, p.Masked())
	}
	return g, nil
}

// Check says why an address is forbidden, nil when it is not.
func (g Guard) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, p := range g.Allow {
		if p.Contains(a) {
			return nil
		}
	}
	if inner := embedded(a); inner.IsValid() {
		if err := g.Check(inner); err != nil {
			return fmt.Errorf("%s leads to %w", a, err)
		}
	}
	why := ""
	switch {
	case a.IsLoopback():
		why = "loopback"
	case a.IsUnspecified():
		why = "unspecified"
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast(), a.IsInterfaceLocalMulticast():
		why = "link-local"
	case a.IsMulticast():
		why = "multicast"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "broadcast"
	default:
		return nil
	}
	return fmt.Errorf("%s is a %s address, which routes may not reach from the hub (start the hub with --route-allow %s to allow it)", a, why, a)
}

// transitional are prefixes of IPv6 that hold an address of IPv4, and the byte from
// which on they do. Whoever translates them may be this machine.
var transitional = map[netip.Prefix]int{
	netip.MustParsePrefix("::/96"):        12, // IPv4-compatible
	netip.MustParsePrefix("64:ff9b::/96"): 12, // NAT64
	netip.MustParsePrefix("2002::/16"):    2,  // 6to4
}

// embedded returns the IPv4 address within an IPv6 one.
func embedded(a netip.Addr) (inner netip.Addr) {
	if !a.Is6() || a.IsUnspecified() || a.IsLoopback() {
		return inner
	}
	for p, at := range transitional {
		if p.Contains(a) {
			b := a.As16()
			inner, _ = netip.AddrFromSlice(b[at : at+4])
		}
	}
	return inner
}

// CheckURL says why a URL is forbidden as far as its text tells.
func (g Guard) CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return g.Check(a)
	}
	if u.Hostname() == "localhost" {
		return g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return nil
}

// client makes requests to targets. It checks every address that it connects to,
// whatever the name is resolved to at that moment, follows no redirections and
// uses no proxy.
type client struct{ http *http.Client }

func newClient(g Guard) *client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
		return g.Check(ap.Addr())
	}}
	return &client{http: &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConns: 256, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) do(ctx context.Context, r *http.Request) (*http.Response, error) {
	return c.http.Do(r.WithContext(ctx))
}

func (c *client) close() { c.http.CloseIdleConnections() }
