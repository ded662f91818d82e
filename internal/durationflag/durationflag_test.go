package durationflag

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestVar(t *testing.T) {
	f := pflag.NewFlagSet("x", pflag.ContinueOnError)
	var since, ttl time.Duration
	Var(f, &since, "since", time.Hour, "how far back")
	Var(f, &ttl, "ttl", 0, "how long")
	if usage := f.FlagUsages(); !strings.Contains(usage, "--since duration   how far back (default 1h0m0s)\n") || !strings.Contains(usage, "--ttl duration     how long\n") {
		t.Errorf("%s", usage)
	}
	if err := f.Parse([]string{"--since", "1w2d"}); err != nil || since != 9*24*time.Hour || ttl != 0 || f.Changed("ttl") {
		t.Errorf("%v %v %v", since, ttl, err)
	}
	err := f.Parse([]string{"--ttl=1y"})
	if err == nil || !strings.Contains(err.Error(), `"1y"`) || !strings.Contains(err.Error(), `--ttl`) || !strings.Contains(err.Error(), `it must be a duration such as "500ms"`) || ttl != 0 {
		t.Errorf("%v, and %v", err, ttl)
	}
}
