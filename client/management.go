package client

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gantry/upload"
)

// DefaultManagementURL is where a server's management listener is unless it is told otherwise.
const DefaultManagementURL = "http://127.0.0.1:8081"

// Management is the operator's side of a server: its management listener.
type Management struct{ c *Client }

// NewManagement is New for the address of a management listener; "" is DefaultManagementURL.
func NewManagement(opt Options) (*Management, error) {
	opt.BaseURL = cmp.Or(opt.BaseURL, DefaultManagementURL)
	c, err := New(opt)
	if err != nil {
		return nil, err
	}
	return &Management{c}, nil
}

// Close releases idle connections.
func (m *Management) Close() { m.c.Close() }

// AdminTransfer is a transfer as an operator sees it.
type AdminTransfer struct {
	Transfer
	BlobID    string    `json:"blob_id"`
	Node      string    `json:"node"`
	Store     string    `json:"store"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Transfers lists the newest transfers, at most 1000, of the states given or of all.
func (m *Management) Transfers(ctx context.Context, states ...upload.TransferState) ([]AdminTransfer, error) {
	query := url.Values{"limit": {"1000"}}
	if len(states) > 0 {
		names := make([]string, len(states))
		for i, s := range states {
			names[i] = string(s)
		}
		query.Set("state", strings.Join(names, ","))
	}
	var p page[AdminTransfer]
	err := m.c.call(ctx, request{method: http.MethodGet, path: "/transfers", query: query}, &p)
	return p.Items, err
}

// RetryTransfer makes a transfer due now that is waiting, dead or cancelled.
func (m *Management) RetryTransfer(ctx context.Context, id string) (AdminTransfer, error) {
	return m.change(ctx, id, "retry")
}

// CancelTransfer stops a transfer that is not stored yet; its bytes stay in staging.
func (m *Management) CancelTransfer(ctx context.Context, id string) (AdminTransfer, error) {
	return m.change(ctx, id, "cancel")
}

func (m *Management) change(ctx context.Context, id, what string) (AdminTransfer, error) {
	var t AdminTransfer
	err := m.c.call(ctx, request{method: http.MethodPost, path: "/transfers/" + url.PathEscape(id) + "/" + what}, &t)
	return t, err
}

// Node is an upload node as an operator sees it.
type Node struct {
	ID       string    `json:"id"`
	Address  string    `json:"address"`
	State    string    `json:"state"` // alive, away, stopped or forgotten
	SeenAt   time.Time `json:"seen_at"`
	Stranded int64     `json:"stranded"` // contents that only it has and that cannot be reached
}

// Nodes lists the nodes of the cluster; none where there is no cluster.
func (m *Management) Nodes(ctx context.Context) ([]Node, error) {
	var p page[Node]
	err := m.c.call(ctx, request{method: http.MethodGet, path: "/nodes"}, &p)
	return p.Items, err
}

// ForgetNode gives a node up that will never be back, and returns how many contents are lost with it.
func (m *Management) ForgetNode(ctx context.Context, id string) (lost int64, err error) {
	var answer struct {
		Lost int64 `json:"lost"`
	}
	err = m.c.call(ctx, request{method: http.MethodPost, path: "/nodes/" + url.PathEscape(id) + "/forget"}, &answer)
	return answer.Lost, err
}
