package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"gantry/upload"
)

func TestManagement(t *testing.T) {
	reg := prometheus.NewRegistry()
	n := newNode(t, Options{Metrics: reg, Log: slog.New(slog.DiscardHandler)})
	var broken, away error
	woken := 0
	deps := ManagementDeps{
		Transfers: n.db, Nodes: n.db, Registry: reg, Version: "v1.2.3", Health: n.staging.Health, Wake: func() { woken++ },
		Checks: []Check{
			{Name: "database", Run: n.db.Ping},
			{Name: "other", Run: func(context.Context) error { return broken }},
			{Name: "queue", Run: func(context.Context) error { return away }, Advisory: true},
		},
	}
	m := serveHandler(t, n.server.Management(deps))
	if a := m.do("GET", "/healthz", nil).want(t, 200, ""); a.body != "ok\n" {
		t.Errorf("healthz: %q", a.body)
	}
	if a := m.do("GET", "/readyz", nil).want(t, 200, ""); a.body != `{"ready":true,"checks":[{"name":"serving","ok":true},{"name":"database","ok":true},{"name":"other","ok":true},{"name":"queue","ok":true}]}`+"\n" {
		t.Errorf("readyz: %s", a.body)
	}
	away = errors.New("no broker")
	if a := m.do("GET", "/readyz", nil).want(t, 200, ""); !strings.Contains(a.body, `{"name":"queue","ok":false,"reason":"no broker"}`) {
		t.Errorf("readyz: %s", a.body)
	}
	broken = errors.New("on fire")
	if a := m.do("GET", "/readyz", nil).want(t, 503, ""); !strings.Contains(a.body, `{"name":"other","ok":false,"reason":"on fire"}`) {
		t.Errorf("readyz: %s", a.body)
	}
	m.do("GET", "/healthz", nil).want(t, 200, "") // alive, though not ready

	// Probes are for other machines, under whatever name they know this one, and change nothing.
	probes := serveHandler(t, n.server.Probes(deps))
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200, "/transfers": 404, "/nodes": 404, "/debug/pprof/": 404} {
		probes.do("GET", path, nil, "Host: gantry-0.example").want(t, want, "")
	}
	m.do("GET", "/healthz", nil, "Host: gantry-0.example").want(t, 403, "")
	broken = nil
	n.server.Drain()
	if a := m.do("GET", "/readyz", nil).want(t, 503, ""); !strings.Contains(a.body, `{"name":"serving","ok":false`) {
		t.Errorf("readyz while stopping: %s", a.body)
	}

	n.open(10)
	file := n.storeFile("a", []byte("abc"))
	id := file.Transfer.ID
	n.do("GET", "/v1/files/"+file.ID+"?secret=x", nil).want(t, 200, "")
	n.do("GET", "/v1/no/such/route/"+file.ID, nil).want(t, 404, "")
	n.do("BREW", "/v1/files", nil).want(t, 405, "")
	metrics := m.do("GET", "/metrics", nil).want(t, 200, "").body
	for _, want := range []string{
		`http_server_request_duration_seconds_count{code="200",method="GET",route="/v1/files/:id"} 1`,
		`http_server_request_duration_seconds_count{code="404",method="GET",route="unknown"} 1`,
		`http_server_request_duration_seconds_count{code="405",method="other",route="/v1/files"} 1`,
		`http_server_request_duration_seconds_count{code="201",method="POST",route="/v1/files"} 1`,
		"gantry_transfer_queue_depth 1", "gantry_transfer_dead 0", "gantry_transfer_oldest_age_seconds", "gantry_uploads_in_progress 1",
		"gantry_staging_free_bytes", "gantry_staging_writable 1", "gantry_staging_reserved_bytes", "gantry_chunk_requests_in_flight 0",
		"gantry_build_info{goversion=", `version="v1.2.3"`, "go_goroutines", "gantry_finish_duration_seconds_count 0",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has not %s", want)
		}
	}
	if strings.Contains(metrics, file.ID) {
		t.Error("/metrics has ids: unbounded labels")
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}

	a := m.do("GET", "/transfers", nil).want(t, 200, "")
	if !strings.Contains(a.body, `"id":"`+id+`","state":"queued"`) || !strings.Contains(a.body, `"store":"local"`) {
		t.Errorf("transfers: %s", a.body)
	}
	for query, status := range map[string]int{
		"state=queued": 200, "state=dead,stored&state=running": 200, "state=": 400, "state=x": 400, "state=queued,": 400, "limit=0": 400, "limit=5": 200,
	} {
		m.do("GET", "/transfers?"+query, nil).want(t, status, "")
	}
	if a := m.do("POST", "/transfers/"+id+"/cancel", nil).want(t, 200, ""); !strings.Contains(a.body, `"state":"cancelled"`) {
		t.Errorf("cancel: %s", a.body)
	}
	if a := m.do("POST", "/transfers/"+id+"/retry", nil).want(t, 200, ""); !strings.Contains(a.body, `"id":"`+id) || woken == 0 {
		t.Errorf("retry: %s, woken %d", a.body, woken)
	}
	n.transfer()
	m.do("POST", "/transfers/"+id+"/cancel", nil).want(t, 409, "conflict")
	m.do("POST", "/transfers/"+id+"/retry", nil).want(t, 409, "conflict")
	m.do("POST", "/transfers/x/cancel", nil).want(t, 404, "not_found")
	m.do("POST", "/transfers/x/retry", nil).want(t, 404, "not_found")

	m.do("GET", "/debug/pprof/", nil).want(t, 200, "")
	m.do("GET", "/debug/pprof/heap", nil).want(t, 200, "")
	m.do("GET", "/debug/pprof/cmdline", nil).want(t, 200, "")
	m.do("GET", "/docs", nil).want(t, 404, "not_found")
}

