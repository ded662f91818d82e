package e2e

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

// secure has the broker take TLS only, with a certificate of ca for these hosts,
// and starts it again.
func (m *mosquitto) secure(ca *pki.CA, hosts ...string) { m.t.Helper(); m.secureWith("", ca, hosts...) }

// secureWith has more lines of configuration.
func (m *mosquitto) secureWith(more string, ca *pki.CA, hosts ...string) {
	m.t.Helper()
	cert, err := ca.IssueServer(hosts, time.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := pki.EncodeKey(cert.PrivateKey.(crypto.Signer))
	if err != nil {
		m.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(m.addr)
	for name, text := range map[string][]byte{"cert.pem": pki.EncodeCerts(leaf), "key.pem": key, "conf": fmt.Appendf(nil,
		"listener %s 127.0.0.1\npassword_file %s/users\nallow_anonymous false\ncertfile %s/cert.pem\nkeyfile %s/key.pem\nuser root\n%s", port, m.dir, m.dir, m.dir, more)} {
		if err := os.WriteFile(filepath.Join(m.dir, name), text, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	m.stop()
	m.start()
}

// clientPEM is a certificate and its key.
func clientPEM(t *testing.T, ca *pki.CA) string {
	t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.NewCSR(key, "plant")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.CheckCSR(request, "plant")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	private, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pki.EncodeCerts(cert)) + string(private)
}

// TestBridgeTLS carries messages to another broker over TLS, when its certificate
// is of the authority that a Secret names, and for the name that the route uses.
func TestBridgeTLS(t *testing.T) {
	t.Parallel()
	const user, password = "plant", "Over-Tls-Only"
	authority, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := newMosquitto(t, user, password)
	other.secure(stranger, "127.0.0.1")
	h := newHub(t, "")
	e := newEdge(t, h, "gateway", h.link)
	bundle := func(cas ...*pki.CA) {
		t.Helper()
		text := ""
		for _, ca := range cas {
			text += string(pki.EncodeCerts(ca.Cert))
		}
		h.apply(secret("erp", fmt.Sprintf(`{"password": %q, "ca.pem": %q}`, password, text)))
	}
	bundle(authority)
	broker := fmt.Sprintf(`url: "mqtts://%s", username: %s, passwordFrom: {secret: erp, key: password}, caFrom: {secret: erp, key: ca.pem}`, other.addr, user)
	h.apply("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: there}\nspec: {" + `from: {mqtt: "erp/#"}, to: {broker: {` + broker + `, topic: "from-edge/{#}"}}` + "}\n")
	local := subscribe(t, e.mqtt, "#")
	until := func(what string, holds func(routeDoc) bool) {
		t.Helper()
		eventually(t, time.Minute, what, func() error { // the edge tries again in growing intervals
			var d routeDoc
			h.want(t, 200, "GET", hubAPI+"/routes/there", "").into(t, &d)
			if !holds(d) {
				return fmt.Errorf("%+v", d.Status)
			}
			return nil
		})
	}
	until("the route takes messages, and does not trust the broker", func(d routeDoc) bool {
		if d.Status.Queued == 0 {
			local.publish(t, "erp/first", "1")
		}
		return strings.Contains(d.Status.LastError, "unknown authority")
	})
	// A certificate of the right authority for somebody else is none for this address.
	other.secure(authority, "broker.example")
	until("the route is told of the name", func(d routeDoc) bool { return strings.Contains(d.Status.LastError, "127.0.0.1") })
	other.secure(authority, "127.0.0.1")
	until("the messages are through", func(d routeDoc) bool { return d.Status.Delivered > 0 && d.Status.Queued == 0 && d.Status.Failed == 0 })
	// One that wants a certificate of its clients, too.
	ca := filepath.Join(other.dir, "clients.pem")
	if err := os.WriteFile(ca, pki.EncodeCerts(authority.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	other.secureWith("cafile "+ca+"\nrequire_certificate true\n", authority, "127.0.0.1")
	local.publish(t, "erp/second", "2")
	until("the broker does not let it in", func(d routeDoc) bool {
		return d.Status.Queued > 0 && strings.Contains(d.Status.LastError, "not connected")
	})
	h.apply(secret("client", fmt.Sprintf(`{"client.pem": %q}`, clientPEM(t, authority))))
	h.apply("apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: there}\nspec: {" + `from: {mqtt: "erp/#"}, to: {broker: {` + broker + `, certificateFrom: {secret: client, key: client.pem}, topic: "from-edge/{#}"}}` + "}\n")
	was := 0
	until("messages taken since are through", func(d routeDoc) bool {
		local.publish(t, "erp/third", "3")
		if was == 0 {
			was = d.Status.Delivered
		}
		return d.Status.Delivered > was
	})
	e.stop()
	h.stop()
	for _, log := range []string{e.stderr(), h.stderr()} {
		if strings.Contains(log, password) {
			t.Error("a log shows the password")
		}
	}
}
