package mappers

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Checker collects what is wrong with a device's configuration, so that Open can
// tell all of it at once. The zero Checker has found nothing.
type Checker struct {
	at     string
	fields []models.FieldError
}

// Connection says that what comes next is the device's connection.
func (c *Checker) Connection() { c.at = "/spec/connection" }

// Address says that what comes next is a property's address.
func (c *Checker) Address(property string) { c.at = "/spec/properties/" + property + "/address" }

// Fail notes what is wrong with a field, a JSON pointer from what is being
// checked; "" is all of that.
func (c *Checker) Fail(field, format string, args ...any) {
	c.fields = append(c.fields, models.FieldError{Pointer: c.at + field, Detail: fmt.Sprintf(format, args...)})
}

// Decode reads a document strictly, an unknown field being an error, and reports
// whether it could be read.
func (c *Checker) Decode(text json.RawMessage, into any) bool {
	err := models.DecodeInto(text, into)
	var e *models.Error
	switch {
	case err == nil:
		return true
	case errors.As(err, &e) && len(e.Fields) > 0:
		for _, f := range e.Fields {
			c.Fail(f.Pointer, "%s", f.Detail)
		}
	default:
		c.Fail("", "%s", err.Error())
	}
	return false
}

// Duration takes a duration into into unless it was left out, which has to be
// within bounds.
func (c *Checker) Duration(field string, v *models.Duration, into *time.Duration, low, high time.Duration) {
	if v == nil {
		return
	}
	if *into = v.Std(); *into < low || *into > high {
		c.Fail(field, "must be from %s to %s, got %s", low, high, *into)
	}
}

// Found is what was found wrong.
func (c *Checker) Found() []models.FieldError { return c.fields }

// Err is what was found wrong as the error of Driver.Open; nil for nothing.
func (c *Checker) Err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &models.Error{Kind: models.KindInvalid, Fields: c.fields}
}
