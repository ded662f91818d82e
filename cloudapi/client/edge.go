package client

import (
	"errors"
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

var errEdge = models.Errorf(models.KindMalformed, "this is the API of an edge, which serves twins, reads and recordings of its devices, and logs and commands of its pods, alone; ask the hub (--context FILE, --server URL)")

// AtEdge reports whether an error says that the server is an edge, which does not
// have what it was asked for.
func AtEdge(err error) bool { return errors.Is(err, errEdge) }

// atEdge is a request as an edge's local API takes it, which has twins and
// recordings of the devices that it serves, and what is to be seen of its pods, in
// the hub's form under other paths.
func atEdge(r Request) (Request, error) {
	if rest, ok := strings.CutPrefix(r.Path, Prefix+"/pods"); ok && r.Method == http.MethodGet && (rest == "" || strings.HasSuffix(rest, "/log") || strings.HasSuffix(rest, "/exec")) {
		r.Path = "/v1/pods" + rest
		return r, nil
	}
	id, what, _ := strings.Cut(strings.TrimPrefix(r.Path, Prefix+"/devices/"), "/")
	switch r.Method + " " + what {
	case "GET twin", "PATCH twin/desired", "POST read", "GET recording":
	default:
		return r, errEdge
	}
	if namespace := r.Query.Get("namespace"); namespace != "" && namespace != models.DefaultNamespace {
		id = namespace + "." + id
	}
	r.Query = maps.Clone(r.Query)
	r.Query.Del("namespace")
	r.Path = fmt.Sprintf("/v1/devices/%s/%s", id, what)
	return r, nil
}
