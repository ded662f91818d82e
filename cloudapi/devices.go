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
	// RecordDevice hands what the device's mapper sees on the wire to lines, whole
	// lines as they come, until length is over. Errors are KindConflict while it is
	// being recorded already, KindRefused where it cannot be.
	RecordDevice(ctx context.Context, namespace, name string, length time.Duration, trace string, lines func([]byte) error) error
	// BrowseDevice looks around in a device and calls found with what it offers, until
	// found fails. Errors are those of ReadDevice.
	BrowseDevice(ctx context.Context, namespace, name, trace string, found func(models.Found) error) error
}

// How long an answer of a device is waited for.
const (
	defaultReadWait = 10 * time.Second
	maxReadWait     = time.Minute
	browseWait      = 2 * time.Minute
)

// How long a recording takes.
const (
	defaultRecord = time.Minute
	minRecord     = 10 * time.Millisecond
	maxRecord     = 24 * time.Hour
)

func (a *api) deviceRoutes() []route {
	return []route{{a.schemas.readOp(), models.Operator, a.readDevice}, {a.schemas.recordOp(), models.Operator, a.recordDevice},
		{a.schemas.browseOp(), models.Operator, a.browseDevice}}
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

// recordDevice streams a recording. One that ends too early lacks its last line,
// by which whoever reads it tells.
func (a *api) recordDevice(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	length, err := c.duration("for", minRecord, maxRecord)
	if err != nil {
		return answer{}, err
	}
	if length == 0 {
		length = defaultRecord
	}
	s := &stream{c: c, contentType: typeLines, beat: []byte("\n")}
	err = s.run(func(ctx context.Context) error {
		return a.Devices.RecordDevice(ctx, namespace, name, length, c.trace, s.write)
	})
	if err != nil && !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		a.Log.WarnContext(c.Context(), "a recording is cut off", "path", c.URL.Path, "error", err, "traceparent", c.trace)
		breakOff()
	}
	return answer{sent: true}, nil
}

// browseLine is a line of a browse: what was found, or at the end the problem that
// ended it before.
type browseLine struct {
	models.Found
	Problem *problem `json:"problem,omitempty"`
}

func (a *api) browseDevice(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	if len(text) > 0 {
		if err := models.DecodeInto(text, &struct{}{}); err != nil {
			return answer{}, malformed(err)
		}
	}
	s := &stream{c: c, contentType: typeLines, beat: []byte("\n"), patient: true}
	line := func(l browseLine) error {
		text, err := encode(l)
		if err != nil {
			return err
		}
		return s.write(text)
	}
	err = s.run(func(ctx context.Context) error {
		limited, stop := context.WithTimeout(ctx, browseWait)
		defer stop()
		err := a.Devices.BrowseDevice(limited, namespace, name, c.trace, func(f models.Found) error { return line(browseLine{Found: f}) })
		if limited.Err() != nil && ctx.Err() == nil {
			return models.Errorf(models.KindTimeout, "not all was found within %s", browseWait)
		}
		return err
	})
	if !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		p := problemOf(err)
		_ = line(browseLine{Problem: &p}) // the last thing said, if it still can be
	}
	return answer{sent: true}, nil
}
