package client

import (
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// edgeServer is what an edge's local API calls itself where it has nothing at a path.
const edgeServer = "whimbrel-edge"

// isEdge reports whether an answer says that the server is an edge, which has no
// such path.
func isEdge(resp *http.Response) bool {
	return resp.StatusCode == http.StatusNotFound && resp.Header.Get("Server") == edgeServer
}

// atEdge is a request as an edge's local API takes it, which has twins and
// recordings of the devices that it serves in the hub's form, under other paths.
func atEdge(r Request) (Request, error) {
	id, what, _ := strings.Cut(strings.TrimPrefix(r.Path, Prefix+"/devices/"), "/")
	switch r.Method + " " + what {
	case "GET twin", "PATCH twin/desired", "POST read", "GET recording":
	default:
		return r, models.Errorf(models.KindMalformed, "this is the API of an edge, which serves twins, reads and recordings of its devices alone; ask the hub (--context FILE, --server URL)")
	}
	if namespace := r.Query.Get("namespace"); namespace != "" && namespace != models.DefaultNamespace {
		id = namespace + "." + id
	}
	r.Query = maps.Clone(r.Query)
	r.Query.Del("namespace")
	r.Path = fmt.Sprintf("/v1/devices/%s/%s", id, what)
	return r, nil
}
