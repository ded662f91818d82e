// Command bench measures Whimbrel against a baseline taken in the same run and
// prints ratios: on a noisy machine only those mean anything. `make bench` runs
// it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// result is one line of the report.
type result struct {
	what     string
	ours     string
	baseline string
	ratio    string
	goal     string
	ok       bool
}

// sections are the measurements by name, in their order.
var sections = []struct {
	name string
	run  func(context.Context, settings) ([]result, error)
}{
	{"modbus", benchModbus},
	{"rtu", benchRTU},
	{"opcua", benchOPCUA},
	{"write", benchWrite},
	{"edge", benchEdge},
	{"apps", benchApps},
	{"services", benchServices},
	{"logs", benchLogs},
	{"images", benchImages},
	{"mqtt", benchMQTT},
	{"routes", benchRoutes},
	{"cold", benchCold},
	{"ingest", benchIngest},
	{"single", benchSingle},
	{"outbox", benchOutbox},
	{"restart", benchRestart},
	{"scale", benchScale},
	{"size", benchSize},
	{"query", benchQuery},
}

// settings bound what one run costs.
type settings struct {
	duration time.Duration // of each timed loop
	rounds   int           // of each comparison; the median counts
	scale    int           // properties at most
	// of the section scale alone
	scaleFrom int // properties at least
	each      int // samples of each in a round, 0: as many as make sense
}

func main() {
	var s settings
	var only, outboxPath string
	var short bool
	flag.DurationVar(&s.duration, "duration", 2*time.Second, "how long each timed loop runs")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each comparison is made; the median ratio counts")
	flag.StringVar(&only, "only", "", "sections to run, joined by commas (default all)")
	flag.IntVar(&s.scale, "scale", 1_000_000, "up to how many properties the cost of a sample is measured; a million takes minutes")
	flag.IntVar(&s.scaleFrom, "scale-from", 0, "from how many properties the cost of a sample is measured")
	flag.IntVar(&s.each, "each", 0, "samples of each property when the cost of a sample is measured; 120 go the whole way into chunks, which at a million takes long")
	flag.StringVar(&outboxPath, "outbox", "", "of use to the bench itself: fill the outbox at this path")
	flag.BoolVar(&short, "short", false, "less of everything: loops of a second, three rounds, and no million properties")
	flag.Parse()
	if short {
		s.duration, s.rounds, s.scale = min(s.duration, time.Second), min(s.rounds, 3), min(s.scale, 100_000)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if outboxPath != "" {
		if err := fillOutbox(ctx, outboxPath); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := errors.Join(run(ctx, s, only, os.Stdout), removeBinaries()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, only string, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	began, met, missed := time.Now(), 0, 0
	fmt.Fprintln(w, "what\twhimbrel\tbaseline\tratio\tgoal\t")
	for _, section := range sections {
		if only != "" && !slices.Contains(strings.Split(only, ","), section.name) {
			continue
		}
		at := time.Now()
		results, err := section.run(ctx, s)
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", section.name, time.Since(at).Round(time.Second))
		for _, r := range results {
			verdict := ""
			switch {
			case r.goal == "-":
			case r.ok:
				verdict = "met"
				met++
			default:
				verdict = "MISSED"
				missed++
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.ours, r.baseline, r.ratio, r.goal, verdict)
		}
		if err != nil {
			_ = w.Flush()
			return fmt.Errorf("%s: %w", section.name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d goals met, %d missed, in %s\n", met, missed, time.Since(began).Round(time.Second))
	return err
}

// quiet is for parts whose log nobody reads.
var quiet = slog.New(slog.DiscardHandler)

// median returns the middle of the values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// percentile returns the value below which a share of the sorted durations lies.
func percentile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
