package devicehub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Hubs of one database, such as one that takes the place of another, have to share
// the folder of images, which nothing of the database shows. So each tells there
// which one it has, and whoever lacks an image sees whether that may be the reason.
const (
	foldersKey  = "images.folders"
	folderEvery = 12 * time.Hour
	folderLife  = 48 * time.Hour // after that long nobody has it any more
)

// folder is where a hub keeps images.
type folder struct {
	Where string    `json:"where"` // HOST:DIRECTORY
	Seen  time.Time `json:"seen"`
}

// runImages looks after the images until ctx ends.
func (h *Hub) runImages(ctx context.Context) error {
	done := make(chan error, 1)               // one end
	go func() { done <- h.images.Run(ctx) }() // ends with ctx, waited for below
	tick := time.NewTicker(folderEvery)
	defer tick.Stop()
	for {
		if other, ok, err := h.noteFolder(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("images: other hubs cannot be told where they are", "error", err)
		} else if ok {
			h.log.Warn("images: " + other.says())
		}
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
	}
}

// noteFolder tells other hubs which folder this one has, and returns another one that
// a hub of this database has, or had until lately.
func (h *Hub) noteFolder(ctx context.Context) (other folder, ok bool, err error) {
	dir, err := filepath.Abs(h.cfg.ImageDir)
	if err != nil {
		return folder{}, false, err
	}
	host, _ := os.Hostname() // "" then
	for {
		text, folders, err := h.folders(ctx)
		if err != nil {
			return folder{}, false, err
		}
		other, ok = h.otherFolder(folders)
		for id, f := range folders {
			if h.now().Sub(f.Seen) > folderLife {
				delete(folders, id)
			}
		}
		folders[h.images.ID()] = folder{Where: host + ":" + dir, Seen: h.now().UTC()}
		fresh, err := json.Marshal(folders)
		if err != nil {
			return folder{}, false, err
		}
		if bytes.Equal(text, fresh) {
			return other, ok, nil
		}
		if err := h.cfg.Store.SwapSecret(ctx, foldersKey, text, fresh); !errors.Is(err, identity.ErrConflict) {
			return other, ok, err
		}
	}
}

// folders are those that hubs of this database have told of.
func (h *Hub) folders(ctx context.Context) (text []byte, folders map[string]folder, err error) {
	folders = map[string]folder{}
	text, err = h.cfg.Store.Secret(ctx, foldersKey)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, folders, nil
	}
	if err == nil && json.Unmarshal(text, &folders) != nil {
		folders = map[string]folder{} // of a later release
	}
	return text, folders, err
}

func (h *Hub) otherFolder(folders map[string]folder) (other folder, ok bool) {
	for id, f := range folders {
		if id != h.images.ID() && h.now().Sub(f.Seen) <= folderLife && (!ok || f.Seen.After(other.Seen)) {
			other, ok = f, true
		}
	}
	return other, ok
}

func (f folder) says() string {
	return fmt.Sprintf("a hub of this database had its images at %s, last seen %s: give this hub that folder by --images, or push the image again",
		f.Where, f.Seen.Format(time.RFC3339))
}

// elsewhere adds to an error about an image that is not here that it may be with
// another hub.
func (h *Hub) elsewhere(ctx context.Context, err error) error {
	kind := models.KindOf(err)
	if kind != models.KindNotFound && kind != models.KindGone {
		return err
	}
	_, folders, bad := h.folders(ctx)
	other, ok := h.otherFolder(folders)
	if bad != nil || !ok {
		return err
	}
	var known *oci.Error
	if errors.As(err, &known) {
		return oci.Errorf(known.Code, "%s; %s", known.Detail, other.says())
	}
	return models.Errorf(kind, "%v; %s", err, other.says())
}
