package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

// link keeps at most one session with a server. A session that is lost is
// never mended, only replaced: gopcua's own reconnecting loses subscriptions
// without a word.
type link struct {
	target   target
	identify func() (*wire.Identity, error)
	opened   func(*session)  // told of every session
	ctx      context.Context // ends with close
	end      context.CancelFunc

	mu      sync.Mutex
	current *session
	dialing *dialing
}

// dialing is an attempt to connect that several may wait for.
type dialing struct {
	done    chan struct{} // closed when the fields below are set
	session *session
	err     error
}

// session is a connection with a session on it.
type session struct {
	client     *gopcua.Client
	namespaces []string      // the server's, by index
	lost       chan struct{} // closed by fail
	once       sync.Once
}

// node is a point's node as the server has it.
func (s *session) node(pt *point) *ua.NodeID { return pt.node.In(s.namespaces) }

// fail declares the session lost: nobody will get it any more, and it is
// closed.
func (s *session) fail() { s.once.Do(func() { close(s.lost) }) }

func (s *session) alive() bool {
	select {
	case <-s.lost:
		return false
	default:
		return true
	}
}

func newLink(t target, identify func() (*wire.Identity, error), opened func(*session)) *link {
	l := &link{target: t, identify: identify, opened: opened}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// close gives the session up. Nobody gets one any more.
func (l *link) close() { l.end() }

// session returns the session, connecting first where there is none.
func (l *link) session(ctx context.Context) (*session, error) {
	if ctx.Err() != nil {
		return nil, unsent(models.ReasonTimeout, ctx.Err())
	}
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		return nil, unsent(models.ReasonNotConnected, errors.New("the device is closed"))
	}
	if s := l.current; s != nil && s.alive() {
		l.mu.Unlock()
		return s, nil
	}
	d := l.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		l.dialing = d
		go l.run(d)
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.session, d.err
	case <-ctx.Done():
		return nil, unsent(models.ReasonTimeout, fmt.Errorf("connecting: %w", ctx.Err()))
	}
}

// run is the life of one session: it connects, tells those who wait, and
// closes the session when it is lost or the link is closed.
func (l *link) run(d *dialing) {
	s, err := l.connect()
	l.mu.Lock()
	l.dialing = nil
	if err == nil {
		l.current, d.session = s, s
	} else {
		d.err = connecting(err)
	}
	l.mu.Unlock()
	close(d.done)
	if err != nil {
		return
	}
	l.opened(s)
	select {
	case <-s.lost:
	case <-l.ctx.Done():
		s.fail()
	}
	l.mu.Lock()
	if l.current == s {
		l.current = nil
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = s.client.Close(ctx) // there is nothing left to do about it
}

// goodbye is how long a server may take to acknowledge the end of a session.
const goodbye = 200 * time.Millisecond

// sessionTimeout is after how long without a request the server may forget the
// session. Small servers have few to spare.
const sessionTimeout = 2 * time.Minute

// connect finds out what the server offers, and opens a session.
func (l *link) connect() (s *session, err error) {
	// gopcua trips over answers that it does not expect.
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("the server's answer makes no sense: %v", r)
		}
	}()
	// Each of the two steps may take as long as an answer may.
	ctx, cancel := context.WithTimeout(l.ctx, l.target.timeout)
	endpoints, err := gopcua.GetEndpoints(ctx, l.target.url, gopcua.DialTimeout(l.target.timeout), gopcua.RequestTimeout(l.target.timeout))
	cancel()
	if err != nil {
		return nil, err
	}
	options, err := l.options(endpoints)
	if err != nil {
		return nil, err
	}
	s = &session{lost: make(chan struct{})}
	connected := make(chan struct{})
	options = append(options, gopcua.StateChangedFunc(func(state gopcua.ConnState) {
		select {
		case <-connected:
			if state == gopcua.Disconnected || state == gopcua.Closed {
				s.fail()
			}
		default:
		}
	}))
	if s.client, err = gopcua.NewClient(l.target.url, options...); err != nil {
		return nil, err
	}
	ctx, cancel = context.WithTimeout(l.ctx, l.target.timeout)
	defer cancel()
	if err := s.client.Connect(ctx); err != nil {
		return nil, l.target.login(err)
	}
	s.namespaces = s.client.Namespaces()
	close(connected)
	if s.client.State() != gopcua.Connected {
		s.fail()
	}
	return s, nil
}

