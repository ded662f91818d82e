package cloudapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Devices is what is asked of a device itself, through its node, now. A node that
// is offline is KindUnavailable, at once.
type Devices interface {
	// ReadDevice reads properties, nil for all. Errors are KindInvalid with pointers
	// into the request, KindRefused for a device that says no, KindTimeout for one
	// that is silent. trace is the caller's traceparent.
	ReadDevice(ctx context.Context, namespace, name string, properties []string, trace string) (map[string]models.Reading, error)
}

// How long an answer of a device is waited for.
const (
	defaultReadWait = 10 * time.Second
	maxReadWait     = time.Minute
)

func (a *api) deviceRoutes() []route {
	return []route{{a.schemas.readOp(), models.Operator, a.readDevice}}
}

func (a *api) readDevice(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	wait, err := c.duration("wait", time.Millisecond, maxReadWait)
	if err != nil {
		return answer{}, err
	}
	if wait == 0 {
		wait = defaultReadWait
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	var req models.ReadingsRequest
	if len(text) > 0 {
		if err := models.DecodeInto(text, &req); err != nil {
			return answer{}, malformed(err)
		}
	}
	return c.once(text, func() (answer, error) {
		ctx, cancel := c.long()
		defer cancel(nil)
		limited, stop := context.WithTimeout(ctx, wait)
		defer stop()
		read, err := a.Devices.ReadDevice(limited, namespace, name, req.Properties, c.trace)
		switch {
		case err == nil:
			return answer{status: http.StatusOK, body: models.Readings{Device: name, Properties: read}}, nil
		case errors.Is(context.Cause(ctx), errDraining):
			return answer{}, errDraining
		case errors.Is(err, context.DeadlineExceeded) && models.KindOf(err) == models.KindInternal:
			err = models.Errorf(models.KindTimeout, "not answered within %s", wait)
		}
		return answer{}, err
	})
}
