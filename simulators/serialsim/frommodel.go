package serialsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/lifelike"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// address is a property's address as the serial driver takes it.
type address struct {
	Read   string `json:"read"`
	Match  string `json:"match"`
	Write  string `json:"write"`
	Expect string `json:"expect"`
}

// spoken is a property and how it is told.
type spoken struct {
	property models.Property
	address  address
	match    *regexp.Regexp // nil: the whole answer
	signal   string
	samples  []any  // values that it may have
	place    string // the value in a template
	text     string // a template that the property's match fits
}

// FromModel makes a configuration that understands the model's questions and
// writes, or says unasked what the model waits for: what is read moves, what is
// written is remembered. Messages end with "\r\n" and have no checksum, as where
// a device's connection says nothing.
func FromModel(m *models.DeviceModel) (Config, error) {
	cfg := Config{Name: m.Metadata.Name, Signals: map[string]signal.Spec{}, Inputs: map[string]any{}}
	var errs []error
	byQuestion := map[string][]*spoken{}
	for n, p := range m.Spec.Properties {
		sp, err := speak(&cfg, p, n)
		if err == nil && p.Access.Writable() {
			err = obey(&cfg, sp)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("property %s: %w", p.Name, err))
			continue
		}
		if p.Access.Readable() {
			byQuestion[sp.address.Read] = append(byQuestion[sp.address.Read], sp)
		}
	}
	unasked := byQuestion[""]
	delete(byQuestion, "")
	if len(unasked) > 0 && len(byQuestion) > 0 {
		errs = append(errs, fmt.Errorf("property %s has no read, and others do: a device talks unasked or is asked", unasked[0].property.Name))
	}
	for _, question := range slices.Sorted(maps.Keys(byQuestion)) {
		answer, left := answerFor(byQuestion[question])
		for _, sp := range left {
			errs = append(errs, fmt.Errorf("property %s: no answer to %q comes to mind that fits its match and the others': describe the device in a file", sp.property.Name, question))
		}
		cfg.Commands = append(cfg.Commands, Command{Ask: regexp.QuoteMeta(question), Answer: answer})
	}
	for len(unasked) > 0 {
		first := unasked[0]
		if first.text == "" {
			errs = append(errs, fmt.Errorf("property %s: no message comes to mind that fits its match: describe the device in a file", first.property.Name))
			unasked = unasked[1:]
			continue
		}
		// One message tells of all properties that it fits.
		unasked = slices.DeleteFunc(unasked, func(sp *spoken) bool { return sp == first || sp.readsIn(first.text, []*spoken{first, sp}) })
		cfg.Unasked = append(cfg.Unasked, Unasked{Every: every(first.property), Send: first.text})
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, fmt.Errorf("serialsim: model %s: %w", m.Metadata.Name, err)
	}
	return cfg, nil
}

func every(p models.Property) time.Duration {
	if p.Every != nil {
		return p.Every.Std()
	}
	return models.DefaultEvery
}

// speak gives a property a signal or an input, and a template for its value.
func speak(cfg *Config, p models.Property, n int) (*spoken, error) {
	sp := &spoken{property: p, signal: lifelike.Name(p.Name)}
	if len(p.Address) == 0 {
		return nil, errors.New("it has no address")
	}
	if err := models.DecodeInto(p.Address, &sp.address); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	var group *syntax.Regexp
	var whole *syntax.Regexp
	if sp.address.Match != "" {
		var err error
		if sp.match, err = regexp.Compile(sp.address.Match); err != nil {
			return nil, fmt.Errorf("match: %w", err)
		}
		whole, err = syntax.Parse(sp.address.Match, syntax.Perl)
		if group = firstGroup(whole); err != nil || group == nil {
			return nil, errors.New("match: it has no group")
		}
	}
	format, v, spec, err := sp.tell(n, group)
	if err != nil {
		return nil, err
	}
	sp.place = "{" + sp.signal + format + "}"
	if p.Access.Writable() {
		cfg.Inputs[sp.signal] = v
		if spec.Expr != "" { // the input in other words
			said := sp.signal + "_said"
			spec.Expr = strings.ReplaceAll(spec.Expr, "INPUT", sp.signal)
			cfg.Signals[said] = spec
			sp.place = "{" + said + "}"
		}
	} else {
		cfg.Signals[sp.signal] = spec
	}
	sp.text = sp.place
	if whole != nil {
		var b strings.Builder
		write(&b, whole, sp.place)
		sp.text = b.String()
	}
	if !sp.readsIn(sp.text, []*spoken{sp}) {
		sp.text = ""
	}
	return sp, nil
}

