package opcuasim

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
	"github.com/gopcua/opcua/uasc"
)

// handle replaces the services that gopcua's server is too trusting in: it
// checks neither users nor sessions, accepts any monitored item, and reuses
// the ids of subscriptions that live.
func (s *Server) handle(srv *server.Server) {
	srv.RegisterHandler(id.GetEndpointsRequest_Encoding_DefaultBinary, s.getEndpoints)
	srv.RegisterHandler(id.ActivateSessionRequest_Encoding_DefaultBinary, s.activateSession)
	srv.RegisterHandler(id.CloseSessionRequest_Encoding_DefaultBinary, s.closeSession)
	srv.RegisterHandler(id.ReadRequest_Encoding_DefaultBinary, s.read)
	srv.RegisterHandler(id.WriteRequest_Encoding_DefaultBinary, s.writeAll)
	srv.RegisterHandler(id.CreateSubscriptionRequest_Encoding_DefaultBinary, s.createSubscription)
	srv.RegisterHandler(id.DeleteSubscriptionsRequest_Encoding_DefaultBinary, s.deleteSubscriptions)
	srv.RegisterHandler(id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, s.createMonitoredItems)
	srv.RegisterHandler(id.SetMonitoringModeRequest_Encoding_DefaultBinary, unsupported)
	srv.RegisterHandler(id.DeleteMonitoredItemsRequest_Encoding_DefaultBinary, s.deleteMonitoredItems)
	srv.RegisterHandler(id.PublishRequest_Encoding_DefaultBinary, s.publish)
}

func unsupported(*uasc.SecureChannel, ua.Request, uint32) (ua.Response, error) {
	return nil, ua.StatusBadServiceUnsupported
}

func header(r ua.Request) *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: r.Header().RequestHandle, ServiceDiagnostics: &ua.DiagnosticInfo{},
		StringTable: []string{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

// session tells whose request it is, by the session's token.
func (s *Server) session(r ua.Request) (string, error) {
	token := r.Header().AuthenticationToken
	if token == nil {
		return "", ua.StatusBadSessionIDInvalid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active[token.String()] {
		return "", ua.StatusBadSessionIDInvalid
	}
	return token.String(), nil
}

const policyURI = "http://opcfoundation.org/UA/SecurityPolicy#"

func (s *Server) getEndpoints(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	req := r.(*ua.GetEndpointsRequest)
	url := s.URL()
	var out []*ua.EndpointDescription
	for _, ep := range s.srv.Endpoints() {
		if strings.TrimSuffix(ep.EndpointURL, "/") != url {
			continue
		}
		described := *ep
		described.UserIdentityTokens = s.tokens(ep)
		out = append(out, &described)
	}
	return &ua.GetEndpointsResponse{ResponseHeader: header(req), Endpoints: out}, nil
}

// tokens says how users may identify themselves at an endpoint: passwords are
// encrypted wherever the server has a certificate to encrypt them for.
func (s *Server) tokens(ep *ua.EndpointDescription) []*ua.UserTokenPolicy {
	var out []*ua.UserTokenPolicy
	if s.anonymous {
		out = append(out, &ua.UserTokenPolicy{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous})
	}
	uri := ep.SecurityPolicyURI
	if ep.SecurityMode == ua.MessageSecurityModeNone && s.key != nil {
		uri = policyURI + "Basic256Sha256"
	}
	if len(s.users) > 0 {
		out = append(out, &ua.UserTokenPolicy{PolicyID: "certificate", TokenType: ua.UserTokenTypeCertificate, SecurityPolicyURI: uri})
	}
	if len(s.cfg.Users) > 0 {
		out = append(out, &ua.UserTokenPolicy{PolicyID: "username", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: uri})
	}
	return out
}

func (s *Server) activateSession(sc *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	req := r.(*ua.ActivateSessionRequest)
	session := s.srv.Session(req.RequestHeader)
	if session == nil {
		return nil, ua.StatusBadSessionIDInvalid
	}
	// gopcua keeps what has to be signed to itself.
	fields := reflect.ValueOf(session).Elem()
	nonce, certificate := fields.FieldByName("serverNonce").Bytes(), fields.FieldByName("remoteCertificate").Bytes()
	if err := sc.VerifySessionSignature(certificate, nonce, req.ClientSignature.Signature); err != nil {
		return nil, ua.StatusBadApplicationSignatureInvalid
	}
	if status := s.admit(req, nonce); status != ua.StatusOK {
		return nil, status
	}
	s.mu.Lock()
	s.active[session.AuthTokenID.String()] = true
	s.mu.Unlock()
	if s.player != nil {
		s.player.Begin(time.Now())
	}
	return &ua.ActivateSessionResponse{ResponseHeader: header(req), ServerNonce: slices.Clone(nonce)}, nil
}

// admit checks who a session is for.
func (s *Server) admit(req *ua.ActivateSessionRequest, nonce []byte) ua.StatusCode {
	var who any
	if req.UserIdentityToken != nil {
		who = req.UserIdentityToken.Value
	}
	switch who := who.(type) {
	case nil, *ua.AnonymousIdentityToken:
		if s.anonymous {
			return ua.StatusOK
		}
		return ua.StatusBadIdentityTokenRejected
	case *ua.UserNameIdentityToken:
		password, known := s.cfg.Users[who.UserName]
		given, ok := s.password(who, len(nonce))
		if known && ok && given == password {
			return ua.StatusOK
		}
		return ua.StatusBadUserAccessDenied
	case *ua.X509IdentityToken:
		at := slices.IndexFunc(s.users, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, who.CertificateData) })
		if at < 0 {
			return ua.StatusBadIdentityTokenRejected
		}
		if !s.signed(s.users[at], req.UserTokenSignature, nonce) {
			return ua.StatusBadUserSignatureInvalid
		}
		return ua.StatusOK
	}
	return ua.StatusBadIdentityTokenInvalid
}

