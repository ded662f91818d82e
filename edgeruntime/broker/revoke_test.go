package broker

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A credential that is taken away ends the connection made with it, whatever the
// client does, and the session; other connections stay.
func TestRevokedCredentialEndsTheConnection(t *testing.T) {
	for _, version := range []byte{4, 5} {
		var revoked atomic.Bool
		app := Identity{Name: "app", Rules: []Rule{{Filter: "apps/app/#", Publish: true, Subscribe: true}}, Current: func() bool { return !revoked.Load() }}
		b := start(t, func(c *Config) {
			c.Auth = fakeAuth{"app": app, "other": testUsers["other"]}
		})
		lasting := func(pk *packets.Packet) {
			pk.Connect.Clean = false
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 3600, true
		}
		c, _ := connect(t, b, version, "app", "c1", lasting)
		silent, _ := connect(t, b, version, "app", "c2", nil)
		other, _ := connect(t, b, version, "other", "c3", nil)
		if code := c.subscribe(1, "apps/app/#", 1); code != 1 {
			t.Fatalf("subscribe: %#x", code)
		}
		revoked.Store(true)
		for _, c := range []*raw{c, silent} {
			if version == 5 {
				if pk := c.expect(packets.Disconnect); pk.ReasonCode != packets.ErrNotAuthorized.Code {
					t.Errorf("DISCONNECT says %#x", pk.ReasonCode)
				}
			}
			c.ends()
		}
		other.ping()
		eventually(t, "the revoked connections are gone", func() bool { return b.Clients() == 1 })
		if log := b.log.String(); strings.Count(log, "its credential was taken away") != 2 {
			t.Errorf("log: %s", log)
		}
		revoked.Store(false)
		_, ack := connect(t, b, version, "app", "c1", lasting)
		if ack.ReasonCode != 0 || ack.SessionPresent {
			t.Errorf("version %d: the session outlived its credential: %+v", version, ack)
		}
	}
}
