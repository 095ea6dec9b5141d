package server

import (
	"cmp"
	"context"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/upload"
)

// Transfers is what the operator's calls need of the outbox; meta.Outbox has it.
type Transfers interface {
	Transfer(ctx context.Context, id string) (upload.Transfer, error)
	Transfers(ctx context.Context, states []upload.TransferState, limit int) ([]upload.Transfer, error)
	RetryTransfer(ctx context.Context, id string, now time.Time) error
	CancelTransfer(ctx context.Context, id string, now time.Time) error
	Backlog(ctx context.Context, now time.Time) (meta.Backlog, error)
}

// Check is one condition of readiness.
type Check struct {
	Name     string
	Run      func(ctx context.Context) error // the error's text is shown on /readyz
	Advisory bool                            // shown; without it the process does its work all the same
}

// ManagementDeps is what the management listener shows and works on.
type ManagementDeps struct {
	Transfers Transfers
	Nodes     Nodes
	Wake      func()                   // tells the relay that a transfer was made due; may be nil
	Checks    []Check                  // of readiness, beside "serving"
	Health    func() chunkstore.Health // of staging, for the metrics; may be nil
	Registry  *prometheus.Registry     // what /metrics shows; Management adds to it
	Version   string                   // of the program
	AnyHost   bool                     // answer requests for any name, not only for loopback ones

	CheckTimeout time.Duration // of one readiness check; 5 s
}

const scrapeTimeout = 5 * time.Second // of a query made for /metrics

// management answers operators.
type management struct {
	server *Server
	ManagementDeps
}

// Management is health, metrics, profiles and transfers, for a listener of its own that outsiders do
// not reach. It may be called once per registry.
func (s *Server) Management(deps ManagementDeps) http.Handler {
	deps.CheckTimeout = cmp.Or(deps.CheckTimeout, 5*time.Second)
	m := &management{server: s, ManagementDeps: deps}
	m.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(deps.Version), &gauges{deps: deps})
	f := s.front()
	f.metrics = newMetrics(nil) // operators' requests are not the service's
	f.crossOrigin = http.NewCrossOriginProtection()
	f.loopbackOnly = !deps.AnyHost
	e := f.echo()
	m.observe(e)
	e.GET("/transfers", m.transfers)
	e.POST("/transfers/:id/retry", m.change(deps.Transfers.RetryTransfer))
	e.POST("/transfers/:id/cancel", m.change(deps.Transfers.CancelTransfer))
	e.GET("/nodes", m.nodes)
	e.POST("/nodes/:id/forget", m.forgetNode)
	e.GET("/debug/pprof/*", echo.WrapHandler(http.HandlerFunc(pprof.Index)))
	e.GET("/debug/pprof/cmdline", echo.WrapHandler(http.HandlerFunc(pprof.Cmdline)))
	e.GET("/debug/pprof/profile", echo.WrapHandler(http.HandlerFunc(pprof.Profile)))
	e.GET("/debug/pprof/symbol", echo.WrapHandler(http.HandlerFunc(pprof.Symbol)))
	e.POST("/debug/pprof/symbol", echo.WrapHandler(http.HandlerFunc(pprof.Symbol)))
	e.GET("/debug/pprof/trace", echo.WrapHandler(http.HandlerFunc(pprof.Trace)))
	return e
}

// Probes is health and metrics alone, for a listener that other machines may reach: nothing there changes
// anything. deps are those of Management, which has to be called before.
func (s *Server) Probes(deps ManagementDeps) http.Handler {
	deps.CheckTimeout = cmp.Or(deps.CheckTimeout, 5*time.Second)
	m := &management{server: s, ManagementDeps: deps}
	f := s.front()
	f.metrics = newMetrics(nil)
	e := f.echo()
	m.observe(e)
	return e
}

func (m *management) observe(e *echo.Echo) {
	e.GET("/healthz", func(c echo.Context) error { return c.String(http.StatusOK, "ok\n") })
	e.GET("/readyz", m.ready)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))
}

// readyJSON is the answer of /readyz.
type readyJSON struct {
	Ready  bool        `json:"ready"`
	Checks []checkJSON `json:"checks"`
}

type checkJSON struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// ready runs all checks at once, so that one that hangs does not hide the others.
func (m *management) ready(c echo.Context) error {
	answer := readyJSON{Ready: true, Checks: make([]checkJSON, len(m.Checks)+1)}
	answer.Checks[0] = checkJSON{Name: "serving", OK: !m.server.isDraining()}
	if !answer.Checks[0].OK {
		answer.Checks[0].Reason = "The server is stopping."
	}
	var wg sync.WaitGroup
	for i, check := range m.Checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.Request().Context(), m.CheckTimeout)
			defer cancel()
			result := checkJSON{Name: check.Name, OK: true}
			if err := check.Run(ctx); err != nil {
				result.OK, result.Reason = false, err.Error()
			}
			answer.Checks[i+1] = result
		})
	}
	wg.Wait()
	status := http.StatusOK
	for i, check := range answer.Checks {
		if !check.OK && (i == 0 || !m.Checks[i-1].Advisory) {
			answer.Ready, status = false, http.StatusServiceUnavailable
		}
	}
	return writeJSON(c, status, answer)
}

