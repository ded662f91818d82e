// Package oci is the words of container images as registries speak them: names,
// digests, manifests, and the errors of the OCI distribution protocol. It is what
// the hub that keeps images, the edge that fetches them and the command line that
// pushes them have in common.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Bounds of what is taken in.
const (
	MaxManifest   = 4 << 20 // bytes, as the distribution specification has it
	maxRepository = 255
	maxParts      = 4096 // layers of an image, or images of an index
)

// Media types of manifests that are understood.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	OCIManifest    = v1.MediaTypeImageManifest
	OCIIndex       = v1.MediaTypeImageIndex
)

// Manifests are the media types of manifests, for Accept.
var Manifests = []string{OCIIndex, DockerList, OCIManifest, DockerManifest}

// Media types of parts.
const (
	DockerConfig    = "application/vnd.docker.container.image.v1+json"
	DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// ValidRepository reports whether a repository may have this name.
func ValidRepository(name string) bool {
	return len(name) <= maxRepository && repositoryName.MatchString(name)
}

// ValidTag reports whether a tag may be so.
func ValidTag(tag string) bool { return tagName.MatchString(tag) }

// ParseDigest reads a digest. Only SHA-256 is kept: it is what every client makes.
func ParseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return "", Errorf(CodeDigestInvalid, "%.100q is no digest such as sha256:…", s)
	}
	return d, nil
}

// Reference is what an image is called in a pod, or by a client.
type Reference struct {
	Host       string // of the registry, "" for none; that of Docker Hub counts as none
	Repository string // without the host; what has no slash is not in library/
	Tag        string // latest when nothing is said and there is no digest
	Digest     digest.Digest
}

// ParseReference reads what an image is called.
func ParseReference(s string) (Reference, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return Reference{}, models.Errorf(models.KindMalformed, "%.200q is no name of an image: %v", s, err)
	}
	r := Reference{Host: reference.Domain(named), Repository: reference.Path(named)}
	if r.Host == "docker.io" {
		r.Host, r.Repository = "", strings.TrimPrefix(r.Repository, "library/")
	}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		if r.Digest, err = ParseDigest(d.Digest().String()); err != nil {
			return Reference{}, models.Errorf(models.KindMalformed, "%.200q: only digests of SHA-256 are known", s)
		}
	}
	return r, nil
}

// Name is host and repository.
func (r Reference) Name() string {
	if r.Host == "" {
		return r.Repository
	}
	return r.Host + "/" + r.Repository
}

// At is what of the repository is meant: a digest or a tag.
func (r Reference) At() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + r.Digest.String()
	}
	return r.Name() + ":" + r.Tag
}

// Manifest is what is in a manifest, or in an index of such.
type Manifest struct {
	MediaType string
	Config    *v1.Descriptor  // of an image; nil for an index
	Layers    []v1.Descriptor // of an image
	Images    []v1.Descriptor // of an index
}

// Index reports whether it is a list of manifests.
func (m *Manifest) Index() bool { return IsIndex(m.MediaType) }

// IsIndex reports whether this is the media type of a list of manifests.
func IsIndex(mediaType string) bool { return mediaType == OCIIndex || mediaType == DockerList }

// Size is how many bytes the parts of an image have, without an index' images.
func (m *Manifest) Size() (n int64) {
	if m.Config != nil {
		n = m.Config.Size
	}
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// ParseManifest reads a manifest. mediaType is what came with it, "" when nothing
// did: then the manifest has to say it itself.
func ParseManifest(mediaType string, text []byte) (*Manifest, error) {
	if len(text) > MaxManifest {
		return nil, Errorf(CodeManifestInvalid, "the manifest has %d bytes, at most %d are taken", len(text), MaxManifest)
	}
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        *v1.Descriptor  `json:"config"`
		Layers        []v1.Descriptor `json:"layers"`
		Manifests     []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, Errorf(CodeManifestInvalid, "the manifest is no JSON: %v", err)
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.TrimSpace(mediaType)
	switch {
	case doc.SchemaVersion != 2:
		return nil, Errorf(CodeManifestInvalid, "the manifest's schemaVersion is %d; only 2 is known", doc.SchemaVersion)
	case mediaType == "" || mediaType == "application/json" || mediaType == "application/octet-stream":
		mediaType = doc.MediaType
	case doc.MediaType != "" && doc.MediaType != mediaType:
		return nil, Errorf(CodeManifestInvalid, "the manifest says mediaType %.100q and came as %.100q", doc.MediaType, mediaType)
	}
	m := &Manifest{MediaType: mediaType, Config: doc.Config, Layers: doc.Layers, Images: doc.Manifests}
	switch mediaType {
	case OCIManifest, DockerManifest:
		if doc.Config == nil || doc.Manifests != nil {
			return nil, Errorf(CodeManifestInvalid, "an image's manifest has a config, and no manifests")
		}
	case OCIIndex, DockerList:
		if doc.Config != nil || doc.Layers != nil {
			return nil, Errorf(CodeManifestInvalid, "an index has manifests, and no config or layers")
		}
	default:
		return nil, Errorf(CodeManifestInvalid, "a manifest of the type %.100q is not known; known are %s", mediaType, strings.Join(Manifests, ", "))
	}
	if len(m.Layers)+len(m.Images) > maxParts {
		return nil, Errorf(CodeManifestInvalid, "the manifest has more than %d parts", maxParts)
	}
	for _, d := range m.parts() {
		if _, err := ParseDigest(d.Digest.String()); err != nil {
			return nil, Errorf(CodeManifestInvalid, "the manifest names a part by %.100q; only digests of SHA-256 are known", d.Digest)
		}
		if d.Size < 0 {
			return nil, Errorf(CodeManifestInvalid, "the manifest says that %s has %d bytes", d.Digest, d.Size)
		}
	}
	return m, nil
}

// parts are everything that the manifest names.
func (m *Manifest) parts() []v1.Descriptor {
	all := append(append([]v1.Descriptor(nil), m.Layers...), m.Images...)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return all
}

// Blobs are the parts that are no manifests and are kept beside this one: layers
// that are to be had at an address of their own are not.
func (m *Manifest) Blobs() (all []v1.Descriptor) {
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	for _, l := range m.Layers {
		if len(l.URLs) == 0 {
			all = append(all, l)
		}
	}
	return all
}

// Stored is a manifest as it came.
type Stored struct {
	Digest    digest.Digest
	MediaType string
	Text      []byte
}

// Image is one of the list of images: a tag, or a manifest that has none.
type Image struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"` // left out for none
	Digest     digest.Digest `json:"digest"`
	ImageID    digest.Digest `json:"imageID,omitempty"`   // digest of the configuration; left out for an index
	Size       int64         `json:"size"`                // bytes that a node fetches at most; of an index all images together
	Platforms  []string      `json:"platforms,omitempty"` // of an index
	Pushed     time.Time     `json:"pushed"`
	By         string        `json:"by,omitempty"` // user
}