// numbers are the formats in which numbers are tried, the plainest first.
var numbers = func() []string {
	var out []string
	for _, digits := range []string{"2", "1", "3", "0", "4", "5", "6"} {
		out = append(out, ":."+digits+"f")
	}
	for width := 2; width <= 12; width++ {
		for _, digits := range []string{"0", "1", "2", "3"} {
			w := strconv.Itoa(width)
			out = append(out, ":0"+w+"."+digits+"f", ":+0"+w+"."+digits+"f", ":"+w+"."+digits+"f", ":+"+w+"."+digits+"f")
		}
	}
	return append(out, ":+.2f", ":+.1f", ":e")
}()

// onOff are the words that the driver takes for true and false.
var onOff = [][2]string{{"ON", "OFF"}, {"on", "off"}, {"On", "Off"}, {"TRUE", "FALSE"}, {"true", "false"}, {"YES", "NO"}, {"yes", "no"}}

// tell finds a format in which the group that holds the value takes the
// property's values.
func (sp *spoken) tell(n int, group *syntax.Regexp) (format string, start any, spec signal.Spec, err error) {
	fits := func(string) bool { return true }
	if group != nil {
		re, err := regexp.Compile(`^(?:` + group.String() + `)$`)
		if err != nil {
			return "", nil, spec, err
		}
		fits = re.MatchString
	}
	p := sp.property
	step := 0.0
	switch p.Type {
	case models.TypeBool:
		v := lifelike.For(p, lifelike.Format{}, n)
		if fits("1") && fits("0") {
			sp.samples = []any{true, false}
			return "", true, v.Signal, nil
		}
		for _, words := range onOff {
			if !fits(words[0]) || !fits(words[1]) {
				continue
			}
			sp.samples = []any{words[0], words[1]}
			if p.Access.Writable() {
				return "", true, signal.Spec{Expr: fmt.Sprintf("INPUT ? %q : %q", words[0], words[1])}, nil
			}
			v.Signal.List.Values = []any{words[0], words[1]}
			return "", nil, v.Signal, nil
		}
	case models.TypeInt, models.TypeFloat:
		formats := numbers
		if p.Type == models.TypeInt {
			formats, step = nil, 1
			for _, f := range numbers {
				if strings.Contains(f, ".0f") {
					formats = append(formats, f)
				}
			}
		}
		v := lifelike.For(p, lifelike.Format{Low: -1e9, High: 1e9, Step: step}, n)
		for _, f := range formats {
			sp.samples = samples(v)
			if all(sp.samples, func(x any) bool { number, _ := signal.Number(x); return fits(fmt.Sprintf("%"+f[1:], number)) }) {
				return f, v.Start, v.Signal, nil
			}
		}
		var b strings.Builder // a number that the group itself tells
		write(&b, group, "")
		f, err := strconv.ParseFloat(b.String(), 64)
		minimum, maximum := lifelike.Bounds(p)
		if err == nil && !p.Access.Writable() && (minimum == nil || f >= *minimum) && (maximum == nil || f <= *maximum) {
			sp.samples = []any{b.String()}
			return "", nil, signal.Spec{Constant: b.String()}, nil
		}
	default:
		s := lifelike.Text(64, "")
		if group != nil && !fits(s) {
			var b strings.Builder
			write(&b, group, "")
			s = strings.NewReplacer("{{", "{").Replace(b.String())
		}
		if fits(s) {
			sp.samples = []any{s}
			return "", s, signal.Spec{Constant: s}, nil
		}
	}
	return "", nil, spec, errors.New("no value comes to mind that fits its match: describe the device in a file")
}

