package cloudapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// once does a request with an Idempotency-Key at most once: the same request
// again gets the same answer. An error before anything was changed frees the
// key.
func (c *call) once(body []byte, do func() (answer, error)) (answer, error) {
	return c.idempotent(body, false, do)
}

// onceSecret is once for answers that must not be kept: a repeated request is
// told that it succeeded, and not what the answer was.
func (c *call) onceSecret(body []byte, do func() (answer, error)) (answer, error) {
	return c.idempotent(body, true, do)
}

func (c *call) idempotent(body []byte, secret bool, do func() (answer, error)) (result answer, err error) {
	key := c.Header.Get("Idempotency-Key")
	if key == "" {
		return do()
	}
	if len(key) > maxIdempotent || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return answer{}, models.BadParameter(models.KindMalformed, "Idempotency-Key", "must be at most %d printable ASCII characters", maxIdempotent)
	}
	keeper, caller := c.api.Idempotency, c.caller.Name
	stored, again, err := keeper.Begin(c.Context(), caller, key, c.fingerprint(body))
	if err != nil {
		return answer{}, err
	}
	if again {
		if secret && stored.Status < 400 {
			return answer{}, models.Errorf(models.KindConflict, "the token of this Idempotency-Key has been made, and is told only once; delete it and ask with another key")
		}
		return replay(stored), nil
	}
	var keep StoredAnswer // the zero one frees the key
	defer func() {
		// What was done is done, even when the caller has left.
		if err := keeper.Finish(context.WithoutCancel(c.Context()), caller, key, keep); err != nil {
			c.api.Log.ErrorContext(c.Context(), "cannot keep the answer of an Idempotency-Key", "user", caller, "error", err)
		}
	}()
	result, err = do()
	var f fate
	switch {
	case errors.As(err, &f):
		keep = StoredAnswer{Status: problemOf(err).Status}
		keep.Body, _ = encode(problemOf(err)) // the body of a problem always encodes
	case err == nil && secret:
		keep = StoredAnswer{Status: result.status}
	case err == nil:
		text, failed := result.json()
		if failed != nil {
			return answer{}, failed
		}
		keep = StoredAnswer{Status: result.status, ETag: result.etag, ContentType: result.contentType, FromTarget: result.fromTarget, Body: text}
	}
	return result, err
}

// fingerprint tells requests apart that use the same key.
func (c *call) fingerprint(body []byte) string {
	h := sha256.New()
	for _, part := range []string{c.Method, c.URL.Path, c.query.Encode(), strings.Join(c.Header.Values("If-Match"), ","), c.Header.Get("X-Whimbrel-Reason")} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func replay(s StoredAnswer) answer {
	a := answer{status: s.Status, raw: s.Body, etag: s.ETag, contentType: s.ContentType, fromTarget: s.FromTarget, replayed: true}
	if s.Status == http.StatusCreated && !s.FromTarget {
		var object struct {
			models.TypeMeta
			Metadata models.ObjectMeta `json:"metadata"`
		}
		if json.Unmarshal(s.Body, &object) == nil {
			if info, ok := models.KindByName(object.Kind); ok {
				a.location = location(info, object.Metadata.Namespace, object.Metadata.Name)
			}
		}
	}
	return a
}
