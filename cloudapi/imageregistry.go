package cloudapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Images is what the image registry needs. Errors are *oci.Error where the
// protocol has a code for them. by is the user.
type Images interface {
	Blobs
	Uploads
	Manifests
}

// Blobs are layers and configurations.
type Blobs interface {
	// Stat returns a blob's size.
	Stat(repo string, d digest.Digest) (int64, error)
	OpenBlob(repo string, d digest.Digest) (io.ReadSeekCloser, error)
	// Mount makes a blob of another repository, "" for any, one of repo; ok is false
	// when there is none.
	Mount(repo, from string, d digest.Digest) (ok bool, err error)
	DeleteBlob(repo string, d digest.Digest) error
}

// Uploads are blobs on their way.
type Uploads interface {
	// StartUpload begins one, or goes on with one of the same user's that was to be
	// the blob expect, "" for none; size is how much is there.
	StartUpload(ctx context.Context, repo string, expect digest.Digest, by string) (id string, size int64, err error)
	Upload(ctx context.Context, repo, id, by string) (size int64, err error)
	// Append adds what r has at an offset, negative for the end. size is how much is
	// there then, also with an error.
	Append(ctx context.Context, repo, id, by string, at int64, r io.Reader) (size int64, err error)
	// Commit appends and makes the upload the blob d.
	Commit(ctx context.Context, repo, id, by string, at int64, r io.Reader, d digest.Digest) error
	Cancel(ctx context.Context, repo, id, by string) error
}

// Manifests are images, and lists of them, under tags. ref is a tag or a digest.
type Manifests interface {
	PutManifest(ctx context.Context, repo, ref, mediaType string, text []byte, by string) (digest.Digest, error)
	Find(repo, ref string) (oci.Stored, error)
	DeleteManifest(ctx context.Context, repo, ref, by string) error
	Repositories() ([]string, error)
	Tags(repo string) ([]string, error)
	List() ([]oci.Image, error)
	// Prune removes manifests without a tag that are not in use, and what nothing
	// refers to then.
	Prune(ctx context.Context, by string) (removed int, freed int64, err error)
}

// registryPrefix is where the OCI distribution API is. Its clients know no other
// place.
const registryPrefix = "/v2/"

// registryPaths are the paths below it, with what answers them. A repository's
// name may have slashes, so a router cannot tell.
var registryPaths = []struct {
	path  *regexp.Regexp // its groups are the repository, and what in it
	serve func(c *call, repo, what string) error
}{
	{regexp.MustCompile(`^(.+)/tags/list()$`), (*call).registryTags},
	{regexp.MustCompile(`^(.+)/manifests/([^/]+)$`), (*call).registryManifest},
	{regexp.MustCompile(`^(.+)/blobs/uploads/?()$`), (*call).registryStart},
	{regexp.MustCompile(`^(.+)/blobs/uploads/([^/]+)$`), (*call).registryUpload},
	{regexp.MustCompile(`^(.+)/blobs/([^/]+)$`), (*call).registryBlob},
}