// samples are the ends of where a value moves.
func samples(v lifelike.Values) []any {
	switch s := v.Signal; {
	case s.Sine != nil:
		return []any{s.Sine.Min, s.Sine.Max}
	case s.Ramp != nil:
		return []any{s.Ramp.From, s.Ramp.To}
	case s.List != nil:
		return s.List.Values
	}
	return []any{v.Start}
}

func all(list []any, ok func(any) bool) bool {
	return !slices.ContainsFunc(list, func(x any) bool { return !ok(x) })
}

// answerFor is a template that fits all who ask the same, and those for whom
// there is none.
func answerFor(all []*spoken) (template string, left []*spoken) {
	var texts []string
	for _, sp := range all {
		if sp.text != "" && !slices.Contains(texts, sp.text) {
			texts = append(texts, sp.text)
		}
	}
	tries := slices.Clone(texts)
	for _, glue := range []string{" ", ",", ";", ""} {
		tries = append(tries, strings.Join(texts, glue))
		reversed := slices.Clone(texts)
		slices.Reverse(reversed)
		tries = append(tries, strings.Join(reversed, glue))
	}
	left = all
	for _, try := range tries {
		not := slices.DeleteFunc(slices.Clone(all), func(sp *spoken) bool { return sp.readsIn(try, all) })
		if len(not) < len(left) {
			template, left = try, not
		}
	}
	return template, left
}

var hole = regexp.MustCompile(`\{(p_[A-Za-z0-9_]+)(:[^}]*)?\}`)

// readsIn tells whether the property finds its value in what the template says,
// with the samples of all who are in it.
func (sp *spoken) readsIn(template string, all []*spoken) bool {
	for i := range 2 {
		said := hole.ReplaceAllStringFunc(template, func(h string) string {
			for _, o := range all {
				if strings.HasPrefix(o.place, h) {
					return o.sample(i)
				}
			}
			return ""
		})
		said = strings.ReplaceAll(said, "{{", "{")
		want := sp.sample(i)
		got := strings.TrimSpace(said)
		if sp.match != nil {
			m := sp.match.FindStringSubmatch(said)
			if m == nil {
				return false
			}
			got = m[1]
		}
		if strings.TrimSpace(got) != strings.TrimSpace(want) && !sp.takes(got) {
			return false
		}
	}
	return true
}

// takes tells whether a text that is not the property's own would do.
func (sp *spoken) takes(text string) bool {
	switch text = strings.TrimSpace(text); sp.property.Type {
	case models.TypeString, models.TypeBytes:
		return text != ""
	}
	return false
}

