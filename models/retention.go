package models

import (
	"fmt"
	"time"
)

// Retention says how long the hub keeps history. A device's says what it sets,
// and its model's the rest. Without an age everything is kept.
type Retention struct {
	Age         *Duration `json:"age,omitempty"`         // older samples go
	KeepAtLeast *int64    `json:"keepAtLeast,omitempty"` // but for this many of each property, the latest
}

// MinRetention is the least age: what is younger may not have been sent yet.
const MinRetention = time.Minute

func (r *Retention) validate(at string) (errs []FieldError) {
	if r == nil {
		return nil
	}
	if r.Age != nil && r.Age.Std() < MinRetention {
		errs = append(errs, FieldError{at + "/age", fmt.Sprintf("must be at least %s, got %s", MinRetention, r.Age.Std())})
	}
	if r.KeepAtLeast != nil && *r.KeepAtLeast < 0 {
		errs = append(errs, FieldError{at + "/keepAtLeast", fmt.Sprintf("must be at least 0, got %d", *r.KeepAtLeast)})
	}
	return errs
}

// ResolveRetention returns what holds for a device: age 0 keeps everything.
func ResolveRetention(m *DeviceModel, d *Device) (age time.Duration, keep int64) {
	for _, r := range []*Retention{m.Spec.Retention, d.Spec.Retention} {
		if r == nil {
			continue
		}
		if r.Age != nil {
			age = r.Age.Std()
		}
		if r.KeepAtLeast != nil {
			keep = *r.KeepAtLeast
		}
	}
	return age, keep
}