// registry serves the OCI distribution API, which has its own form of names,
// errors and authentication.
func (c *call) registry() {
	h := c.w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	err := c.registryAuthenticate()
	if err == nil {
		err = c.api.limits.take(c.caller.Name, time.Now())
	}
	if err == nil {
		err = c.registryRoute()
	}
	if err == nil {
		return
	}
	if c.Context().Err() != nil && errors.Is(err, context.Canceled) || c.w.status != 0 {
		c.w.status = 499 // for the log; nobody is there to read an answer, or it has begun
		return
	}
	status, text := oci.Document(err)
	if status == http.StatusInternalServerError {
		c.api.Log.ErrorContext(c.Context(), "request failed", "method", c.Method, "path", c.URL.Path, "error", err, "traceparent", c.trace)
	}
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Basic realm="whimbrel"`)
	case http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter(err))
	}
	if errors.Is(err, errMethod) {
		status, text = http.StatusMethodNotAllowed, nil
	}
	c.registryText(status, "application/json", text)
}

func (c *call) registryText(status int, contentType string, text []byte) {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	c.begin(status)
	if c.Method != http.MethodHead {
		_, _ = c.w.Write(text) // a peer that is gone learns nothing
	}
}

// registryAuthenticate takes the token as the password of its user too, which is
// how `docker login` sends it.
func (c *call) registryAuthenticate() error {
	name, token, basic := c.BasicAuth()
	if !basic {
		return c.authenticate()
	}
	remote, _, err := net.SplitHostPort(c.RemoteAddr)
	if err != nil {
		remote = c.RemoteAddr
	}
	if c.caller, err = c.api.Access.Authenticate(c.Context(), token, remote); err != nil {
		return err
	}
	if c.caller.Name != name {
		return models.Errorf(models.KindUnauthorized, "the token is not one of the user %.60q", name)
	}
	return nil
}

func (c *call) registryRoute() error {
	rest, _ := strings.CutPrefix(c.URL.Path, registryPrefix)
	if c.api.Images == nil {
		return oci.Errorf(oci.CodeNameUnknown, "this hub keeps no images")
	}
	var err error
	if c.query, err = url.ParseQuery(c.URL.RawQuery); err != nil {
		return oci.Errorf(oci.CodeUnsupported, "the query cannot be read")
	}
	switch rest {
	case "":
		if err := c.registryMethod(http.MethodGet, http.MethodHead); err != nil {
			return err
		}
		c.registryText(http.StatusOK, "application/json", []byte("{}"))
		return nil
	case "_catalog":
		return c.registryCatalog()
	}
	for _, p := range registryPaths {
		if m := p.path.FindStringSubmatch(rest); m != nil {
			if !oci.ValidRepository(m[1]) {
				return oci.Errorf(oci.CodeNameInvalid, "%.100q is no name of a repository", m[1])
			}
			need := models.Viewer
			if c.Method != http.MethodGet && c.Method != http.MethodHead {
				need = models.Admin
			}
			if err := c.caller.mayImages(need, m[1]); err != nil {
				return err
			}
			return p.serve(c, m[1], m[2])
		}
	}
	return oci.Errorf(oci.CodeNameUnknown, "there is nothing at this path")
}

// mayImages checks that the caller holds a role for a repository: those whose names
// begin with a namespace and a slash are that namespace's, too; all others need
// the role in all namespaces.
func (c Caller) mayImages(need models.Role, repo string) error {
	namespace, _, inside := strings.Cut(repo, "/")
	if !inside || namespace != c.Namespace {
		namespace = models.AllNamespaces
	}
	err := c.may(need, namespace)
	if err != nil && c.Namespace != models.AllNamespaces && rank(c.Role) >= rank(need) {
		return oci.Errorf(oci.CodeDenied, "%s holds the role %s in namespace %s only: its images are called %s/NAME", c.Name, c.Role, c.Namespace, c.Namespace)
	}
	return err
}

// registryMethod checks that the method is one of these.
func (c *call) registryMethod(allowed ...string) error {
	if slices.Contains(allowed, c.Method) {
		return nil
	}
	c.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return errMethod
}

// page cuts a list after the parameters n and last, and says where it goes on.
func (c *call) registryPage(all []string) ([]string, error) {
	if last := c.query.Get("last"); last != "" {
		at, found := slices.BinarySearch(all, last)
		if found {
			at++
		}
		all = all[at:]
	}
	if text := c.query.Get("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, oci.Errorf(oci.CodeUnsupported, "n must be a number, got %.40q", text)
		}
		if n < len(all) {
			all = all[:n]
			if n > 0 {
				next := url.Values{"n": {text}, "last": {all[n-1]}}
				c.w.Header().Set("Link", "<"+c.URL.EscapedPath()+"?"+next.Encode()+`>; rel="next"`)
			}
		}
	}
	return append([]string{}, all...), nil
}

func (c *call) registryJSON(v any) error {
	text, err := encode(v)
	if err == nil {
		c.registryText(http.StatusOK, "application/json", text)
	}
	return err
}

func (c *call) registryCatalog() error {
	if err := c.registryMethod(http.MethodGet); err != nil {
		return err
	}
	all, err := c.api.Images.Repositories()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(repo string) bool { return c.caller.mayImages(models.Viewer, repo) != nil })
	if all, err = c.registryPage(all); err != nil {
		return err
	}
	return c.registryJSON(map[string]any{"repositories": all})
}

func (c *call) registryTags(repo, _ string) error {
	if err := c.registryMethod(http.MethodGet); err != nil {
		return err
	}
	tags, err := c.api.Images.Tags(repo)
	if err != nil {
		return err
	}
	if tags, err = c.registryPage(tags); err != nil {
		return err
	}
	return c.registryJSON(map[string]any{"name": repo, "tags": tags})
}

func (c *call) registryManifest(repo, ref string) error {
	h := c.w.Header()
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		m, err := c.api.Images.Find(repo, ref)
		if err != nil {
			return err
		}
		h.Set("Docker-Content-Digest", m.Digest.String())
		h.Set("ETag", `"`+m.Digest.String()+`"`)
		c.registryText(http.StatusOK, m.MediaType, m.Text)
		return nil
	case http.MethodPut:
		text, err := io.ReadAll(http.MaxBytesReader(c.w.ResponseWriter, io.NopCloser(c.slowBody()), oci.MaxManifest))
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return oci.Errorf(oci.CodeSizeInvalid, "a manifest has at most %d bytes", oci.MaxManifest)
		}
		if err != nil {
			return oci.Errorf(oci.CodeManifestInvalid, "the manifest did not arrive whole")
		}
		d, err := c.api.Images.PutManifest(c.Context(), repo, ref, c.Header.Get("Content-Type"), text, c.caller.Name)
		if err != nil {
			return err
		}
		h.Set("Location", registryPrefix+repo+"/manifests/"+d.String())
		h.Set("Docker-Content-Digest", d.String())
		c.registryText(http.StatusCreated, "application/json", nil)
		return nil
	case http.MethodDelete:
		if err := c.api.Images.DeleteManifest(c.Context(), repo, ref, c.caller.Name); err != nil {
			return err
		}
		c.registryText(http.StatusAccepted, "application/json", nil)
		return nil
	}
	return c.registryMethod(http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete)
}

func (c *call) registryBlob(repo, name string) error {
	if err := c.registryMethod(http.MethodGet, http.MethodHead, http.MethodDelete); err != nil {
		return err
	}
	d, err := oci.ParseDigest(name)
	if err != nil {
		return err
	}
	if c.Method == http.MethodDelete {
		if err := c.api.Images.DeleteBlob(repo, d); err != nil {
			return err
		}
		c.registryText(http.StatusAccepted, "application/json", nil)
		return nil
	}
	blob, err := c.api.Images.OpenBlob(repo, d)
	if err != nil {
		return err
	}
	defer blob.Close()
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	// A Read that fails leaves the answer shorter than it says, which its reader notices.
	http.ServeContent(patientWriter{c.w, c.api.WriteTimeout}, c.Request, "", time.Time{}, blob)
	return nil
}

// patientWriter gives every write a time of its own.
type patientWriter struct {
	*recorder
	timeout time.Duration
}

func (w patientWriter) Write(p []byte) (int, error) {
	_ = http.NewResponseController(w.recorder).SetWriteDeadline(time.Now().Add(w.timeout))
	return w.recorder.Write(p)
}

// slowBody is the request's body with a time for every read, instead of one for
// the whole.
func (c *call) slowBody() io.Reader {
	control := http.NewResponseController(c.w)
	return readFunc(func(p []byte) (int, error) {
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		n, err := c.Body.Read(p)
		if err != nil {
			_ = control.SetReadDeadline(time.Time{})
		}
		return n, err
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// registryStart begins an upload, takes a blob whole, or mounts one.
func (c *call) registryStart(repo, _ string) error {
	if err := c.registryMethod(http.MethodPost); err != nil {
		return err
	}
	if text := c.query.Get("mount"); text != "" {
		d, err := oci.ParseDigest(text)
		if err != nil {
			return err
		}
		from := c.query.Get("from")
		readable := c.caller.Namespace == models.AllNamespaces
		if from != "" {
			readable = c.caller.mayImages(models.Viewer, from) == nil
		}
		if readable {
			if ok, err := c.api.Images.Mount(repo, from, d); err != nil {
				return err
			} else if ok {
				c.committed(repo, d)
				return nil
			}
		}
	}
	var expect digest.Digest
	text := c.query.Get("digest")
	if text == "" {
		text = c.query.Get("expect") // an extension: names an upload, so that it can be found again
	}
	if text != "" {
		var err error
		if expect, err = oci.ParseDigest(text); err != nil {
			return err
		}
	}
	if c.query.Get("digest") == "" {
		id, size, err := c.api.Images.StartUpload(c.Context(), repo, expect, c.caller.Name)
		if err != nil {
			return err
		}
		c.uploading(http.StatusAccepted, repo, id, size)
		return nil
	}
	id, _, err := c.api.Images.StartUpload(c.Context(), repo, "", c.caller.Name)
	if err != nil {
		return err
	}
	if err := c.bodyError(c.api.Images.Commit(c.Context(), repo, id, c.caller.Name, 0, c.slowBody(), expect)); err != nil {
		return errors.Join(err, ignoreNotFound(c.api.Images.Cancel(context.WithoutCancel(c.Context()), repo, id, c.caller.Name)))
	}
	c.committed(repo, expect)
	return nil
}

func ignoreNotFound(err error) error {
	if models.KindOf(err) == models.KindNotFound {
		return nil
	}
	return err
}

// committed answers that a blob is there.
func (c *call) committed(repo string, d digest.Digest) {
	h := c.w.Header()
	h.Set("Location", registryPrefix+repo+"/blobs/"+d.String())
	h.Set("Docker-Content-Digest", d.String())
	c.registryText(http.StatusCreated, "application/octet-stream", nil)
}

// uploading answers where an upload is. Range cannot say that nothing is there, so
// Upload-Offset says it too.
func (c *call) uploading(status int, repo, id string, size int64) {
	h := c.w.Header()
	h.Set("Location", registryPrefix+repo+"/blobs/uploads/"+id)
	h.Set("Docker-Upload-Uuid", id)
	h.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	h.Set("Upload-Offset", strconv.FormatInt(size, 10))
	c.registryText(status, "application/octet-stream", nil)
}

func (c *call) registryUpload(repo, id string) error {
	ctx, images, by := c.Context(), c.api.Images, c.caller.Name
	switch c.Method {
	case http.MethodGet, http.MethodHead: // of one's own upload
		size, err := images.Upload(ctx, repo, id, by)
		if err != nil {
			return err
		}
		c.uploading(http.StatusNoContent, repo, id, size)
	case http.MethodPatch:
		at, err := c.offset()
		if err != nil {
			return err
		}
		size, err := images.Append(ctx, repo, id, by, at, c.slowBody())
		var e *oci.Error
		if errors.As(err, &e) && e.Code == oci.CodeRangeInvalid {
			c.w.Header().Set("Upload-Offset", strconv.FormatInt(size, 10))
		}
		if err := c.bodyError(err); err != nil {
			return err
		}
		c.uploading(http.StatusAccepted, repo, id, size)
	case http.MethodPut:
		d, err := oci.ParseDigest(c.query.Get("digest"))
		if err != nil {
			return err
		}
		at, err := c.offset()
		if err != nil {
			return err
		}
		if err := c.bodyError(images.Commit(ctx, repo, id, by, at, c.slowBody(), d)); err != nil {
			return err
		}
		c.committed(repo, d)
	case http.MethodDelete:
		if err := images.Cancel(ctx, repo, id, by); err != nil {
			return err
		}
		c.registryText(http.StatusNoContent, "application/octet-stream", nil)
	default:
		return c.registryMethod(http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete)
	}
	return nil
}

// offset is where the body belongs, negative for the end.
func (c *call) offset() (int64, error) {
	text := c.Header.Get("Content-Range")
	if text == "" {
		return -1, nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "-")
	to, _, _ = strings.Cut(to, "/")
	first, err := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if !ok || err != nil || err2 != nil || first < 0 || last < first-1 {
		return 0, oci.Errorf(oci.CodeRangeInvalid, "Content-Range must be FIRST-LAST, got %.60q", text)
	}
	if c.ContentLength >= 0 && c.ContentLength != last-first+1 {
		return 0, oci.Errorf(oci.CodeRangeInvalid, "Content-Range says %d bytes, the body has %d", last-first+1, c.ContentLength)
	}
	return first, nil
}

// bodyError tells a body that broke off from what is the hub's own.
func (c *call) bodyError(err error) error {
	var timeout net.Error
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &timeout) && timeout.Timeout() {
		return oci.Errorf(oci.CodeBlobUploadInvalid, "the body broke off; what came of it is kept, go on after it")
	}
	return err
}
