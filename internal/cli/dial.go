package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Images implements hub.
func (r remote) Images(ctx context.Context) ([]oci.Image, error) { return r.c.Images(ctx) }

// HasBlob implements hub.
func (r remote) HasBlob(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	return r.c.HasBlob(ctx, repo, d)
}

// PushBlob implements hub.
func (r remote) PushBlob(ctx context.Context, repo string, d digest.Digest, size int64, open func(from int64) (io.ReadCloser, error), sent func(int64)) error {
	return r.c.PushBlob(ctx, repo, d, size, open, sent)
}

// PutManifest implements hub.
func (r remote) PutManifest(ctx context.Context, repo, ref string, m oci.Stored) error {
	return r.c.PutManifest(ctx, repo, ref, m)
}

// DeleteImage implements hub.
func (r remote) DeleteImage(ctx context.Context, repo, ref string) error {
	return r.c.DeleteImage(ctx, repo, ref)
}

// PruneImages implements hub.
func (r remote) PruneImages(ctx context.Context) (client.Pruned, error) { return r.c.PruneImages(ctx) }

// dial returns the hub at t. It does not connect yet.
func dial(t target) (hub, error) {
	c, err := client.New(t.Server, t.Token, t.CA)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", t.origin, err)
	}
	return remote{c}, nil
}

// remote is a hub behind its REST API.
type remote struct{ c *client.Client }

func (r remote) Get(ctx context.Context, key models.Key) (models.Object, error) {
	return r.c.Get(ctx, key)
}

func (o selection) options() client.ListOptions {
	return client.ListOptions{Namespace: o.namespace, LabelSelector: o.selector}
}

func (r remote) List(ctx context.Context, o selection) (models.List, error) {
	opts := o.options()
	all, err := r.c.List(ctx, o.kind, opts)
	for err == nil && all.Continue != "" {
		var page models.List
		opts.Continue = all.Continue
		page, err = r.c.List(ctx, o.kind, opts)
		// The version of the first page is the one to watch from: what changed since
		// is then told again, not missed.
		all.Items, all.Continue = append(all.Items, page.Items...), page.Continue
	}
	return all, err
}

func (r remote) Apply(ctx context.Context, o models.Object) (models.Object, bool, error) {
	return r.c.Apply(ctx, o)
}

func (r remote) Replace(ctx context.Context, o models.Object, version string) error {
	_, _, err := r.c.Apply(ctx, o, client.IfMatch(version))
	return err
}

func (r remote) Create(ctx context.Context, o models.Object) error {
	_, err := r.c.Create(ctx, o)
	return err
}

func (r remote) Patch(ctx context.Context, key models.Key, patch []byte, version string) error {
	_, err := r.c.Patch(ctx, key, patch, client.IfMatch(version))
	return err
}

func (r remote) Delete(ctx context.Context, key models.Key) error {
	_, err := r.c.Delete(ctx, key)
	return err
}

func (r remote) Watch(ctx context.Context, o selection, version string, send func(models.Event) error) error {
	return r.c.Watch(ctx, o.kind, o.options(), version, send)
}

func (r remote) Twin(ctx context.Context, namespace, device string) (twin.Document, error) {
	return r.c.Twin(ctx, namespace, device)
}

func (r remote) TwinAt(ctx context.Context, namespace, device, uid string, at time.Time) (twin.Document, error) {
	return r.c.TwinAt(ctx, namespace, device, uid, at)
}

func (r remote) PatchDesired(ctx context.Context, namespace, device string, patch map[string]models.Value, o setOptions) (twin.Document, bool, error) {
	doc, err := r.c.PatchDesired(ctx, namespace, device, patch, client.DesiredOptions{Wait: o.Wait, Expire: o.Expire, Reason: o.Reason})
	return doc, doc.Device != "", err
}

func (r remote) ReadDevice(ctx context.Context, namespace, device string, properties []string, wait time.Duration) (map[string]models.Reading, error) {
	return r.c.ReadDevice(ctx, namespace, device, properties, wait)
}

func (r remote) PublishRoute(ctx context.Context, namespace, name, contentType string, payload []byte, wait time.Duration) (int, []byte, error) {
	return r.c.PublishRoute(ctx, namespace, name, contentType, payload, wait)
}

func (r remote) DeadLetters(ctx context.Context, namespace, name string) (all []models.DeadLetter, err error) {
	for next := ""; ; {
		var page []models.DeadLetter
		page, next, err = r.c.DeadLetters(ctx, namespace, name, next)
		all = append(all, page...)
		if err != nil || next == "" {
			return all, err
		}
	}
}

func (r remote) ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	return r.c.ReplayDeadLetters(ctx, namespace, name, ids)
}

func (r remote) DropDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error) {
	return r.c.DropDeadLetters(ctx, namespace, name, ids)
}

func (r remote) BrowseDevice(ctx context.Context, namespace, device string, found func(models.Found) error) error {
	return r.c.BrowseDevice(ctx, namespace, device, found)
}

func (r remote) Writes(ctx context.Context, namespace, device string, q models.LedgerQuery) ([]twin.LedgerEntry, string, error) {
	return r.c.Writes(ctx, namespace, device, q)
}

func (r remote) StreamTwins(ctx context.Context, o selection, send func(twin.StreamChange) error) error {
	return r.c.StreamTwins(ctx, o.options(), "", func(c client.TwinChange) error {
		if c.Reset {
			return nil // all of it comes again
		}
		return send(twin.StreamChange{Deleted: c.Deleted, Document: twin.Document{Device: c.Device, Namespace: c.Namespace, Version: c.Version, State: c.State, Properties: c.Properties}})
	})
}

func (r remote) History(ctx context.Context, namespace, device, property string, q models.HistoryQuery, send func(models.History) error) error {
	for {
		page, err := r.c.History(ctx, namespace, device, property, q)
		if err == nil {
			err = send(page)
		}
		if q.Continue = page.Continue; err != nil || q.Continue == "" {
			return err
		}
	}
}

func (r remote) ExportHistory(ctx context.Context, namespace, device, property string, q models.HistoryQuery, format string, w io.Writer) error {
	return r.c.ExportHistory(ctx, namespace, device, property, q, format, w)
}

func (r remote) Events(ctx context.Context, o client.EventOptions) (models.LoggedEvents, error) {
	return r.c.Events(ctx, o)
}

func (r remote) WatchEvents(ctx context.Context, o client.EventOptions, version string, send func(models.EventChange) error) error {
	return r.c.WatchEvents(ctx, o, version, send)
}

func (r remote) Audit(ctx context.Context, o client.AuditOptions) (client.AuditPage, error) {
	return r.c.Audit(ctx, o)
}

func (r remote) WatchAudit(ctx context.Context, o client.AuditOptions, version string, send func(models.AuditEntry) error) error {
	return r.c.WatchAudit(ctx, o, version, send)
}

func (r remote) CreateJoinToken(ctx context.Context, node string, ttl time.Duration) (client.Token, error) {
	return r.c.CreateJoinToken(ctx, node, ttl)
}

func (r remote) CreateUserToken(ctx context.Context, user string, ttl time.Duration) (client.Token, error) {
	return r.c.CreateUserToken(ctx, user, ttl)
}

func (r remote) Tokens(ctx context.Context) ([]client.TokenInfo, error) { return r.c.Tokens(ctx) }

func (r remote) DeleteToken(ctx context.Context, id string) error { return r.c.DeleteToken(ctx, id) }

// interrupted reports whether a stream ended because the person has seen
// enough.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err()))
}
