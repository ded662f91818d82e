package cloudapi

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/models"
)

// The bounds of parameters.
const (
	maxWait       = 5 * time.Minute
	maxExpire     = 365 * 24 * time.Hour
	maxReason     = 256 // bytes
	maxIdempotent = 255
)

// namespace is the ?namespace= of a request about one object. Without one it is
// the default namespace.
func (c *call) namespace() (string, error) {
	ns, err := c.givenNamespace()
	if ns == "" && err == nil {
		ns = models.DefaultNamespace
	}
	return ns, err
}

func (c *call) givenNamespace() (string, error) {
	ns := c.query.Get("namespace")
	if ns == "" {
		return "", nil
	}
	if msg := models.CheckLabelName(ns); msg != "" {
		return "", models.BadParameter(models.KindMalformed, "namespace", "%s", msg)
	}
	return ns, nil
}

// listOptions reads the parameters that choose objects, and checks that the
// caller may read them. Without ?namespace= they are those of every namespace
// that the caller may see.
func (c *call) listOptions(kind string, need models.Role, namespaced bool) (o models.ListOptions, err error) {
	o = models.ListOptions{Kind: kind, Continue: c.query.Get("continue")}
	if namespaced {
		given := c.query.Get("namespace")
		if given == models.AllNamespaces {
			o.Namespace = ""
		} else if o.Namespace, err = c.givenNamespace(); err != nil {
			return o, err
		}
		if given == "" && c.caller.Namespace != models.AllNamespaces {
			o.Namespace = c.caller.Namespace
		}
		where := o.Namespace
		if where == "" {
			where = models.AllNamespaces
		}
		err = c.caller.may(need, where)
	} else {
		err = c.caller.may(need, "")
	}
	if err != nil {
		return o, err
	}
	if o.Selector, err = models.ParseSelector(c.query.Get("labelSelector")); err != nil {
		return o, models.InParameter("labelSelector", err)
	}
	if text := c.query.Get("limit"); text != "" {
		if o.Limit, err = strconv.Atoi(text); err != nil || o.Limit < 0 {
			return o, models.BadParameter(models.KindMalformed, "limit", "must be an int from 0, got %.40q", text)
		}
	}
	return o, nil
}

// flag reads a boolean parameter.
func (c *call) flag(name string) (bool, error) {
	text := c.query.Get(name)
	if text == "" && !c.query.Has(name) {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, models.BadParameter(models.KindMalformed, name, "must be true or false, got %.40q", text)
	}
	return b, nil
}

// duration reads a duration parameter, 0 when it is not there.
func (c *call) duration(name string, least, most time.Duration) (time.Duration, error) {
	text := c.query.Get(name)
	if text == "" {
		return 0, nil
	}
	d, err := models.ParseDuration(text)
	if err != nil {
		return 0, models.BadParameter(models.KindMalformed, name, "%v, got %.40q", err, text)
	}
	if d < least || d > most {
		return 0, models.BadParameter(models.KindMalformed, name, `must be a duration from %s to %s such as "5s", got %.40q`, least, most, text)
	}
	return d, nil
}

// moment reads a parameter that is a time, or how long ago it was.
func (c *call) moment(name string, otherwise, now time.Time) (time.Time, error) {
	text := c.query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	t, err := models.ParseMoment(text, now)
	if err != nil {
		plus := ""
		if strings.ContainsRune(text, ' ') {
			plus = " (a + in it must be sent as %2B)"
		}
		return t, models.BadParameter(models.KindMalformed, name, "%v, got %.60q%s", err, text, plus)
	}
	return t, nil
}

// etag writes a version as a strong ETag.
func etag(version string) string { return `"` + version + `"` }

// entityTags splits an If-Match or If-None-Match header. A bare version is
// taken for its ETag, since shells eat quotes.
func entityTags(header []string) (tags []string, err error) {
	text := strings.Join(header, ",")
	for tag := range strings.SplitSeq(text, ",") {
		tag = strings.TrimSpace(tag)
		body := strings.TrimPrefix(tag, "W/")
		switch {
		case tag == "":
			continue
		case tag == "*":
		case len(body) >= 2 && body[0] == '"' && body[len(body)-1] == '"' && !strings.ContainsAny(body[1:len(body)-1], `" `):
		case isVersion(tag):
			tag = etag(tag)
		default:
			return nil, models.Errorf(models.KindMalformed, `an ETag must look like "41" with its quotes, got %.40q`, tag)
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

func isVersion(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// ifMatch is the If-Match header as Objects and Twins take it.
func (c *call) ifMatch() (string, error) {
	tags, err := entityTags(c.Header.Values("If-Match"))
	return strings.Join(tags, ", "), models.InParameter("If-Match", err)
}

// notModified reports whether the caller has this version already.
func (c *call) notModified(tag string) (bool, error) {
	tags, err := entityTags(c.Header.Values("If-None-Match"))
	for _, t := range tags {
		if t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true, nil
		}
	}
	return false, models.InParameter("If-None-Match", err)
}

// createOnly reports whether a PUT must make a new object: If-None-Match: *.
func (c *call) createOnly() (bool, error) {
	tags, err := entityTags(c.Header.Values("If-None-Match"))
	if err != nil || len(tags) == 0 {
		return false, models.InParameter("If-None-Match", err)
	}
	if len(tags) != 1 || tags[0] != "*" {
		return false, models.BadParameter(models.KindMalformed, "If-None-Match", "on a write must be *; use If-Match to name a version")
	}
	return true, nil
}

// reason is why someone writes, for the record.
func (c *call) reason() (string, error) {
	text := strings.TrimSpace(c.Header.Get("X-Whimbrel-Reason"))
	if len(text) > maxReason || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "", models.BadParameter(models.KindMalformed, "X-Whimbrel-Reason", "must be at most %d bytes of UTF-8 text", maxReason)
	}
	return text, nil
}

// traceparent returns the caller's W3C trace context, or a fresh one where there
// is none that is valid.
func traceparent(header string) string {
	if validTraceparent(header) {
		return header
	}
	var ids [24]byte
	rand.Read(ids[:]) // never fails
	return "00-" + hex.EncodeToString(ids[:16]) + "-" + hex.EncodeToString(ids[16:]) + "-01"
}

// validTraceparent checks the form of https://www.w3.org/TR/trace-context:
// version, trace id, parent id and flags; a later version may add more.
func validTraceparent(s string) bool {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < length || len(s) > 2*length || len(s) > length && (s[:2] == "00" || s[length] != '-') {
		return false
	}
	if s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	zero := true
	for i, c := range []byte(s[:length]) {
		switch {
		case i == 2 || i == 35 || i == 52:
			zero = true
			continue
		case c >= '0' && c <= '9' || c >= 'a' && c <= 'f':
			zero = zero && c == '0'
		default:
			return false
		}
		if zero && (i == 34 || i == 51) {
			return false
		}
	}
	for _, c := range []byte(s[length:]) { // goes into headers again
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
