package serialsim

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// template is a text with signals in it: {name}, or {name:format} where format
// is what stands between % and the end of a verb of package fmt: .1f, 06.2f, d,
// x. {{ is a brace.
type template []part

// part is a text, or a signal.
type part struct {
	text   string
	signal string
	verb   string // "%…", or "" for the shortest form
}

func parseTemplate(text string, set *signal.Set) (template, error) {
	var t template
	literal := func(s string) {
		if s != "" {
			t = append(t, part{text: s})
		}
	}
	for {
		before, rest, any := strings.Cut(text, "{")
		literal(before)
		if !any {
			return t, nil
		}
		if after, ok := strings.CutPrefix(rest, "{"); ok {
			literal("{")
			text = after
			continue
		}
		inside, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("{%s has no }", rest)
		}
		name, format, formatted := strings.Cut(inside, ":")
		v, known := set.Value(name)
		if !known {
			return nil, fmt.Errorf("there is no signal %q", name)
		}
		p := part{signal: name}
		if formatted {
			if format == "" || strings.Contains(format, "%") || !strings.ContainsRune("dxXfegs", rune(format[len(format)-1])) ||
				strings.Trim(format[:len(format)-1], "0123456789.+- ") != "" || len(format) > 10 {
				return nil, fmt.Errorf("format %q of %s is not such as .1f, 06.2f, d, x or s", format, name)
			}
			p.verb = "%" + format
			if _, isText := v.(string); isText != (format[len(format)-1] == 's') {
				return nil, fmt.Errorf("format %q does not fit %s, which is %T", format, name, v)
			}
		}
		t = append(t, p)
		text = after
	}
}

// render is the text of the moment.
func (t template) render(set *signal.Set) string {
	var b strings.Builder
	for _, p := range t {
		if p.signal == "" {
			b.WriteString(p.text)
			continue
		}
		v, _ := set.Value(p.signal)
		f, isNumber := signal.Number(v)
		switch {
		case !isNumber:
			if p.verb == "" {
				fmt.Fprint(&b, v)
			} else {
				fmt.Fprintf(&b, p.verb, v)
			}
		case p.verb == "":
			if _, is := v.(float64); is || isBool(v) {
				b.WriteString(strconv.FormatFloat(f, 'f', -1, 64))
			} else {
				fmt.Fprint(&b, v)
			}
		case strings.ContainsRune("dxX", rune(p.verb[len(p.verb)-1])):
			switch v.(type) {
			case int64, uint64:
				fmt.Fprintf(&b, p.verb, v)
			default:
				fmt.Fprintf(&b, p.verb, int64(f))
			}
		default:
			fmt.Fprintf(&b, p.verb, f)
		}
	}
	return b.String()
}

func isBool(v any) bool { _, is := v.(bool); return is }

// parseLike reads a value of the kind that like is.
func parseLike(text string, like any) (any, error) {
	text = strings.TrimSpace(text)
	switch like.(type) {
	case bool:
		switch strings.ToLower(text) {
		case "1", "on", "true", "yes":
			return true, nil
		case "0", "off", "false", "no":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither on nor off", text)
	case string:
		return text, nil
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", text)
	}
	return f, nil
}
