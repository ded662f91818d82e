package cloudapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

type writeList struct {
	Kind     string             `json:"kind"`
	Metadata listMeta           `json:"metadata"`
	Items    []twin.LedgerEntry `json:"items"`
}

// writeStates are what a write in the ledger can be.
var writeStates = []string{string(twin.Pending), string(twin.Applied), string(twin.Failed), string(twin.Superseded), string(twin.Expired), string(twin.Unknown), "withdrawn"}

func (a *api) writeRoutes() []route {
	return []route{{a.schemas.writesOp(), models.Viewer, a.listWrites}}
}

func (a *api) listWrites(c *call) (answer, error) {
	namespace, name, err := c.device(models.Viewer)
	if err != nil {
		return answer{}, err
	}
	q := models.LedgerQuery{UID: c.query.Get("uid"), Property: c.query.Get("property"), State: c.query.Get("state")}
	if q.State != "" && !slices.Contains(writeStates, q.State) {
		return answer{}, models.BadParameter(models.KindInvalid, "state", "must be one of %s, got %.40q", strings.Join(writeStates, ", "), q.State)
	}
	if q.Since, err = c.moment("since", time.Time{}, time.Now()); err != nil {
		return answer{}, err
	}
	if q.Limit, q.Continue, err = c.page(); err != nil {
		return answer{}, err
	}
	entries, next, err := a.Twins.Writes(c.Context(), namespace, name, q)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: writeList{Kind: "WriteList", Metadata: listMeta{Continue: next}, Items: append([]twin.LedgerEntry{}, entries...)}}, nil
}
