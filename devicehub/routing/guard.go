package routing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/courier"
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
			return &forbidden{fmt.Sprintf("%s leads to another one: %v", a, err)}
		}
	}
	why := ""
	switch {
	case a.IsLoopback():
		why = "a loopback address"
	case a.IsUnspecified():
		why = "the unspecified address"
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast(), a.IsInterfaceLocalMulticast():
		why = "a link-local address"
	case a.IsMulticast():
		why = "a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "the broadcast address"
	case slices.Contains(metadata, a):
		why = "where a cloud's machines ask for their credentials"
	default:
		return nil
	}
	return &forbidden{fmt.Sprintf("%s is %s, which routes may not reach from the hub (start the hub with --route-allow %s to allow it)", a, why, a)}
}

// forbidden says that an address is, in words for people.
type forbidden struct{ why string }

func (f *forbidden) Error() string { return f.why }

// metadata are addresses of clouds' metadata services that are not link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
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
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return g.Check(a)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 section 6.3
		return g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return nil
}

// client makes requests to targets. It checks every address that it connects to,
// whatever the name is resolved to at that moment, follows no redirections and
// uses no proxy.
type client struct{ http *http.Client }

// permitted is the key of a flag in a dial's context: an address was not forbidden.
type permitted struct{}

func newClient(g Guard) *client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
		if err = g.Check(ap.Addr()); err == nil {
			ctx.Value(permitted{}).(*atomic.Bool).Store(true)
		}
		return err
	}}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		var some atomic.Bool
		conn, err := dialer.DialContext(context.WithValue(ctx, permitted{}, &some), network, address)
		if err != nil && some.Load() { // of several addresses not all are forbidden: it is away
			err = fmt.Errorf("%v", err)
		}
		return conn, err
	}
	return &client{http: &http.Client{
		Transport: &http.Transport{DialContext: dial, ForceAttemptHTTP2: true, MaxIdleConns: 256, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// do makes a request. An address that is forbidden is a refusal: what a name stands
// for does not change by asking again.
func (c *client) do(r *http.Request) (*http.Response, error) {
	res, err := c.http.Do(r)
	var outer *url.Error
	if errors.As(err, &outer) {
		err = fmt.Errorf("%s %s: %w", r.Method, r.URL.Host, outer.Err) // the rest of the URL may be long
	}
	var no *forbidden
	if errors.As(err, &no) {
		return nil, &courier.Refused{Final: true, Err: fmt.Errorf("%s: %w", r.URL.Host, no)}
	}
	return res, err
}

func (c *client) close() { c.http.CloseIdleConnections() }
