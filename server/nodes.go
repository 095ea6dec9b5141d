package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/meta"
	"gantry/upload"
)

// Nodes is what the operator's calls need of the registry; meta.Nodes has it.
type Nodes interface {
	Nodes(ctx context.Context) ([]meta.Node, error)
	Forget(ctx context.Context, id string, now time.Time) (int64, error)
}

// nodeJSON is a node as an operator sees it.
type nodeJSON struct {
	ID       string    `json:"id"`
	Address  string    `json:"address"`
	State    string    `json:"state"`
	SeenAt   time.Time `json:"seen_at"`
	Stranded int64     `json:"stranded"`
}

// nodeQuiet is after how long without a word a node is shown as away. It is only shown: what the nodes
// themselves do does not depend on clocks.
const nodeQuiet = 30 * time.Second

func viewNode(n *meta.Node, now time.Time) nodeJSON {
	state := "alive"
	switch {
	case n.Forgotten:
		state = "forgotten"
	case n.Left:
		state = "stopped"
	case now.Sub(n.SeenAt) > nodeQuiet:
		state = "away"
	}
	return nodeJSON{n.ID, n.Address, state, n.SeenAt.UTC(), n.Stranded}
}

func (m *management) nodes(c echo.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	list, err := m.Nodes.Nodes(c.Request().Context())
	if err != nil {
		return err
	}
	items := make([]nodeJSON, len(list))
	for i := range list {
		items[i] = viewNode(&list[i], time.Now())
	}
	return writeJSON(c, http.StatusOK, struct {
		Items []nodeJSON `json:"items"`
	}{items})
}

// forgetNode gives a node up. One that is alive is not: it would go on acknowledging what nobody finds.
func (m *management) forgetNode(c echo.Context) error {
	ctx, id := c.Request().Context(), c.Param("id")
	list, err := m.Nodes.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(n meta.Node) bool { return n.ID == id })
	if i < 0 {
		return upload.Errorf(upload.NotFound, "server.forgetNode", id, "There is no such node. Look at the list of nodes.")
	}
	if viewNode(&list[i], time.Now()).State == "alive" {
		return upload.Errorf(upload.Conflict, "server.forgetNode", id, "The node is alive. Look at the list of nodes; to give this one up, stop it first.")
	}
	lost, err := m.Nodes.Forget(ctx, id, time.Now())
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, struct {
		Lost int64 `json:"lost"`
	}{lost})
}
