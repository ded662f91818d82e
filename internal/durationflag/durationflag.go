// Package durationflag gives commands flags that take durations as objects and the API
// do, in days and weeks too: pflag's own end at hours.
package durationflag

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Var adds a flag. A value of 0 is not shown as its default.
func Var(f *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	flag := f.VarPF((*duration)(p), name, "", usage)
	if value == 0 {
		flag.DefValue = ""
	}
}

type duration time.Duration

// Set implements pflag.Value.
func (d *duration) Set(text string) error {
	v, err := models.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("it %w", err)
	}
	*d = duration(v)
	return nil
}

// String implements pflag.Value.
func (d *duration) String() string { return time.Duration(*d).String() }

// Type implements pflag.Value: it is what the usage shows for the value.
func (*duration) Type() string { return "duration" }