// signed reports whether a user has signed the server's certificate and nonce.
func (s *Server) signed(user *x509.Certificate, sig *ua.SignatureData, nonce []byte) bool {
	key, ok := user.PublicKey.(*rsa.PublicKey)
	if !ok || sig == nil {
		return false
	}
	for _, p := range policies {
		e, err := uapolicy.Asymmetric(policyURI+p, s.key, key)
		if err == nil && e.SignatureURI() == sig.Algorithm {
			return e.VerifySignature(slices.Concat(s.cert, nonce), sig.Signature) == nil
		}
	}
	return false
}

// password decrypts: the secret is its length, the password and the nonce.
func (s *Server) password(token *ua.UserNameIdentityToken, nonce int) (string, bool) {
	if token.EncryptionAlgorithm == "" {
		return string(token.Password), true
	}
	if s.key == nil {
		return "", false
	}
	for _, p := range policies {
		e, err := uapolicy.Asymmetric(policyURI+p, s.key, &s.key.PublicKey)
		if err != nil || e.EncryptionURI() != token.EncryptionAlgorithm {
			continue
		}
		secret, err := e.Decrypt(token.Password)
		if err != nil || len(secret) < 4 {
			continue
		}
		n := int(binary.LittleEndian.Uint32(secret)) - nonce
		if n >= 0 && 4+n <= len(secret) {
			return string(secret[4 : 4+n]), true
		}
	}
	return "", false
}

func (s *Server) closeSession(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	token, err := s.session(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.active, token)
	s.mu.Unlock()
	s.dropSubscriptions(func(sub *server.Subscription) bool { return sub.Session.AuthTokenID.String() == token })
	return &ua.CloseSessionResponse{ResponseHeader: header(r)}, nil
}

