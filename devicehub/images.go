package devicehub

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/devicehub/images"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// Images is what users do with images.
type Images struct {
	*images.Store
	h *Hub
}

// Images returns the hub's, nil when it keeps none.
func (h *Hub) Images() *Images {
	if h.images == nil {
		return nil
	}
	return &Images{h.images, h}
}

// Prune removes what has no tag and is named by no app's template, nor by one that
// a rollout could go back to.
func (i *Images) Prune(ctx context.Context, by string) (removed int, freed int64, err error) {
	used := map[digest.Digest]bool{}
	for _, name := range i.h.Registry.ImagesNamed() {
		if ref, err := oci.ParseReference(name); err == nil && ref.Digest != "" {
			used[ref.Digest] = true
		}
	}
	return i.Store.Prune(ctx, func(_ string, d digest.Digest) bool { return used[d] }, by)
}

// auditImage records a change of an image.
func (h *Hub) auditImage(ctx context.Context, c images.Change) error {
	action := store.AuditCreated
	if c.Deleted {
		action = store.AuditDeleted
	}
	return h.cfg.Store.AppendAudit(context.WithoutCancel(ctx), []store.AuditEntry{{Time: h.now(), By: c.By, Action: action, Kind: "Image", Name: c.Name, UID: c.Digest.String()}})
}

// streamImage serves a node that fetches an image which one of its pods names.
func (h *Hub) streamImage(ctx context.Context, node string, head bulk.Header, stream *bulk.Stream) error {
	var wanted bulk.ImageWanted
	if err := json.Unmarshal(head.Body, &wanted); err != nil {
		return models.Errorf(models.KindMalformed, "the request cannot be read: %v", err)
	}
	if h.images == nil {
		return models.Errorf(models.KindNotFound, "this hub keeps no images")
	}
	if !h.Registry.RunsImage(node, wanted.Reference) {
		return models.Errorf(models.KindForbidden, "node %s runs no pod with the image %.200q", node, wanted.Reference)
	}
	ref, err := oci.ParseReference(wanted.Reference)
	if err != nil {
		return err
	}
	repo, m, own, err := h.images.Resolve(ref, func(host string) bool { return h.cfg.ImageHosts != nil && h.cfg.ImageHosts(host) })
	if models.KindOf(err) == models.KindNotFound && own {
		// Nobody else has it: the edge is not to ask a registry.
		err = models.Errorf(models.KindGone, "%v", err)
	}
	if err != nil {
		return h.elsewhere(ctx, err)
	}
	if err := stream.Accept(); err != nil {
		return err
	}
	bulk.ServeHTTP(ctx, stream, &imageParts{h, repo, m})
	return nil
}

// imageParts answers requests for one image: GET /manifest, of the image itself;
// GET /manifests/DIGEST, where that is an index; GET /blobs/DIGEST, also in part.
type imageParts struct {
	h    *Hub
	repo string
	root oci.Stored
}

// ServeHTTP implements http.Handler.
func (p *imageParts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := p.serve(w, r); err != nil {
		status, text := oci.Document(err)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(text) // a peer that is gone learns nothing
	}
}

func (p *imageParts) serve(w http.ResponseWriter, r *http.Request) error {
	what, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if what == "manifest" && name == "" {
		p.manifest(w, p.root)
		return nil
	}
	d, err := oci.ParseDigest(name)
	if err != nil {
		return err
	}
	switch what {
	case "manifests":
		m, err := p.h.images.Find(p.repo, d.String())
		if err == nil {
			p.manifest(w, m)
		}
		return p.h.elsewhere(r.Context(), err)
	case "blobs":
		blob, err := p.h.images.OpenBlob(p.repo, d)
		if err != nil {
			return p.h.elsewhere(r.Context(), err)
		}
		defer blob.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, blob)
		return nil
	}
	return oci.Errorf(oci.CodeUnsupported, "there is nothing at this path")
}

func (p *imageParts) manifest(w http.ResponseWriter, m oci.Stored) {
	w.Header().Set("Content-Type", m.MediaType)
	w.Header().Set("Docker-Content-Digest", m.Digest.String())
	_, _ = w.Write(m.Text) // a peer that is gone learns nothing
}