func TestManagementFailures(t *testing.T) {
	s := New(&stub{}, Options{})
	for err, code := range map[error]string{
		errors.New("broken"): "internal", upload.Unavailable: "unavailable",
	} {
		m := serveHandler(t, newManagement(t, s, stubTransfers{err}))
		status := problemOf(err).Status
		m.do("GET", "/transfers", nil).want(t, status, code)
		m.do("POST", "/transfers/1/retry", nil).want(t, status, code)
		m.do("POST", "/transfers/1/cancel", nil).want(t, status, code)
		m.do("GET", "/nodes", nil).want(t, status, code)
		m.do("POST", "/nodes/1/forget", nil).want(t, status, code)
		// What cannot be known is left out; the rest of the metrics is there.
		if a := m.do("GET", "/metrics", nil).want(t, 200, ""); strings.Contains(a.body, "gantry_transfer_queue_depth") || !strings.Contains(a.body, "gantry_build_info") {
			t.Errorf("metrics: %.200s", a.body)
		}
	}
}

func TestReadinessChecksThatHang(t *testing.T) {
	s := New(&stub{}, Options{})
	h := s.Management(ManagementDeps{Transfers: stubTransfers{}, Nodes: stubNodes{}, Registry: prometheus.NewRegistry(), CheckTimeout: testWindow, Checks: []Check{
		{Name: "hangs", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{Name: "fine", Run: func(context.Context) error { return nil }},
	}})
	m := serveHandler(t, h)
	if a := m.do("GET", "/readyz", nil).want(t, 503, ""); !strings.Contains(a.body, `{"name":"hangs","ok":false`) || !strings.Contains(a.body, `{"name":"fine","ok":true}`) {
		t.Errorf("readyz: %s", a.body)
	}
}

func TestManagementForAnyHost(t *testing.T) {
	s := New(&stub{}, Options{})
	h := s.Management(ManagementDeps{Transfers: stubTransfers{}, Nodes: stubNodes{}, Registry: prometheus.NewRegistry(), AnyHost: true})
	m := serveHandler(t, h)
	m.do("GET", "/healthz", nil, "Host: gantry-0.gantry:8081").want(t, 200, "")
	m.do("POST", "/transfers/1/cancel", nil, "Host: gantry-0.gantry:8081", "Origin: http://evil.example").want(t, http.StatusForbidden, "forbidden")
}

func TestManagedNodes(t *testing.T) {
	n := newNode(t, Options{})
	m := serveHandler(t, n.server.Management(ManagementDeps{Transfers: n.db, Nodes: n.db, Registry: prometheus.NewRegistry(), Version: "test"}))
	if a := m.do("GET", "/nodes", nil).want(t, 200, ""); a.body != `{"items":[]}`+"\n" {
		t.Errorf("no nodes: %s", a.body)
	}
	long := time.Now().Add(-time.Hour)
	for id, at := range map[string]time.Time{"n1": long, "n2": time.Now(), "n3": time.Now()} {
		if _, err := n.db.Join(t.Context(), id, "http://"+id, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.db.Leave(t.Context(), "n3", 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	file := n.storeFile("a", []byte("abc")) // on n1
	m.do("GET", "/nodes?a=%zz", nil).want(t, 400, "invalid_request")
	m.do("POST", "/nodes/n1/forget", nil, "Origin: http://evil.example").want(t, 403, "forbidden")
	m.do("POST", "/nodes/n2/forget", nil).want(t, 409, "conflict")
	m.do("POST", "/nodes/n9/forget", nil).want(t, 404, "not_found")
	n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "")
	if a := m.do("POST", "/nodes/n1/forget", nil).want(t, 200, ""); a.body != `{"lost":1}`+"\n" {
		t.Errorf("forget: %s", a.body)
	}
	n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 410, "gone")
	a := m.do("GET", "/nodes?", nil).want(t, 200, "")
	for _, want := range []string{`"id":"n1","address":"http://n1","state":"forgotten"`, `"id":"n2","address":"http://n2","state":"alive"`, `"id":"n3","address":"http://n3","state":"stopped"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
}
