package mappers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Metrics counts what all Runners of a process do. It is a
// prometheus.Collector; register it once.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	overruns prometheus.Counter
}

var _ prometheus.Collector = (*Metrics)(nil)

// NewMetrics returns metrics at zero.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "whimbrel_mapper_requests_total",
			Help: "Reads and writes of devices, by protocol and result: ok, or why the device failed.",
		}, []string{"protocol", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "whimbrel_mapper_request_seconds",
			Help:    "How long reads and writes of devices took.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		overruns: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "whimbrel_mapper_cycle_overruns_total",
			Help: "Poll cycles skipped because an earlier one was still under way.",
		}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.requests.Describe(ch)
	m.seconds.Describe(ch)
	m.overruns.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.requests.Collect(ch)
	m.seconds.Collect(ch)
	m.overruns.Collect(ch)
}

// counting is a Runner's view of Metrics. The zero counting counts nothing.
type counting struct {
	metrics  *Metrics
	protocol string
	ok       prometheus.Counter // looked up once: it is counted every cycle
}

func newCounting(m *Metrics, protocol string) counting {
	if m == nil {
		return counting{}
	}
	return counting{metrics: m, protocol: protocol, ok: m.requests.WithLabelValues(protocol, "ok")}
}

// request counts one read or write. reason is ReasonNone when it succeeded.
func (c *counting) request(reason models.Reason, took time.Duration) {
	if c.metrics == nil {
		return
	}
	c.metrics.seconds.Observe(took.Seconds())
	if reason == models.ReasonNone {
		c.ok.Inc()
		return
	}
	c.metrics.requests.WithLabelValues(c.protocol, string(reason)).Inc()
}

func (c *counting) overrun(ticks int) {
	if c.metrics != nil && ticks > 0 {
		c.metrics.overruns.Add(float64(ticks))
	}
}