// Codes of errors in the distribution protocol.
const (
	CodeBlobUnknown         = "BLOB_UNKNOWN"
	CodeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	CodeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	CodeDigestInvalid       = "DIGEST_INVALID"
	CodeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	CodeManifestInvalid     = "MANIFEST_INVALID"
	CodeManifestUnknown     = "MANIFEST_UNKNOWN"
	CodeNameInvalid         = "NAME_INVALID"
	CodeNameUnknown         = "NAME_UNKNOWN"
	CodeSizeInvalid         = "SIZE_INVALID"
	CodeUnauthorized        = "UNAUTHORIZED"
	CodeDenied              = "DENIED"
	CodeUnsupported         = "UNSUPPORTED"
	CodeTooManyRequests     = "TOOMANYREQUESTS"
	CodeUnavailable         = "UNAVAILABLE"
	CodeUnknown             = "UNKNOWN"
	// CodeRangeInvalid goes with 416 and is no code of the specification's, which
	// has none for it.
	CodeRangeInvalid = "RANGE_INVALID"
)

var codeKind = map[string]models.ErrorKind{
	CodeBlobUnknown: models.KindNotFound, CodeBlobUploadUnknown: models.KindNotFound, CodeManifestUnknown: models.KindNotFound, CodeNameUnknown: models.KindNotFound,
	CodeManifestBlobUnknown: models.KindNotFound,
	CodeBlobUploadInvalid:   models.KindMalformed, CodeDigestInvalid: models.KindMalformed, CodeManifestInvalid: models.KindMalformed, CodeNameInvalid: models.KindMalformed,
	CodeSizeInvalid: models.KindTooLarge, CodeUnauthorized: models.KindUnauthorized, CodeDenied: models.KindForbidden, CodeUnsupported: models.KindMalformed,
	CodeTooManyRequests: models.KindTooMany, CodeUnavailable: models.KindUnavailable, CodeUnknown: models.KindInternal, CodeRangeInvalid: models.KindMalformed,
}

// kindCode are the codes of errors that are no *Error.
var kindCode = map[models.ErrorKind]string{
	models.KindUnauthorized: CodeUnauthorized, models.KindForbidden: CodeDenied, models.KindNotFound: CodeNameUnknown, models.KindTooMany: CodeTooManyRequests,
	models.KindTooLarge: CodeSizeInvalid, models.KindMalformed: CodeUnsupported, models.KindUnavailable: CodeUnavailable, models.KindConflict: CodeDenied,
}

// Error is one of the distribution protocol. It is a *models.Error, too.
type Error struct {
	Code   string
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// As makes it the *models.Error of its code.
func (e *Error) As(target any) bool {
	m, ok := target.(**models.Error)
	if ok {
		*m = models.Errorf(codeKind[e.Code], "%s", e.Detail)
	}
	return ok
}

// Errorf returns an Error.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// document is how an error is answered.
type document struct {
	Errors []documentError `json:"errors"`
}

type documentError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Document is how an error is answered over HTTP.
func Document(err error) (status int, text []byte) {
	e := &Error{}
	if !errors.As(err, &e) {
		kind := models.KindOf(err)
		e = &Error{Code: kindCode[kind], Detail: err.Error()}
		if e.Code == "" {
			e = &Error{Code: CodeUnknown, Detail: "internal error; the hub's log says more"}
		}
	}
	status = codeKind[e.Code].Status()
	if e.Code == CodeRangeInvalid {
		status = http.StatusRequestedRangeNotSatisfiable
	}
	text, _ = json.Marshal(document{Errors: []documentError{{e.Code, e.Detail}}}) // never fails
	return status, text
}

// ParseDocument reads what a registry answers instead of what was asked for.
func ParseDocument(status int, text []byte) error {
	var doc document
	if json.Unmarshal(text, &doc) == nil && len(doc.Errors) > 0 && doc.Errors[0].Code != "" {
		e := &Error{Code: doc.Errors[0].Code, Detail: doc.Errors[0].Message}
		if _, known := codeKind[e.Code]; known {
			return e
		}
		return models.Errorf(models.KindOfStatus(status), "%s (%s)", e.Detail, e.Code)
	}
	return models.Errorf(models.KindOfStatus(status), "the registry answered %d %s", status, http.StatusText(status))
}
