package ingest

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the use cases do.
type Metrics struct {
	created       prometheus.Counter
	finished      *prometheus.CounterVec // result: stored, instant, cancelled, expired, rejected
	received      prometheus.Counter
	direct        prometheus.Counter
	saved         prometheus.Counter
	scrubbed      prometheus.Counter
	scrubFailures prometheus.Counter
	checks        *prometheus.CounterVec // stage: hint, challenge, proof; result: hit, miss, fail
}

// NewMetrics registers the counters with reg; nil: they count unseen.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		created:       prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_uploads_created_total", Help: "Uploads begun."}),
		finished:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gantry_uploads_finished_total", Help: "Uploads that ended, by how."}, []string{"result"}),
		received:      prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_received_bytes_total", Help: "Bytes of acknowledged chunks and files."}),
		direct:        prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_direct_bytes_total", Help: "Bytes of direct uploads, which clients sent to a store by themselves."}),
		saved:         prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_dedup_saved_bytes_total", Help: "Bytes not received thanks to instant upload."}),
		scrubbed:      prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_scrubbed_bytes_total", Help: "Bytes in stores that were read again and are right."}),
		scrubFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_scrub_failures_total", Help: "Objects in stores that were read again and are gone or wrong."}),
		checks:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gantry_dedup_checks_total", Help: "Questions whether content is known, by stage and result."}, []string{"stage", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.created, m.finished, m.received, m.direct, m.saved, m.scrubbed, m.scrubFailures, m.checks)
	}
	return m
}

func (m *Metrics) check(stage string, hit bool) {
	result := "miss"
	if hit {
		result = "hit"
	}
	m.checks.WithLabelValues(stage, result).Inc()
}