// adminTransferJSON is a transfer as an operator sees it.
type adminTransferJSON struct {
	transferJSON
	BlobID    string    `json:"blob_id"`
	Node      string    `json:"node"`
	Store     string    `json:"store"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func viewAdminTransfer(t *upload.Transfer) adminTransferJSON {
	return adminTransferJSON{viewTransfer(t), t.BlobID, t.Node, t.Store, t.CreatedAt.UTC(), t.UpdatedAt.UTC()}
}

// transferStates are the states that ?state= may name.
var transferStates = []upload.TransferState{
	upload.TransferQueued, upload.TransferRunning, upload.TransferVerifying, upload.TransferStored,
	upload.TransferRetrying, upload.TransferDead, upload.TransferCancelled,
}

func (m *management) transfers(c echo.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	limit, err := pageLimit(q)
	if err != nil {
		return err
	}
	var states []upload.TransferState
	for _, list := range q["state"] {
		for name := range strings.SplitSeq(list, ",") {
			state := upload.TransferState(name)
			if !slices.Contains(transferStates, state) {
				return upload.Errorf(upload.Invalid, "", "", "%.40q is not a state of a transfer. Choose one that /docs lists.", name)
			}
			states = append(states, state)
		}
	}
	list, err := m.Transfers.Transfers(c.Request().Context(), states, limit)
	if err != nil {
		return err
	}
	items := make([]adminTransferJSON, len(list))
	for i := range list {
		items[i] = viewAdminTransfer(&list[i])
	}
	return writeJSON(c, http.StatusOK, struct {
		Items []adminTransferJSON `json:"items"`
	}{items})
}

// change is retry or cancel: it answers with the transfer as it is then.
func (m *management) change(do func(ctx context.Context, id string, now time.Time) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, id := c.Request().Context(), c.Param("id")
		if err := do(ctx, id, time.Now()); err != nil {
			return err
		}
		if m.Wake != nil {
			m.Wake()
		}
		t, err := m.Transfers.Transfer(ctx, id)
		if err != nil {
			return err
		}
		return writeJSON(c, http.StatusOK, viewAdminTransfer(&t))
	}
}

func buildInfo(version string) prometheus.Collector {
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = setting.Value
			}
		}
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gantry_build_info", Help: "What this program was built from; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// gauges are looked up when /metrics is read.
type gauges struct{ deps ManagementDeps }

var (
	descDepth    = prometheus.NewDesc("gantry_transfer_queue_depth", "Transfers that are not done.", nil, nil)
	descDead     = prometheus.NewDesc("gantry_transfer_dead", "Transfers that need an operator.", nil, nil)
	descOldest   = prometheus.NewDesc("gantry_transfer_oldest_age_seconds", "Age of the oldest transfer that is not done.", nil, nil)
	descUploads  = prometheus.NewDesc("gantry_uploads_in_progress", "Open uploads.", nil, nil)
	descFree     = prometheus.NewDesc("gantry_staging_free_bytes", "Free bytes of the staging disk.", nil, nil)
	descReserved = prometheus.NewDesc("gantry_staging_reserved_bytes", "Bytes promised to open uploads and not yet received.", nil, nil)
	descWritable = prometheus.NewDesc("gantry_staging_writable", "1 if the node takes writes.", nil, nil)
)

// Describe lists the gauges.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDepth, descDead, descOldest, descUploads, descFree, descReserved, descWritable} {
		ch <- d
	}
}

// Collect asks for their values. What cannot be known now is left out.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	now := time.Now()
	if b, err := g.deps.Transfers.Backlog(ctx, now); err == nil {
		age := 0.0
		if !b.Oldest.IsZero() {
			age = max(0, now.Sub(b.Oldest).Seconds())
		}
		gauge(descDepth, float64(b.Waiting))
		gauge(descDead, float64(b.Dead))
		gauge(descOldest, age)
	}
	if g.deps.Health == nil {
		return
	}
	health := g.deps.Health()
	writable := 0.0
	if health.Writable {
		writable = 1
	}
	gauge(descUploads, float64(health.Open))
	gauge(descFree, float64(health.Free))
	gauge(descReserved, float64(health.Reserved))
	gauge(descWritable, writable)
}