// sample is the i-th sample as it is said.
func (sp *spoken) sample(i int) string {
	v := sp.samples[i%len(sp.samples)]
	_, format, any := strings.Cut(strings.Trim(sp.place, "{}"), ":")
	switch f, isNumber := signal.Number(v); {
	case any:
		return fmt.Sprintf("%"+format, f)
	case isNumber:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// obey makes the command that writes a property.
func obey(cfg *Config, sp *spoken) error {
	before, after, ok := strings.Cut(sp.address.Write, "{value}")
	if !ok {
		return errors.New("write: it has no {value}")
	}
	group := map[models.Type]string{models.TypeBool: "([01])", models.TypeInt: "([-+0-9]+)", models.TypeFloat: "([-+0-9.]+)"}[sp.property.Type]
	if group == "" {
		group = "(.*)"
	}
	ask := regexp.QuoteMeta(before) + group + strings.ReplaceAll(regexp.QuoteMeta(after), regexp.QuoteMeta("{value}"), ".*")
	c := Command{Ask: ask, Set: sp.signal}
	if t := sp.property.Type; t == models.TypeInt || t == models.TypeFloat {
		c.Minimum, c.Maximum = lifelike.Bounds(sp.property)
	}
	if expect := sp.address.Expect; expect != "" {
		tree, err := syntax.Parse(expect, syntax.Perl)
		if err != nil {
			return fmt.Errorf("expect: %w", err)
		}
		var b strings.Builder
		write(&b, tree, "")
		c.Answer, c.Refuse = b.String(), "ERR"
		re, err := regexp.Compile(`^(?:` + expect + `)$`)
		if err != nil || !re.MatchString(strings.ReplaceAll(c.Answer, "{{", "{")) {
			return errors.New("no answer comes to mind that fits its expect: describe the device in a file")
		}
		if re.MatchString(c.Refuse) {
			c.Refuse = ""
		}
	}
	cfg.Commands = append(cfg.Commands, c)
	return nil
}

// firstGroup is what the first group of an expression holds.
func firstGroup(re *syntax.Regexp) *syntax.Regexp {
	if re == nil || re.Op == syntax.OpCapture && re.Cap == 1 {
		if re == nil {
			return nil
		}
		return re.Sub[0]
	}
	for _, sub := range re.Sub {
		if g := firstGroup(sub); g != nil {
			return g
		}
	}
	return nil
}

// write writes a short text that an expression matches, as a template, with
// place for its first group.
func write(b *strings.Builder, re *syntax.Regexp, place string) {
	literal := func(r rune) {
		if r == '{' {
			b.WriteByte('{') // doubled in a template
		}
		b.WriteRune(r)
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			literal(r)
		}
	case syntax.OpCharClass:
		literal(pick(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		literal('x')
	case syntax.OpCapture:
		if re.Cap == 1 && place != "" {
			b.WriteString(place)
			return
		}
		write(b, re.Sub[0], place)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			write(b, sub, place)
		}
	case syntax.OpAlternate:
		// The branch that holds the value, if one does.
		branch := re.Sub[0]
		for _, sub := range re.Sub {
			if place != "" && holdsGroup(sub) {
				branch = sub
				break
			}
		}
		write(b, branch, place)
	case syntax.OpPlus:
		write(b, re.Sub[0], place)
	case syntax.OpStar, syntax.OpQuest:
		if place != "" && holdsGroup(re) {
			write(b, re.Sub[0], place)
		}
	case syntax.OpRepeat:
		n := re.Min
		if n == 0 && place != "" && holdsGroup(re) {
			n = 1
		}
		for range n {
			write(b, re.Sub[0], place)
		}
	}
}

func holdsGroup(re *syntax.Regexp) bool {
	if re.Op == syntax.OpCapture && re.Cap == 1 {
		return true
	}
	return slices.ContainsFunc(re.Sub, holdsGroup)
}

// pick is a character of a class (pairs of bounds), one that prints if there is
// any.
func pick(class []rune) rune {
	for _, want := range []rune("0aA -_.:=") {
		for i := 0; i+1 < len(class); i += 2 {
			if class[i] <= want && want <= class[i+1] {
				return want
			}
		}
	}
	for i := 0; i+1 < len(class); i += 2 {
		if r := max(class[i], ' '); r <= class[i+1] && r < 0x7F {
			return r
		}
	}
	if len(class) == 0 {
		return 'x'
	}
	return class[0]
}

// ModelConnection is what a device's connection says to reach the simulator.
func (s *Server) ModelConnection() json.RawMessage {
	c := map[string]any{"url": s.URL()}
	if len(s.unasked) > 0 {
		c["listen"] = true
	}
	text, _ := json.Marshal(c) // strings and bools do not fail
	return text
}