// login says of a server that does not let the user in which user that was, and
// what to do about it. Other errors stay as they are.
func (t *target) login(err error) error {
	if !rejected(err) {
		return err
	}
	var status ua.StatusCode
	errors.As(err, &status)
	said := func(who, do string) error {
		return mappers.Fail(reasonIdentity, fmt.Errorf("the server does not let %s in (%s): %s", who, wire.Name(status), do))
	}
	switch {
	case t.user != nil:
		return said("the user of certificateFrom", "have it trust the certificate, or correct the secret")
	case t.username != "":
		return said("user "+strconv.Quote(t.username), "correct the connection's username or password (passwordFrom)")
	}
	return said("anonymous users", "give the connection a user: username and passwordFrom, or certificateFrom")
}

// rejected tells the status codes by which a server refuses a user.
func rejected(err error) bool {
	return errors.Is(err, ua.StatusBadUserAccessDenied) || errors.Is(err, ua.StatusBadIdentityTokenRejected) ||
		errors.Is(err, ua.StatusBadIdentityTokenInvalid) || errors.Is(err, ua.StatusBadUserSignatureInvalid)
}

// options is how to connect to one of the endpoints.
func (l *link) options(endpoints []*ua.EndpointDescription) ([]gopcua.Option, error) {
	ep, err := choose(endpoints, l.target)
	if err != nil {
		return nil, err
	}
	options := []gopcua.Option{
		gopcua.AutoReconnect(false),
		gopcua.DialTimeout(l.target.timeout),
		// What waits longest is a request to publish; everything else has a
		// context that ends sooner.
		gopcua.RequestTimeout(max(l.target.timeout, publishWait)),
		gopcua.SessionTimeout(sessionTimeout),
		gopcua.ApplicationName("Whimbrel"),
		gopcua.ProductURI("urn:whimbrel"),
		gopcua.SessionName("whimbrel " + l.target.device),
	}
	token := ua.UserTokenTypeAnonymous
	switch user := l.target.user; {
	case user != nil:
		token = ua.UserTokenTypeCertificate
		options = append(options, gopcua.AuthCertificate(user.Certificate), gopcua.AuthPrivateKey(user.Key))
	case l.target.username != "":
		token = ua.UserTokenTypeUserName
		options = append(options, gopcua.AuthUsername(l.target.username, l.target.password.Reveal()))
	}
	if ep.SecurityMode != ua.MessageSecurityModeNone {
		if err := trusted(ep.ServerCertificate, l.target); err != nil {
			return nil, err
		}
		id, err := l.identify()
		if err != nil {
			return nil, err
		}
		options = append(options, gopcua.PrivateKey(id.Key), gopcua.Certificate(id.Certificate))
	}
	if !offers(ep, token) {
		return nil, &mappers.Failure{Reason: reasonIdentity, Refused: true, Err: fmt.Errorf("the server does not accept %s users, only %s", tokenNames[token], accepted(ep))}
	}
	if token == ua.UserTokenTypeCertificate && !proves(ep) {
		return nil, refused(errors.New("a user with a certificate needs security, to prove that the certificate is theirs; set policy or mode"))
	}
	return append(options, gopcua.SecurityFromEndpoint(ep, token)), nil
}

// publishWait bounds how long a request to publish is outstanding; then
// another takes its place.
const publishWait = time.Minute

// reasonIdentity is why a server refuses a user.
const reasonIdentity models.Reason = "identity-rejected"

// connecting is why there is no session. Nothing was sent.
func connecting(err error) *mappers.Failure {
	var f *mappers.Failure
	if !errors.As(err, &f) {
		f = failure(err)
	}
	var status ua.StatusCode
	if errors.As(err, &status) && refusesClient(status) {
		f = mappers.Fail(f.Reason, fmt.Errorf("the server does not accept the edge's certificate (%s): have it trust the one in mappers/opcua/%s in the edge's data directory", wire.Name(status), identityFile))
	}
	// A server that refuses may think better of it, and nothing was refused of
	// what is to be read or written.
	return &mappers.Failure{Reason: f.Reason, Unsent: true, Err: fmt.Errorf("connecting: %w", f.Err)}
}

