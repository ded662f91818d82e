package ingest

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	samples prometheus.Counter
	seconds prometheus.Histogram
	aside   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, log *slog.Logger) metrics {
	m := metrics{
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "whimbrel_hub_samples_ingested_total", Help: "Samples committed to history.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "whimbrel_hub_ingest_seconds", Help: "From the arrival of a group's first batch to its commit.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}),
		aside: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "whimbrel_hub_records_set_aside_total", Help: "Log records that could not be stored, wholly or in part, and left a gap.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{reasonUnreadable, reasonUnknownDevice} {
		m.aside.WithLabelValues(reason)
	}
	if r == nil {
		return m
	}
	for _, c := range []prometheus.Collector{m.samples, m.seconds, m.aside} {
		if err := r.Register(c); err != nil {
			log.Error("a metric cannot be registered", "error", err)
		}
	}
	return m
}

func (m *metrics) committed(p *plan, took time.Duration) {
	m.samples.Add(float64(p.samples))
	if len(p.batches) > 0 {
		m.seconds.Observe(took.Seconds())
	}
	for reason, n := range p.aside {
		m.aside.WithLabelValues(reason).Add(float64(n))
	}
}
