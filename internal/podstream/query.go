package podstream

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/models"
)

// LogParams and ExecParams are the parameters that ParseLog and ParseExec read, by
// the names that Kubernetes gives them; revision is ours.
var (
	LogParams  = []string{"container", "revision", "previous", "follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "stream"}
	ExecParams = []string{"container", "command", "stdin", "stdout", "stderr", "tty"}
)

// ParseLog reads the parameters of a log. Errors are KindMalformed. Namespace and
// pod are for the caller to set.
func ParseLog(q url.Values) (r LogRequest, err error) {
	p := params{q: q}
	r = LogRequest{Container: p.container(), Previous: p.flag("previous", false), Follow: p.flag("follow", false), Timestamps: p.flag("timestamps", false)}
	r.Revision = p.number("revision", 1)
	r.SinceSeconds = p.number("sinceSeconds", 1)
	if q.Has("tailLines") {
		n := int(p.number("tailLines", 0))
		r.Tail = &n
	}
	if text := q.Get("sinceTime"); text != "" {
		if r.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			p.wrong("sinceTime", "must be a time such as 2026-01-02T15:04:05Z, got %.60q", text)
		}
	}
	switch text := q.Get("stream"); text {
	case "", "All":
	case "Stdout", "Stderr":
		r.Stream = strings.ToLower(text)
	default:
		p.wrong("stream", "must be All, Stdout or Stderr, got %.40q", text)
	}
	switch {
	case r.SinceSeconds > 0 && !r.Since.IsZero():
		p.wrong("sinceSeconds", "and sinceTime cannot be had together")
	case r.Previous && r.Follow:
		p.wrong("previous", "cannot be had with follow: it has ended")
	}
	return r, p.err
}

// ParseExec reads the parameters of a command. Errors are KindMalformed. Namespace
// and pod are for the caller to set.
func ParseExec(q url.Values) (r ExecRequest, stdout, stderr bool, err error) {
	p := params{q: q}
	r = ExecRequest{Container: p.container(), Command: q["command"], Stdin: p.flag("stdin", false), TTY: p.flag("tty", false)}
	stdout, stderr = p.flag("stdout", true), p.flag("stderr", true)
	total := 0
	for _, word := range r.Command {
		total += len(word) + 1
		if !utf8.ValidString(word) || strings.ContainsRune(word, 0) {
			p.wrong("command", "must be UTF-8 text without zero bytes, got %.60q", word)
		}
	}
	switch {
	case len(r.Command) == 0 || r.Command[0] == "":
		p.wrong("command", "must say what to run: command=sh&command=-c&command=date")
	case total > MaxCommand:
		p.wrong("command", "has %d bytes, more than %d", total, MaxCommand)
	case !stdout && !stderr && !r.Stdin:
		p.wrong("stdin", "must be true where stdout and stderr are false")
	}
	return r, stdout, stderr, p.err
}

// params reads parameters and keeps the first error.
type params struct {
	q   url.Values
	err error
}

func (p *params) wrong(name, format string, args ...any) {
	if p.err == nil {
		p.err = models.BadParameter(models.KindMalformed, name, format, args...)
	}
}

func (p *params) container() string {
	name := p.q.Get("container")
	if name != "" && models.CheckLabelName(name) != "" {
		p.wrong("container", "must be the name of one, got %.80q", name)
	}
	return name
}

func (p *params) flag(name string, unsaid bool) bool {
	if !p.q.Has(name) {
		return unsaid
	}
	b, err := strconv.ParseBool(p.q.Get(name))
	if err != nil {
		p.wrong(name, "must be true or false, got %.40q", p.q.Get(name))
	}
	return b
}

func (p *params) number(name string, least int64) int64 {
	text := p.q.Get(name)
	if !p.q.Has(name) {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < least {
		p.wrong(name, "must be an int from %d, got %.40q", least, text)
	}
	return n
}

// The WebSocket subprotocols of a command, Kubernetes' own. Each message is a byte
// that is the channel, and what goes over it. In the later one the byte 255 and a
// channel end that channel.
const (
	ProtocolV5 = "v5.channel.k8s.io"
	ProtocolV4 = "v4.channel.k8s.io"
)

// CheckUpgrade refuses a request that asks for no WebSocket of a known subprotocol.
func CheckUpgrade(r *http.Request) error {
	has := func(header, want string) bool {
		return slices.ContainsFunc(strings.Split(strings.Join(r.Header.Values(header), ","), ","), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), want) })
	}
	if r.Method != http.MethodGet || !has("Connection", "upgrade") || !has("Upgrade", "websocket") {
		return models.Errorf(models.KindMalformed, "a command needs a WebSocket: GET with Upgrade: websocket")
	}
	if !has("Sec-WebSocket-Protocol", ProtocolV5) && !has("Sec-WebSocket-Protocol", ProtocolV4) {
		return models.Errorf(models.KindMalformed, "a command needs the WebSocket subprotocol %s or %s", ProtocolV5, ProtocolV4)
	}
	return nil
}
