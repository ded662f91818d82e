package cli

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// hub is what the commands need of a hub. Errors that it answered are
// *models.Error; any other means that it could not be asked.
type hub interface {
	Get(ctx context.Context, key models.Key) (models.Object, error)
	// List returns every object that o chooses, all pages of it.
	List(ctx context.Context, o selection) (models.List, error)
	// Apply makes an object be as o says: it replaces the one there is.
	Apply(ctx context.Context, o models.Object) (stored models.Object, created bool, err error)
	// Replace replaces an object that must be of a resourceVersion still.
	Replace(ctx context.Context, o models.Object, version string) error
	// Create makes an object that must not be there yet.
	Create(ctx context.Context, o models.Object) error
	// Patch changes an object by a merge patch, if it has the version still.
	Patch(ctx context.Context, key models.Key, patch []byte, version string) error
	Delete(ctx context.Context, key models.Key) error
	// Watch calls send with every change after a resourceVersion ("": first with
	// all there is) until ctx ends or send fails. A connection that breaks is made
	// again. KindGone: the version is too old.
	Watch(ctx context.Context, o selection, resourceVersion string, send func(models.Event) error) error

	Twin(ctx context.Context, namespace, device string) (twin.Document, error)
	// TwinAt returns the twin as it was; with a uid that of a deleted device.
	TwinAt(ctx context.Context, namespace, device, uid string, at time.Time) (twin.Document, error)
	// PatchDesired returns the twin also with the error of a write that was
	// accepted and then not confirmed; ok says that there is one.
	PatchDesired(ctx context.Context, namespace, device string, patch map[string]models.Value, o setOptions) (doc twin.Document, ok bool, err error)
	// ReadDevice reads properties from the device, now; nil for all.
	ReadDevice(ctx context.Context, namespace, device string, properties []string, wait time.Duration) (map[string]models.Reading, error)
	// RecordDevice writes what the device's mapper sees on the wire to w.
	RecordDevice(ctx context.Context, namespace, device string, length time.Duration, w io.Writer) error
	// Writes returns a device's ledger of writes, the newest first, and where it goes
	// on.
	Writes(ctx context.Context, namespace, device string, q models.LedgerQuery) (entries []twin.LedgerEntry, next string, err error)
	// BrowseDevice calls found with what a device offers.
	BrowseDevice(ctx context.Context, namespace, device string, found func(models.Found) error) error
	// StreamTwins calls send with the changed properties of every twin that
	// changes, at first with all of each, until ctx ends or send fails. A connection
	// that breaks is made again.
	StreamTwins(ctx context.Context, o selection, send func(twin.StreamChange) error) error

	// PodLog returns a container's log. It fails with something else than io.EOF when
	// it breaks off.
	PodLog(ctx context.Context, namespace, name string, o client.LogOptions) (io.ReadCloser, error)
	// Exec runs a command in a container, and returns its exit code. When ctx ends, so
	// does the command.
	Exec(ctx context.Context, namespace, name string, o client.ExecOptions) (int, error)

	// PublishRoute gives a route a message and returns the answer; a negative wait
	// leaves the waiting to the hub.
	PublishRoute(ctx context.Context, namespace, name, contentType string, payload []byte, wait time.Duration) (status int, answer []byte, err error)
	// DeadLetters returns all dead letters of a route, oldest first.
	DeadLetters(ctx context.Context, namespace, name string) ([]models.DeadLetter, error)
	ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error)
	DropDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error)

	// History calls send with every page of a property's history.
	History(ctx context.Context, namespace, device, property string, q models.HistoryQuery, send func(models.History) error) error
	// ExportHistory writes all of it to w in a media type of package client.
	ExportHistory(ctx context.Context, namespace, device, property string, q models.HistoryQuery, format string, w io.Writer) error

	// Events returns the latest events that o chooses.
	Events(ctx context.Context, o client.EventOptions) (models.LoggedEvents, error)
	// WatchEvents calls send with every event that is new or has changed after a
	// resourceVersion until ctx ends or send fails. A connection that breaks is made
	// again.
	WatchEvents(ctx context.Context, o client.EventOptions, resourceVersion string, send func(models.EventChange) error) error

	// Audit returns the latest entries of the audit that o chooses.
	Audit(ctx context.Context, o client.AuditOptions) (client.AuditPage, error)
	// WatchAudit calls send with every entry after a resourceVersion until ctx ends or
	// send fails. A connection that breaks is made again.
	WatchAudit(ctx context.Context, o client.AuditOptions, resourceVersion string, send func(models.AuditEntry) error) error

	// Images lists the images that the hub keeps.
	Images(ctx context.Context) ([]oci.Image, error)
	// HasBlob reports whether a repository has a blob.
	HasBlob(ctx context.Context, repo string, d digest.Digest) (bool, error)
	// PushBlob uploads one, and goes on where an earlier attempt was cut. sent is told
	// how much is there.
	PushBlob(ctx context.Context, repo string, d digest.Digest, size int64, open func(from int64) (io.ReadCloser, error), sent func(int64)) error
	PutManifest(ctx context.Context, repo, ref string, m oci.Stored) error
	// DeleteImage removes a tag, or by its digest an image with all of its tags.
	DeleteImage(ctx context.Context, repo, ref string) error
	PruneImages(ctx context.Context) (client.Pruned, error)

	CreateJoinToken(ctx context.Context, node string, ttl time.Duration) (client.Token, error)
	CreateUserToken(ctx context.Context, user string, ttl time.Duration) (client.Token, error)
	Tokens(ctx context.Context) ([]client.TokenInfo, error)
	DeleteToken(ctx context.Context, id string) error
}

// setOptions are the circumstances of a desired write.
type setOptions struct {
	Wait   time.Duration
	Expire time.Duration
	Reason string
}

// selection chooses objects of one kind.
type selection struct {
	kind      string
	namespace string // "" for every one that the user may see
	selector  string
}
