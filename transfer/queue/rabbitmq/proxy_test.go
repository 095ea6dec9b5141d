package rabbitmq

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and the broker, and fails when it is told to.
type proxy struct {
	url      string // of the broker, by way of the proxy
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	goOn    *sync.Cond
	conns   map[net.Conn]bool
	broker  net.Conn // of the last client
	stalled bool     // the broker's answers are held back
	closed  bool
}

func newProxy(t *testing.T, broker string) *proxy {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal("the broker's address is no URL")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: u.Host, conns: map[net.Conn]bool{}}
	p.goOn = sync.NewCond(&p.mu)
	u.Host = listener.Addr().String()
	p.url = u.String()
	p.running.Go(p.serve)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = listener.Close()
		p.stall(false)
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		broker, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.add(client, broker) {
			return
		}
		p.running.Go(func() { p.copy(broker, client, false) })
		p.running.Go(func() { p.copy(client, broker, true) })
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
		p.broker = c
		if p.closed {
			_ = c.Close()
		}
	}
	return !p.closed
}

func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for answers && p.stalled {
			p.goOn.Wait()
		}
		p.mu.Unlock()
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// forget has the broker forget the last client's consumer, which is not told: the broker takes it for the client's wish.
func (p *proxy) forget(t *testing.T) {
	t.Helper()
	const noWait = 1
	method := append([]byte{0, 60, 0, 30, byte(len(consumerTag))}, consumerTag...) // basic.cancel
	method = append(method, noWait)
	frame := append([]byte{1, 0, 1, 0, 0, 0, byte(len(method))}, method...) // a method on channel 1
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.broker.Write(append(frame, 0xCE)); err != nil {
		t.Fatal(err)
	}
}

// stall holds the broker's answers back, or lets them go on.
func (p *proxy) stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = on
	p.goOn.Broadcast()
}