// refusesClient tells the status codes by which a server says that it does not
// take the certificate that it was shown.
func refusesClient(status ua.StatusCode) bool {
	switch status {
	case ua.StatusBadSecurityChecksFailed, ua.StatusBadCertificateUntrusted, ua.StatusBadCertificateInvalid, ua.StatusBadCertificateTimeInvalid,
		ua.StatusBadCertificateURIInvalid, ua.StatusBadCertificateHostNameInvalid, ua.StatusBadCertificateUseNotAllowed, ua.StatusBadCertificateRevoked,
		ua.StatusBadCertificateIssuerUseNotAllowed, ua.StatusBadCertificateChainIncomplete, ua.StatusBadCertificatePolicyCheckFailed:
		return true
	}
	return false
}

// failure sorts why a request failed as a whole.
func failure(err error) *mappers.Failure {
	var f *mappers.Failure
	var status ua.StatusCode
	var network net.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, ua.StatusBadTimeout),
		errors.As(err, &network) && network.Timeout():
		return mappers.Fail(models.ReasonTimeout, err)
	case errors.Is(err, ua.StatusBadServerNotConnected):
		return unsent(models.ReasonNotConnected, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return mappers.Fail(models.ReasonNotConnected, err)
	case errors.As(err, &status) && gone(status):
		return mappers.Fail(models.ReasonNotConnected, err)
	case rejected(err):
		return mappers.Fail(reasonIdentity, err)
	case errors.As(err, &status):
		return mappers.Fail(wire.ReasonOf(status), err)
	case says(err, "i/o timeout"):
		return mappers.Fail(models.ReasonTimeout, err)
	case says(err, "connection reset", "broken pipe", "closed network connection", "EOF"):
		return mappers.Fail(models.ReasonNotConnected, err)
	}
	return mappers.Fail(models.ReasonProtocolError, err)
}

// says looks into an error's text: in places gopcua keeps only that of a network's
// error.
func says(err error, any ...string) bool {
	return slices.ContainsFunc(any, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// gone tells the status codes that say that the session is no more.
func gone(status ua.StatusCode) bool {
	switch status {
	case ua.StatusBadSessionIDInvalid, ua.StatusBadSessionClosed, ua.StatusBadSessionNotActivated, ua.StatusBadSecureChannelIDInvalid,
		ua.StatusBadSecureChannelClosed, ua.StatusBadSecureChannelTokenUnknown, ua.StatusBadConnectionClosed, ua.StatusBadTCPSecureChannelUnknown,
		ua.StatusBadConnectionRejected, ua.StatusBadNotConnected, ua.StatusBadShutdown, ua.StatusBadServerHalted, ua.StatusBadCommunicationError:
		return true
	}
	return false
}

// ask sends a request and waits for its answer for at most the timeout. A
// session that does not answer, or not as one, is given up, unless it was the
// caller who lost patience.
func ask[R ua.Response](ctx context.Context, l *link, s *session, req ua.Request) (R, error) {
	return askFor[R](ctx, s, req, l.target.timeout)
}

func askFor[R ua.Response](ctx context.Context, s *session, req ua.Request, timeout time.Duration) (R, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out R
	err := s.client.Send(bounded, req, func(r ua.Response) error {
		answer, ok := r.(R)
		if !ok {
			return fmt.Errorf("the answer is a %T", r)
		}
		out = answer
		return nil
	})
	if err == nil {
		return out, nil
	}
	var status ua.StatusCode
	refused := errors.As(err, &status) && !gone(status) && status != ua.StatusBadTimeout && status != ua.StatusBadServerNotConnected
	if !refused && ctx.Err() == nil {
		s.fail()
	}
	return out, err
}

func refused(err error) *mappers.Failure {
	return &mappers.Failure{Reason: models.ReasonConfiguration, Refused: true, Err: err}
}

func unsent(reason models.Reason, err error) *mappers.Failure {
	return &mappers.Failure{Reason: reason, Unsent: true, Err: err}
}
