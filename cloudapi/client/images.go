package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

// How a push goes on when the hub cannot be reached.
const (
	pushAttempts = 10 // in a row without anything that moved
)

var pushRetry = backoff.Policy{Min: 500 * time.Millisecond, Max: 15 * time.Second, Factor: 2, Jitter: 0.3}

// Images lists the images that the hub keeps.
func (c *Client) Images(ctx context.Context) ([]oci.Image, error) {
	var list struct{ Items []oci.Image }
	_, err := c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/images"}, nil, &list)
	return list.Items, err
}

// Pruned is what PruneImages removed.
type Pruned struct {
	Removed int   `json:"removed"` // images
	Freed   int64 `json:"freed"`   // bytes
}

// PruneImages removes images without a tag that no app names.
func (c *Client) PruneImages(ctx context.Context) (p Pruned, err error) {
	_, err = c.call(ctx, Request{Method: http.MethodPost, Path: Prefix + "/images/prune"}, nil, &p)
	return p, err
}

// registry sends a request to the hub's image registry. A status from 300 is the
// error that it stands for.
func (c *Client) registry(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	u, err := c.server.Parse(c.server.Path + path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if text := header.Get("Content-Length"); text != "" {
		if req.ContentLength, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, err
		}
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // half an error is still one
		return resp, oci.ParseDocument(resp.StatusCode, text)
	}
	return resp, nil
}

// done is for answers of which only the header matters.
func done(resp *http.Response, err error) error {
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

// HasBlob reports whether a repository has a blob.
func (c *Client) HasBlob(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	path := "/v2/" + repo + "/blobs/" + d.String()
	resp, err := c.registry(ctx, http.MethodHead, path, nil, nil)
	if resp != nil && resp.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if resp != nil && err != nil { // why it refuses is not said to HEAD
		resp, err = c.registry(ctx, http.MethodGet, path, nil, http.Header{"Range": {"bytes=0-0"}})
	}
	return err == nil, done(resp, err)
}

// DeleteImage removes a tag, or by its digest an image with all of its tags.
func (c *Client) DeleteImage(ctx context.Context, repo, ref string) error {
	return done(c.registry(ctx, http.MethodDelete, "/v2/"+repo+"/manifests/"+ref, nil, nil))
}

// PutManifest stores a manifest under a tag, or its digest.
func (c *Client) PutManifest(ctx context.Context, repo, ref string, m oci.Stored) error {
	return done(c.registry(ctx, http.MethodPut, "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(m.Text), http.Header{"Content-Type": {m.MediaType}}))
}

// PushBlob uploads a blob that the repository does not have. What came of it
// before, also at an earlier time, is not sent again; when the hub goes away for a
// while it is waited for. sent is told how much is there.
func (c *Client) PushBlob(ctx context.Context, repo string, d digest.Digest, size int64, open func(from int64) (io.ReadCloser, error), sent func(int64)) error {
	at, best := "", int64(-1)
	for failures := 0; ; {
		offset, err := c.pushOnce(ctx, repo, d, size, &at, open, sent)
		if err == nil {
			return nil
		}
		if offset > best {
			best, failures = offset, 0
		}
		failures++
		var known *models.Error
		var of *oci.Error
		if errors.As(err, &of) && (of.Code == oci.CodeBlobUploadInvalid || of.Code == oci.CodeRangeInvalid) {
			// The connection that was cut is still being read.
		} else if errors.As(err, &known) {
			switch known.Kind {
			case models.KindUnavailable, models.KindTooMany, models.KindTimeout, models.KindRefused, models.KindInternal:
			case models.KindNotFound: // the upload has expired, or was complete and nobody heard of it
				if has, err := c.HasBlob(ctx, repo, d); err == nil && has {
					return nil
				}
				if at == "" {
					return err
				}
				at = ""
			default:
				return err
			}
		}
		if ctx.Err() != nil || failures >= pushAttempts {
			return err
		}
		t := time.NewTimer(pushRetry.Delay(failures, 0))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// pushOnce goes on with an upload, "" for one that is to be begun, and returns how
// much was there at least.
func (c *Client) pushOnce(ctx context.Context, repo string, d digest.Digest, size int64, at *string, open func(from int64) (io.ReadCloser, error), sent func(int64)) (int64, error) {
	method, path := http.MethodGet, *at
	if path == "" {
		method, path = http.MethodPost, "/v2/"+repo+"/blobs/uploads/?"+url.Values{"expect": {d.String()}}.Encode()
	}
	resp, err := c.registry(ctx, method, path, nil, nil)
	if err = done(resp, err); err != nil {
		return -1, err
	}
	*at = resp.Header.Get("Location")
	offset, err := strconv.ParseInt(resp.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || *at == "" {
		return -1, fmt.Errorf("the hub does not say where the upload is")
	}
	sent(offset)
	if offset > size {
		err := done(c.registry(ctx, http.MethodDelete, *at, nil, nil))
		*at = ""
		return -1, errors.Join(err, models.Errorf(models.KindUnavailable, "the upload of %s had more bytes than it has; it begins anew", d))
	}
	if offset < size {
		body, err := open(offset)
		if err != nil {
			return offset, models.Errorf(models.KindMalformed, "%v", err)
		}
		defer body.Close()
		h := http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", offset, size-1)}, "Content-Length": {strconv.FormatInt(size-offset, 10)}}
		if err := done(c.registry(ctx, http.MethodPatch, *at, &counted{body, offset, sent}, h)); err != nil {
			return offset, err
		}
	}
	return size, done(c.registry(ctx, http.MethodPut, *at+"?"+url.Values{"digest": {d.String()}}.Encode(), nil, nil))
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	at   int64
	sent func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	c.sent(c.at)
	return n, err
}
