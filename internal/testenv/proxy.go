package testenv

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy is the network between a process and a server, which the test may harm.
type Proxy struct {
	t     testing.TB
	proxy *toxiproxy.Proxy

	mu  sync.Mutex
	cut bool
}

// NewProxy puts a network before the server at a host and port. It is taken down when the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{t: t, proxy: toxiproxy.NewProxy(server, target, "127.0.0.1:0", target)}
	if err := p.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.cut {
			p.proxy.Stop()
		}
	})
	return p
}

// Address is the host and port by which the server is reached through the network.
func (p *Proxy) Address() string { return p.proxy.Listen }

// Refuse ends all connections and lets nobody connect.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.proxy.Stop()
		p.cut = true
	}
}

// Hold lets nothing through in either direction, and ends nothing: as a cable that is pulled. What is under way
// arrives after Heal.
func (p *Proxy) Hold() { p.poison("timeout", `"timeout":0`) }

// Slow delays everything.
func (p *Proxy) Slow(by time.Duration) {
	p.poison("latency", fmt.Sprintf(`"latency":%d,"jitter":%d`, by.Milliseconds(), by.Milliseconds()/2))
}

func (p *Proxy) poison(kind, attributes string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stream := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"type":%q,"name":"%s-%s","stream":%q,"attributes":{%s}}`, kind, kind, stream, stream, attributes)
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			p.t.Errorf("cannot harm the network: %v", err)
		}
	}
}

// Heal makes the network whole again.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		if err := p.proxy.Start(); err != nil {
			p.t.Errorf("cannot heal the network: %v", err)
			return
		}
		p.cut = false
	}
	p.proxy.Toxics.ResetToxics(p.t.Context())
}
