package cloudapi

import (
	"bytes"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// minCompressed is the size from which on a text is compressed: what is smaller goes in
// one packet either way.
const minCompressed = 1 << 10

// compressible are the types that the API writes itself and at length. Streams of events
// and logs are not among them: what is said now is not to wait for more, and a gzip
// writer takes half a megabyte for as long as somebody listens. What apps, targets of
// routes and image layers answer stays as it is.
var compressible = []string{"application/json", "application/problem+json", "application/yaml", typeCSV, typeLines}

// zippers are gzip writers at rest. The quickest level is within a few percent of the
// default one on such texts.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // fails for unknown levels only
	return z
}}

func zipper(w io.Writer) *gzip.Writer {
	z, _ := zippers.Get().(*gzip.Writer)
	z.Reset(w)
	return z
}

// rest takes a writer back, in whichever state it is.
func rest(z *gzip.Writer) {
	z.Reset(io.Discard)
	zippers.Put(z)
}

// zipped compresses a whole answer and says so in its header, where the caller takes
// that and it is worth it. The ETag stays: it is of the object's version, whichever way
// that is written, nothing here is cached (no-store), and there are no ranges of it.
func (c *call) zipped(contentType string, text []byte) []byte {
	if !slices.Contains(compressible, contentType) {
		return text
	}
	h := c.w.Header()
	h.Add("Vary", "Accept, Accept-Encoding")
	if len(text) < minCompressed || !acceptsGzip(c.Header.Values("Accept-Encoding")) {
		return text
	}
	b := bytes.NewBuffer(make([]byte, 0, len(text)/4))
	z := zipper(b)
	defer rest(z)
	if _, err := z.Write(text); err != nil { // unreachable: a buffer takes all
		return text
	}
	if err := z.Close(); err != nil || b.Len() >= len(text) {
		return text
	}
	h.Set("Content-Encoding", "gzip")
	return b.Bytes()
}

// zips returns what compresses a stream that begins with a text, nil where it goes as it
// is: the caller does not take that, or the text is short and, since it is there, all.
func (c *call) zips(first []byte) *gzip.Writer {
	c.w.Header().Add("Vary", "Accept, Accept-Encoding")
	if len(first) > 0 && len(first) < minCompressed || !acceptsGzip(c.Header.Values("Accept-Encoding")) {
		return nil
	}
	c.w.Header().Set("Content-Encoding", "gzip")
	return zipper(c.w)
}

// acceptsGzip reports whether Accept-Encoding takes gzip, and not rather the text
// as it is.
func acceptsGzip(header []string) bool {
	if len(header) == 1 && header[0] == "gzip" { // Go's client
		return true
	}
	zip, others, plain := -1.0, -1.0, 0.0
	for part := range strings.SplitSeq(strings.Join(header, ","), ",") {
		coding, params, _ := strings.Cut(part, ";")
		q := 1.0
		if params != "" {
			_, values, err := mime.ParseMediaType("x/x;" + params)
			if err != nil {
				continue
			}
			if text, ok := values["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || q < 0 || q > 1 {
					continue
				}
			}
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			zip = max(zip, q)
		case "*":
			others = q
		case "identity":
			plain = q
		}
	}
	if zip < 0 {
		zip = others
	}
	return zip > 0 && zip >= plain
}
