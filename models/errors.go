package models

import (
	"errors"
	"fmt"
	"strings"
)

// ErrorKind sorts errors by what a caller can do about them. Each kind has one
// HTTP status. Kinds cross the wire: append only.
type ErrorKind string

// The error kinds.
const (
	KindMalformed    ErrorKind = "malformed"    // 400: the request cannot be read
	KindUnauthorized ErrorKind = "unauthorized" // 401: no valid token
	KindForbidden    ErrorKind = "forbidden"    // 403: the role does not allow it
	KindNotFound     ErrorKind = "not-found"    // 404
	KindConflict     ErrorKind = "conflict"     // 409: exists, or in use
	KindGone         ErrorKind = "gone"         // 410: watch or page too old
	KindPrecondition ErrorKind = "precondition" // 412: If-Match does not hold
	KindTooLarge     ErrorKind = "too-large"    // 413
	KindInvalid      ErrorKind = "invalid"      // 422: well-formed but wrong
	KindLocked       ErrorKind = "locked"       // 423: locked for maintenance
	KindTooMany      ErrorKind = "too-many"     // 429: slow down
	KindInternal     ErrorKind = "internal"     // 500
	KindRefused      ErrorKind = "refused"      // 502: the device or its mapper refused
	KindUnavailable  ErrorKind = "unavailable"  // 503: the node is offline, or the hub is not ready
	KindTimeout      ErrorKind = "timeout"      // 504: not confirmed in time
)

// kindStatus holds each kind's HTTP status (RFC 9110 section 15) and title.
var kindStatus = map[ErrorKind]struct {
	status int
	title  string
}{
	KindMalformed:    {400, "Bad Request"},
	KindUnauthorized: {401, "Unauthorized"},
	KindForbidden:    {403, "Forbidden"},
	KindNotFound:     {404, "Not Found"},
	KindConflict:     {409, "Conflict"},
	KindGone:         {410, "Gone"},
	KindPrecondition: {412, "Precondition Failed"},
	KindTooLarge:     {413, "Content Too Large"},
	KindInvalid:      {422, "Unprocessable Content"},
	KindLocked:       {423, "Locked"},
	KindTooMany:      {429, "Too Many Requests"},
	KindInternal:     {500, "Internal Server Error"},
	KindRefused:      {502, "Bad Gateway"},
	KindUnavailable:  {503, "Service Unavailable"},
	KindTimeout:      {504, "Gateway Timeout"},
}

// Status returns the HTTP status of the kind, 500 for an unknown one.
func (k ErrorKind) Status() int {
	if s, ok := kindStatus[k]; ok {
		return s.status
	}
	return kindStatus[KindInternal].status
}

// KindOfStatus returns the kind that an HTTP status stands for, KindInternal
// when there is none.
func KindOfStatus(status int) ErrorKind {
	for k, s := range kindStatus {
		if s.status == status {
			return k
		}
	}
	return KindInternal
}

// FieldError is one thing wrong with a document.
type FieldError struct {
	Pointer string `json:"pointer"` // JSON Pointer (RFC 6901) to the field, "" for the whole
	Detail  string `json:"detail"`  // what is wrong and what would be right
}

func (e FieldError) Error() string {
	if e.Pointer == "" {
		return e.Detail
	}
	return e.Pointer + ": " + e.Detail
}

// Error is an error with a kind, and for a document what is wrong where.
type Error struct {
	Kind   ErrorKind
	Detail string
	Fields []FieldError
	// Parameter is the query parameter or header that Detail is about, "" for none.
	Parameter string
}

func (e *Error) Error() string {
	parts := make([]string, 0, len(e.Fields)+1)
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	for _, f := range e.Fields {
		parts = append(parts, f.Error())
	}
	if len(parts) == 0 {
		return string(e.Kind)
	}
	return strings.Join(parts, "; ")
}

// Errorf returns an Error of a kind.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// Invalid returns a KindInvalid Error for one field.
func Invalid(pointer, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Fields: []FieldError{{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}}}
}

// BadParameter returns an Error about one query parameter or header of a request. The
// text follows its name.
func BadParameter(kind ErrorKind, name, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: name + " " + fmt.Sprintf(format, args...), Parameter: name}
}

// UnknownParameter is the error of a query that has a parameter of no such name.
func UnknownParameter(name string, known ...string) *Error {
	are := "there are none"
	if len(known) > 0 {
		are = "known are: " + strings.Join(known, ", ")
	}
	if len(name) > maxShownName {
		name = strings.ToValidUTF8(name[:maxShownName], "")
	}
	return &Error{Kind: KindMalformed, Detail: fmt.Sprintf("query parameter %q is not known here; %s", name, are), Parameter: name}
}

// maxShownName is how much is said back of a name that is none.
const maxShownName = 60

// InParameter says of an error of what a parameter's text means which parameter that
// is. Errors that are not of the text, and those that say where they are, stay as they
// are.
func InParameter(name string, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Parameter != "" || len(e.Fields) > 0 || e.Kind != KindMalformed && e.Kind != KindInvalid {
		return err
	}
	return &Error{Kind: e.Kind, Detail: e.Detail, Parameter: name}
}

// KindOf returns the kind of the first *Error in err's chain, KindInternal when
// there is none, and "" for nil.
func KindOf(err error) ErrorKind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// Problem is an error as RFC 9457 writes it: application/problem+json.
type Problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty"`
	Errors []ProblemError `json:"errors,omitempty"`
	ID     Value          `json:"$id,omitzero"` // echoed on MQTT
}

// ProblemError is one thing that is wrong: in the body, or in a parameter.
type ProblemError struct {
	Pointer   string `json:"pointer" doc:"A JSON Pointer (RFC 6901) into the body; empty for the whole of it, and beside parameter."`
	Parameter string `json:"parameter,omitempty" doc:"The query parameter or header that is wrong."`
	Detail    string `json:"detail" doc:"What is wrong, and what would be right."`
}

// ProblemOf describes err as a Problem. An error without a kind becomes an
// internal one whose text is not shown.
func ProblemOf(err error) Problem {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: KindInternal, Detail: "internal error; the log says more"}
	}
	status := e.Kind.Status()
	detail := e.Detail
	if detail == "" && len(e.Fields) > 0 {
		detail = e.Fields[0].Error()
	}
	var wrong []ProblemError
	for _, f := range e.Fields {
		wrong = append(wrong, ProblemError{Pointer: f.Pointer, Detail: f.Detail})
	}
	if e.Parameter != "" {
		wrong = append(wrong, ProblemError{Parameter: e.Parameter, Detail: e.Detail})
	}
	return Problem{Type: "urn:whimbrel:problem:" + string(e.Kind), Title: kindStatus[KindOfStatus(status)].title, Status: status,
		Detail: detail, Errors: wrong}
}

// Err turns a Problem that a server answered back into the error it was.
func (p Problem) Err() error {
	kind := KindOfStatus(p.Status)
	if k, ok := strings.CutPrefix(p.Type, "urn:whimbrel:problem:"); ok && ErrorKind(k).Status() == p.Status {
		kind = ErrorKind(k)
	}
	e := &Error{Kind: kind, Detail: p.Detail}
	for _, w := range p.Errors {
		if w.Parameter != "" && w.Detail == p.Detail {
			e.Parameter = w.Parameter
			continue
		}
		e.Fields = append(e.Fields, FieldError{Pointer: w.Pointer, Detail: w.Detail})
	}
	if len(e.Fields) == 1 && p.Detail == e.Fields[0].Error() {
		e.Detail = ""
	}
	return e
}
