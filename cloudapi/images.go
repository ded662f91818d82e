package cloudapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

type imageList struct {
	Kind     string      `json:"kind"`
	Metadata listMeta    `json:"metadata"`
	Items    []oci.Image `json:"items"`
}

type pruneAnswer struct {
	Removed int   `json:"removed"` // manifests
	Freed   int64 `json:"freed"`   // bytes
}

func (a *api) imageRoutes() []route {
	if a.Images == nil {
		return nil
	}
	return []route{
		{a.schemas.imagesOp(), models.Viewer, a.listImages},
		{a.schemas.pruneImagesOp(), models.Admin, a.pruneImages},
	}
}

func (a *api) listImages(c *call) (answer, error) {
	all, err := a.Images.List()
	if err != nil {
		return answer{}, err
	}
	all = slices.DeleteFunc(all, func(i oci.Image) bool { return c.caller.mayImages(models.Viewer, i.Repository) != nil })
	return answer{status: http.StatusOK, body: imageList{Kind: "ImageList", Items: append([]oci.Image{}, all...)}}, nil
}

func (a *api) pruneImages(c *call) (answer, error) {
	if err := c.caller.may(models.Admin, models.AllNamespaces); err != nil {
		return answer{}, err
	}
	removed, freed, err := a.Images.Prune(c.Context(), c.caller.Name)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: pruneAnswer{removed, freed}}, nil
}

func (s schemas) imagesOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/images", "listImages", "List the container images that the hub keeps", nil,
		map[string]*huma.Response{"200": ok("By repository and tag; manifests without a tag last, and none that is part of another.", schemaFor[imageList](s))})
	o.Tags = []string{"images"}
	return s.problems(o)
}

func (s schemas) pruneImagesOp() huma.Operation {
	o := op(http.MethodPost, Prefix+"/images/prune", "pruneImages", "Remove images without a tag that no app names by digest", nil,
		map[string]*huma.Response{"200": ok("What was removed. What came within the last hour stays.", schemaFor[pruneAnswer](s))})
	o.Tags = []string{"images"}
	return s.problems(o)
}

// registryOps are for the document only: ServeHTTP takes these requests before the
// router. The protocol is described elsewhere, once and for all registries.
func (s schemas) registryOps() (ops []*huma.Operation) {
	for _, at := range []struct {
		path, id, summary string
		methods           []string
	}{
		{"/v2/", "registry", "Is this an image registry?", []string{http.MethodGet}},
		{"/v2/_catalog", "registryCatalog", "List repositories", []string{http.MethodGet}},
		{"/v2/{name}/tags/list", "registryTags", "List a repository's tags", []string{http.MethodGet}},
		{"/v2/{name}/manifests/{reference}", "registryManifest", "A manifest by its tag or digest", []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}},
		{"/v2/{name}/blobs/{digest}", "registryBlob", "A blob", []string{http.MethodGet, http.MethodHead, http.MethodDelete}},
		{"/v2/{name}/blobs/uploads/", "registryUploads", "Begin an upload, or mount a blob", []string{http.MethodPost}},
		{"/v2/{name}/blobs/uploads/{id}", "registryUpload", "An upload", []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}},
	} {
		for _, method := range at.methods {
			params := []*huma.Param{}
			for _, p := range []struct{ name, description string }{
				{"name", "Of a repository; it may have any number of segments."}, {"reference", "A tag, or sha256:…"}, {"digest", "sha256:…"}, {"id", "Of an upload."},
			} {
				if strings.Contains(at.path, "{"+p.name+"}") {
					params = append(params, param("path", p.name, p.description, text()))
				}
			}
			o := op(method, at.path, at.id+"By"+method, at.summary, params, map[string]*huma.Response{"default": {
				Description: "As the OCI distribution specification has it, errors included. Besides a Bearer token, Basic authentication is taken with the user's name and the token as its password."}})
			o.Tags = []string{"image registry"}
			ops = append(ops, &o)
		}
	}
	return ops
}
