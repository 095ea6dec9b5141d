package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"gantry/upload"
)

// metrics counts requests. Labels are bounded: routes are templates, never addresses.
type metrics struct {
	requests *prometheus.HistogramVec
	chunks   prometheus.Gauge
	chunk    prometheus.Histogram
	finish   prometheus.Histogram
	forward  *prometheus.CounterVec // result: passed, failed
	streams  prometheus.Gauge
	events   prometheus.Counter
	resyncs  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_server_request_duration_seconds", Help: "How long requests took, bodies included.",
			Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"method", "route", "code"}),
		chunks: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gantry_chunk_requests_in_flight", Help: "Chunks being received.",
		}),
		chunk: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_chunk_write_duration_seconds", Help: "From the first byte of a chunk to its acknowledgement.",
			Buckets:                         []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
		finish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_finish_duration_seconds", Help: "How long successful calls of complete took.",
			Buckets:                         []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
	}
	m.forward = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gantry_forwarded_requests_total", Help: "Requests passed on to the node that has what they are about.",
	}, []string{"result"})
	m.streams = prometheus.NewGauge(prometheus.GaugeOpts{Name: "gantry_event_streams", Help: "Clients that are being told what happens."})
	m.events = prometheus.NewCounter(prometheus.CounterOpts{Name: "gantry_events_sent_total", Help: "Events that clients were told."})
	m.resyncs = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gantry_event_resyncs_total", Help: "Times that a client was told to read the listings: when it begins, and when it missed events.",
	})
	if reg != nil {
		reg.MustRegister(m.requests, m.chunks, m.chunk, m.finish, m.forward, m.streams, m.events, m.resyncs)
	}
	return m
}

func (m *metrics) forwarded(err error) {
	result := "passed"
	if err != nil {
		result = "failed"
	}
	m.forward.WithLabelValues(result).Inc()
}

func (m *metrics) observe(c echo.Context, failure upload.Kind, start time.Time) {
	w, method, route := c.Response(), c.Request().Method, c.Path()
	status := w.Status
	if failure == upload.Canceled {
		status = statusClientGone
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "other"
	}
	if route == "" {
		route = "unknown"
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Observe(time.Since(start).Seconds())
}
