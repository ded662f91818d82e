package edgeruntime

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/outbox"
)

var (
	outboxRecords = prometheus.NewDesc("whimbrel_edge_outbox_records", "Records that wait for the hub.", nil, nil)
	outboxBytes   = prometheus.NewDesc("whimbrel_edge_outbox_bytes", "Bytes of the records that wait for the hub.", nil, nil)
	droppedTotal  = prometheus.NewDesc("whimbrel_edge_dropped_total", "Samples dropped since the start, by reason.", []string{"reason"}, nil)
	linkLag       = prometheus.NewDesc("whimbrel_link_lag_seconds", "Age of the oldest record that the hub has not acknowledged, 0 when there is none.", nil, nil)
)

// outboxCollector shows how an outbox is doing.
type outboxCollector struct{ outbox *outbox.Outbox }

// Describe implements prometheus.Collector.
func (outboxCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{outboxRecords, outboxBytes, droppedTotal, linkLag} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c outboxCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.outbox.Stats()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(outboxRecords, float64(s.Records))
	gauge(outboxBytes, float64(s.Bytes))
	lag := 0.0
	if !s.Oldest.IsZero() {
		lag = max(0, time.Since(s.Oldest).Seconds())
	}
	gauge(linkLag, lag)
	for _, reason := range slices.Sorted(maps.Keys(s.DroppedBy)) {
		ch <- prometheus.MustNewConstMetric(droppedTotal, prometheus.CounterValue, float64(s.DroppedBy[reason]), reason)
	}
}

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "whimbrel_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version}})
	g.Set(1)
	return g
}
