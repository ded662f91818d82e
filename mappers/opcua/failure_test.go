package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
	wire "github.com/whimbrel-edge/whimbrel/protocols/opcua"
)

func TestFailuresAreSorted(t *testing.T) {
	for _, tc := range []struct {
		err    error
		reason models.Reason
		unsent bool
	}{
		{context.DeadlineExceeded, models.ReasonTimeout, false},
		{ua.StatusBadTimeout, models.ReasonTimeout, false},
		{io.EOF, models.ReasonNotConnected, false},
		{fmt.Errorf("publishing: %w", io.EOF), models.ReasonNotConnected, false},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, models.ReasonNotConnected, false},
		{errors.New("opcua: write failed: write tcp 127.0.0.1:1->127.0.0.1:2: write: connection reset by peer"), models.ReasonNotConnected, false},
		{errors.New("opcua: read failed: i/o timeout"), models.ReasonTimeout, false},
		{ua.StatusBadServerNotConnected, models.ReasonNotConnected, true},
		{ua.StatusBadSessionIDInvalid, models.ReasonNotConnected, false},
		{ua.StatusBadIdentityTokenRejected, reasonIdentity, false},
		{ua.StatusBadTooManySessions, "too-many-sessions", false},
		{errors.New("nonsense"), models.ReasonProtocolError, false},
	} {
		if f := failure(tc.err); f.Reason != tc.reason || f.Unsent != tc.unsent || f.Refused {
			t.Errorf("%v: %+v", tc.err, f)
		}
		if f := connecting(tc.err); f.Reason != tc.reason || !f.Unsent || f.Refused {
			t.Errorf("connecting: %v: %+v", tc.err, f)
		}
	}
	for _, status := range []ua.StatusCode{ua.StatusBadCertificateUntrusted, ua.StatusBadSecurityChecksFailed, ua.StatusBadCertificateTimeInvalid} {
		if f := connecting(fmt.Errorf("opening: %w", status)); !strings.Contains(f.Error(), "("+wire.Name(status)+"): have it trust the one in mappers/opcua/client.pem") {
			t.Errorf("%v: %v", status, f)
		}
	}
}
