package redis

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics measures what Redis is asked.
type metrics struct {
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s servers) *metrics {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gantry_redis_duration_seconds", Help: "How long Redis took, by what it was asked.",
			Buckets:                         []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .1, .25, .5, 1, 2.5},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"call"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_redis_failures_total", Help: "Calls that Redis did not answer, or that were not made because it had just failed.",
		}, []string{"call"}),
	}
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gantry_redis_up", Help: "0 while Redis, or a master of the Cluster, is left alone because it failed.",
	}, func() float64 {
		if s.down() != nil {
			return 0
		}
		return 1
	})
	if reg != nil {
		reg.MustRegister(m.duration, m.failures, up)
	}
	return m
}

func (m *metrics) observe(call string, start time.Time, err error) {
	m.duration.WithLabelValues(call).Observe(time.Since(start).Seconds())
	if err != nil {
		m.failures.WithLabelValues(call).Inc()
	}
}
