package devices

import (
	"context"
	"errors"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Whoever reads is told apart what is silent, what refuses, and what is worth
// another try at once.
func TestReadErrorKinds(t *testing.T) {
	l := &loop{d: &device{id: "bench-1"}}
	for _, c := range []struct {
		err  error
		kind models.ErrorKind
		text string
	}{
		{mappers.Fail(models.ReasonTimeout, errors.New("no answer")), models.KindTimeout, "device bench-1 does not answer: timeout: no answer"},
		{mappers.Fail(models.ReasonMapperLost, errors.New("mapper scpi is gone")), models.KindTimeout, "device bench-1 does not answer: mapper-lost: mapper scpi is gone"},
		{mappers.Fail(models.ReasonMapperLost, mappers.ErrClosed), models.KindUnavailable, "device bench-1 is being restarted; try again"},
		{mappers.Fail(models.ReasonDeviceError, errors.New("no")), models.KindRefused, "device bench-1 cannot be read: device-error: no"},
		{mappers.ErrBusy, models.KindTooMany, "device bench-1: " + mappers.ErrBusy.Error()},
	} {
		err := l.readError(context.Background(), c.err)
		if models.KindOf(err) != c.kind || err.Error() != c.text {
			t.Errorf("%v: got %v (%v), want %v (%v)", c.err, err, models.KindOf(err), c.text, c.kind)
		}
	}
}