func (s *Server) read(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	if _, err := s.session(r); err != nil {
		return nil, err
	}
	req := r.(*ua.ReadRequest)
	s.reads.Add(1)
	if s.tooMany(len(req.NodesToRead)) {
		return nil, ua.StatusBadTooManyOperations
	}
	out := make([]*ua.DataValue, len(req.NodesToRead))
	for i, n := range req.NodesToRead {
		out[i] = s.attribute(n)
	}
	return &ua.ReadResponse{ResponseHeader: header(req), Results: out, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

// tooMany reports whether a request names more nodes than the server takes.
func (s *Server) tooMany(nodes int) bool {
	return s.cfg.MaxOperations > 0 && nodes > s.cfg.MaxOperations
}

func (s *Server) attribute(n *ua.ReadValueID) *ua.DataValue {
	ns, err := s.srv.Namespace(int(n.NodeID.Namespace()))
	if err != nil {
		return failed(ua.StatusBadNodeIDUnknown)
	}
	return ns.Attribute(n.NodeID, n.AttributeID)
}

func (s *Server) writeAll(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	if _, err := s.session(r); err != nil {
		return nil, err
	}
	req := r.(*ua.WriteRequest)
	if s.tooMany(len(req.NodesToWrite)) {
		return nil, ua.StatusBadTooManyOperations
	}
	out := make([]ua.StatusCode, len(req.NodesToWrite))
	for i, n := range req.NodesToWrite {
		out[i] = s.write(n.NodeID, n.AttributeID, n.IndexRange, n.Value)
	}
	return &ua.WriteResponse{ResponseHeader: header(req), Results: out, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

// minPublishing is the shortest publishing interval granted.
const minPublishing = 10 * time.Millisecond

func (s *Server) createSubscription(sc *uasc.SecureChannel, r ua.Request, reqID uint32) (ua.Response, error) {
	if _, err := s.session(r); err != nil {
		return nil, err
	}
	req := r.(*ua.CreateSubscriptionRequest)
	req.RequestedPublishingInterval = max(req.RequestedPublishingInterval, float64(minPublishing/time.Millisecond))
	req.RequestedMaxKeepAliveCount = max(req.RequestedMaxKeepAliveCount, 1)
	req.RequestedLifetimeCount = max(req.RequestedLifetimeCount, 3*req.RequestedMaxKeepAliveCount)
	svc := s.srv.SubscriptionService
	// The next id is the number of subscriptions plus one. Empty ones in place
	// of those that are gone keep that from being the id of one that lives.
	svc.Mu.Lock()
	for i := uint32(1); i <= s.subscriptions; i++ {
		if svc.Subs[i] == nil {
			svc.Subs[i] = &server.Subscription{}
		}
	}
	s.subscriptions++
	svc.Mu.Unlock()
	return svc.CreateSubscription(sc, req, reqID)
}

// dropSubscriptions ends those that live and that the function picks.
func (s *Server) dropSubscriptions(which func(*server.Subscription) bool) {
	svc := s.srv.SubscriptionService
	if svc == nil {
		return
	}
	var ids []uint32
	svc.Mu.Lock()
	for id, sub := range svc.Subs {
		if sub.Session != nil && which(sub) {
			ids = append(ids, id)
		}
	}
	svc.Mu.Unlock()
	for _, id := range ids {
		svc.DeleteSubscription(id)
	}
}

func (s *Server) deleteSubscriptions(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	token, err := s.session(r)
	if err != nil {
		return nil, err
	}
	req := r.(*ua.DeleteSubscriptionsRequest)
	out := make([]ua.StatusCode, len(req.SubscriptionIDs))
	for i, id := range req.SubscriptionIDs {
		out[i] = ua.StatusBadSubscriptionIDInvalid
		s.dropSubscriptions(func(sub *server.Subscription) bool {
			if sub.ID != id || sub.Session.AuthTokenID.String() != token {
				return false
			}
			out[i] = ua.StatusOK
			return true
		})
	}
	return &ua.DeleteSubscriptionsResponse{ResponseHeader: header(req), Results: out, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (s *Server) createMonitoredItems(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
	token, err := s.session(r)
	if err != nil {
		return nil, err
	}
	req := r.(*ua.CreateMonitoredItemsRequest)
	if s.tooMany(len(req.ItemsToCreate)) {
		return nil, ua.StatusBadTooManyOperations
	}
	svc := s.srv.MonitoredItemService
	svc.SubService.Mu.Lock()
	sub := svc.SubService.Subs[req.SubscriptionID]
	svc.SubService.Mu.Unlock()
	if sub == nil || sub.Session == nil || sub.Session.AuthTokenID.String() != token {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	out := make([]*ua.MonitoredItemCreateResult, len(req.ItemsToCreate))
	for i, item := range req.ItemsToCreate {
		out[i] = s.monitor(svc, sub, item)
	}
	return &ua.CreateMonitoredItemsResponse{ResponseHeader: header(req), Results: out, DiagnosticInfos: []*ua.DiagnosticInfo{}}, nil
}

func (s *Server) monitor(svc *server.MonitoredItemService, sub *server.Subscription, req *ua.MonitoredItemCreateRequest) *ua.MonitoredItemCreateResult {
	out := &ua.MonitoredItemCreateResult{FilterResult: ua.NewExtensionObject(nil)}
	present := s.attribute(req.ItemToMonitor)
	svc.Mu.Lock()
	defer svc.Mu.Unlock()
	switch limit := s.cfg.MaxMonitoredItems; {
	case present.Status == ua.StatusBadNodeIDUnknown || present.Status == ua.StatusBadAttributeIDInvalid:
		out.StatusCode = present.Status
		return out
	case limit < 0 || limit > 0 && len(svc.Items) >= limit:
		out.StatusCode = ua.StatusBadTooManyMonitoredItems
		return out
	}
	item := &server.MonitoredItem{ID: svc.NextID(), Sub: sub, Req: req}
	key := req.ItemToMonitor.NodeID.String()
	svc.Items[item.ID] = item
	svc.Nodes[key] = append(svc.Nodes[key], item)
	svc.Subs[sub.ID] = append(svc.Subs[sub.ID], item)
	out.MonitoredItemID = item.ID
	out.RevisedSamplingInterval = sub.RevisedPublishingInterval
	out.RevisedQueueSize = 1
	if !push(item, present) {
		s.repeat(s.byID[key])
	}
	return out
}

// push hands a value to a subscription. It does not wait: one that is not
// served loses it, and false says so.
func push(item *server.MonitoredItem, v *ua.DataValue) bool {
	select {
	case item.Sub.NotifyChannel <- &ua.MonitoredItemNotification{ClientHandle: item.Req.RequestedParameters.ClientHandle, Value: v}:
		return true
	default:
		return false
	}
}

// notify tells the subscriptions of changed nodes.
func (s *Server) notify(changed []*node) {
	svc := s.srv.MonitoredItemService
	if svc == nil {
		return
	}
	now := time.Now()
	svc.Mu.Lock()
	defer svc.Mu.Unlock()
	for _, n := range changed {
		items := svc.Nodes[n.id.String()]
		if len(items) == 0 {
			continue
		}
		s.mu.Lock()
		v := n.value(now)
		s.mu.Unlock()
		for _, item := range items {
			if item != nil && item.Req.ItemToMonitor.AttributeID == ua.AttributeIDValue && !push(item, v) {
				s.repeat(n)
			}
		}
	}
}

// repeat has a node told of again with the next tick.
func (s *Server) repeat(n *node) {
	if n == nil {
		return
	}
	s.mu.Lock()
	s.again[n] = true
	s.mu.Unlock()
}

func (s *Server) deleteMonitoredItems(sc *uasc.SecureChannel, r ua.Request, reqID uint32) (ua.Response, error) {
	if _, err := s.session(r); err != nil {
		return nil, err
	}
	req := r.(*ua.DeleteMonitoredItemsRequest)
	svc := s.srv.MonitoredItemService
	svc.Mu.Lock()
	for _, id := range req.MonitoredItemIDs {
		if svc.Items[id] == nil {
			svc.Mu.Unlock()
			return nil, ua.StatusBadMonitoredItemIDInvalid
		}
	}
	svc.Mu.Unlock()
	return svc.DeleteMonitoredItems(sc, req, reqID)
}

func (s *Server) publish(sc *uasc.SecureChannel, r ua.Request, reqID uint32) (ua.Response, error) {
	token, err := s.session(r)
	if err != nil {
		return nil, err
	}
	svc := s.srv.SubscriptionService
	svc.Mu.Lock()
	any := false
	for _, sub := range svc.Subs {
		any = any || sub.Session != nil && sub.Session.AuthTokenID.String() == token
	}
	svc.Mu.Unlock()
	if !any {
		return nil, ua.StatusBadNoSubscription
	}
	return svc.Publish(sc, r, reqID)
}

// splice copies list with items put at an index; false when they do not fit.
func splice(list, items any, at int) (any, bool) {
	a, b := reflect.ValueOf(list), reflect.ValueOf(items)
	if a.Kind() != reflect.Slice || a.Type() != b.Type() || at+b.Len() > a.Len() || b.Len() == 0 {
		return nil, false
	}
	out := reflect.MakeSlice(a.Type(), a.Len(), a.Len())
	reflect.Copy(out, a)
	reflect.Copy(out.Slice(at, a.Len()), b)
	return out.Interface(), true
}
