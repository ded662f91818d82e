package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/whimbrel-edge/whimbrel/models"
)

// printError says what went wrong, and what could be done about it.
func printError(w io.Writer, err error) {
	lines := explain(err)
	fmt.Fprintf(w, "error: %s\n", plain(lines[0]))
	for _, l := range lines[1:] {
		fmt.Fprintf(w, "  %s\n", plain(l))
	}
}

// explain puts an error into lines: what happened, then details and hints.
func explain(err error) []string {
	var unknown unknownHub
	if errors.As(err, &unknown) {
		lines := []string{unknown.Error()}
		for _, p := range unknown.places {
			lines = append(lines, "looked for "+p)
		}
		return append(lines, "start a hub here with: whimbrel up", "or say which one: --server URL --token TOKEN, or --context FILE")
	}
	var l lost
	if !errors.As(err, &l) {
		return explainAnswer(err)
	}
	var answered *models.Error
	if errors.As(err, &answered) {
		lines := explainAnswer(err)
		if answered.Kind == models.KindUnauthorized {
			from := "the token comes from " + l.target.tokenOrigin
			if l.target.Token == "" {
				from = "no token was given: use --token or WHIMBREL_TOKEN, or a context that has one"
			}
			lines = append(lines, from)
		}
		return lines
	}
	if !silent(err) {
		return explainAnswer(err)
	}
	return explainSilence(err, l.target)
}

// silent reports whether an error is that of a connection: whatever else goes
// wrong in a command, say with a file, is not for want of an answer.
func silent(err error) bool {
	var request *url.Error
	var network *net.OpError
	return errors.As(err, &request) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// explainAnswer puts what a hub answered, or a mistake in a file, into lines.
func explainAnswer(err error) []string {
	var e *models.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return strings.Split(strings.TrimSpace(err.Error()), "\n")
	}
	// What wraps the error stands before its text.
	before, _, _ := strings.Cut(err.Error(), e.Error())
	head := strings.TrimSuffix(strings.TrimSpace(before), ":")
	detail := e.Detail
	if detail == e.Fields[0].Error() {
		detail = "" // said below
	}
	switch {
	case detail == "" && head == "":
		head = "the hub refuses it"
	case detail != "" && head != "":
		head += ": " + detail
	case head == "":
		head = detail
	}
	lines := []string{head}
	for _, f := range e.Fields {
		lines = append(lines, f.Error())
	}
	return lines
}

// explainSilence puts why a hub could not be asked into lines.
func explainSilence(err error, t target) []string {
	lines := []string{fmt.Sprintf("no answer from %s: %s", t.Server, cause(err)), "the server comes from " + t.origin}
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		lines = append(lines, "nothing listens there")
		if u, perr := url.Parse(t.Server); perr == nil && local(u.Hostname()) {
			lines[len(lines)-1] += "; start a hub here with: whimbrel up"
		}
	case errors.As(err, &authority):
		lines = append(lines, "its certificate is not one to trust; name the hub's CA with --ca FILE")
	case errors.As(err, &hostname):
		lines = append(lines, "its certificate is for another name")
	case errors.As(err, &dns):
		lines = append(lines, "the name cannot be looked up")
	}
	return lines
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// cause is the innermost error that says something: net/http wraps a refused
// connection four times.
func cause(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the connection ended early"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		return "it took too long"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}
