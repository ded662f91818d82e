package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// Fake is an engine.Engine that pretends. A container of it runs until it is
// stopped, or ends on its own as Behave says. It can be told to misbehave.
type Fake struct {
	// Behave says what a container does when it is started, by its arguments;
	// nil: it runs. Set before use.
	Behave func(c engine.Spec) Behaviour
	// OnExec answers Exec, until ctx ends; nil: it prints nothing and ends with 0. Set
	// before use.
	OnExec func(ctx context.Context, c engine.Spec, e engine.ExecSpec) int
	// Slow is how long an engine that is busy takes: List and Inspect after they have
	// looked, Start before the container runs. Set before use.
	Slow time.Duration

	mu         sync.Mutex
	down       error
	next       int
	containers map[string]*fakeContainer // by id
	images     map[string]engine.Image   // by reference
	registry   map[string]engine.Image   // what Pull finds
	networks   map[string]engine.Network
	events     []engine.Event
	changed    chan struct{} // closed and replaced with each event
	calls      []string
}

var _ engine.Engine = (*Fake)(nil)

// Behaviour is what a started container does.
type Behaviour struct {
	Err   error         // of Start
	Exits bool          // on its own …
	After time.Duration // … so long after the start
	Code  int
	OOM   bool
	// What it says when it starts, to stdout and then to stderr, and before it ends.
	Says, Grumbles, Last string
}

type fakeContainer struct {
	engine.Container
	spec  engine.Spec
	life  int // starts
	log   []engine.LogEntry
	timer *time.Timer
}

// NewFake returns an engine that has these images.
func NewFake(images ...string) *Fake {
	f := &Fake{containers: map[string]*fakeContainer{}, images: map[string]engine.Image{}, registry: map[string]engine.Image{},
		networks: map[string]engine.Network{}, changed: make(chan struct{})}
	for _, ref := range images {
		f.images[ref] = engine.Image{ID: "sha256:" + ref, Size: 1}
	}
	return f
}

// Publish puts an image where Pull finds it.
func (f *Fake) Publish(ref string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registry[ref] = engine.Image{ID: "sha256:" + ref, Digests: []string{ref + "@sha256:" + ref}, Size: 1}
}

// SetDown makes every call fail, or with nil work again. What streams goes on ends.
func (f *Fake) SetDown(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
	f.wake()
}

// Calls returns what was asked for so far: a verb and the container's name.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Networks returns the names of the networks.
func (f *Fake) Networks() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.networks))
}

// Spec returns what a container was made from, by its name.
func (f *Fake) Spec(name string) (engine.Spec, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Name == name {
			return c.spec, true
		}
	}
	return engine.Spec{}, false
}

// End ends a running container from inside, by name.
func (f *Fake) End(name string, code int, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Name == name && c.State == engine.Running {
			f.end(c, code, oom)
		}
	}
}

// Say makes a running container say something, by name.
func (f *Fake) Say(name string, to engine.Stream, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Name == name && c.State == engine.Running {
			f.say(c, to, text)
		}
	}
}

// fakeLine is how long an entry of a log can be, as Docker's.
const fakeLine = 16 << 10

func (f *Fake) say(c *fakeContainer, to engine.Stream, text string) {
	now := time.Now().UTC()
	for len(text) > 0 {
		n := strings.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		n = min(n, fakeLine)
		c.log = append(c.log, engine.LogEntry{Time: now, Stream: to, Data: []byte(text[:n])})
		text = text[n:]
	}
	f.wake()
}

func (f *Fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fake) happened(id, action string) {
	f.events = append(f.events, engine.Event{Container: id, Action: action, Time: time.Now()})
	f.wake()
}

// enter begins a call: mu is locked until the returned function is called.
func (f *Fake) enter(ctx context.Context, verb, name string) (func(), error) {
	f.mu.Lock()
	if err := ctx.Err(); err != nil {
		f.mu.Unlock()
		return nil, err
	}
	if f.down != nil {
		err := f.down
		f.mu.Unlock()
		return nil, err
	}
	if verb != "" {
		f.calls = append(f.calls, strings.TrimSpace(verb+" "+name))
	}
	return f.mu.Unlock, nil
}

func (f *Fake) dawdle() {
	if f.Slow > 0 {
		time.Sleep(f.Slow)
	}
}

// Close implements engine.Engine.
func (f *Fake) Close() error { return nil }

// Info implements engine.Engine.
func (f *Fake) Info(ctx context.Context) (engine.Info, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return engine.Info{}, err
	}
	defer leave()
	return engine.Info{Name: "fake", Version: "1", APIVersion: "1", OS: "linux", CPUs: 1, Memory: 1 << 30, Containers: len(f.containers), Images: len(f.images)}, nil
}

// Network implements engine.Engine.
func (f *Fake) Network(ctx context.Context, name string, _ map[string]string) (engine.Network, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return engine.Network{}, err
	}
	defer leave()
	if _, ok := f.networks[name]; !ok {
		f.networks[name] = engine.Network{Name: name, ID: name, Gateway: "127.0.0.1", Subnet: "127.0.0.0/8"}
	}
	return f.networks[name], nil
}

// RemoveNetwork implements engine.Engine.
func (f *Fake) RemoveNetwork(ctx context.Context, name string) error {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return err
	}
	defer leave()
	delete(f.networks, name)
	return nil
}

// List implements engine.Containers.
func (f *Fake) List(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return nil, err
	}
	defer f.dawdle()
	defer leave()
	var out []engine.Container
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		if c := f.containers[id]; has(c.Labels, labels) {
			short := c.Container
			short.ExitCode, short.Error, short.OOMKilled, short.StartedAt, short.FinishedAt = 0, "", false, time.Time{}, time.Time{}
			out = append(out, short)
		}
	}
	return out, nil
}

func has(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (f *Fake) find(id string) (*fakeContainer, error) {
	if c := f.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, engine.ErrNotFound)
}

// Inspect implements engine.Containers.
func (f *Fake) Inspect(ctx context.Context, id string) (engine.Container, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return engine.Container{}, err
	}
	defer f.dawdle()
	defer leave()
	c, err := f.find(id)
	if err != nil {
		return engine.Container{}, err
	}
	return c.Container, nil
}

// Create implements engine.Containers.
func (f *Fake) Create(ctx context.Context, s engine.Spec) (string, error) {
	leave, err := f.enter(ctx, "create", s.Name)
	if err != nil {
		return "", err
	}
	defer leave()
	image, ok := f.imageLocked(s.Image)
	if !ok {
		return "", fmt.Errorf("create %s: no image %s: %w", s.Name, s.Image, engine.ErrNotFound)
	}
	for _, c := range f.containers {
		if c.Name == s.Name {
			return "", fmt.Errorf("create %s: the name is taken: %w", s.Name, engine.ErrConflict)
		}
	}
	f.next++
	id := fmt.Sprintf("c%04d", f.next)
	f.containers[id] = &fakeContainer{spec: s, Container: engine.Container{ID: id, Name: s.Name, Image: s.Image, ImageID: image.ID, Labels: maps.Clone(s.Labels),
		State: engine.Created, CreatedAt: time.Now()}}
	f.happened(id, "create")
	return id, nil
}

// Start implements engine.Containers.
func (f *Fake) Start(ctx context.Context, id string) error {
	f.dawdle()
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return err
	}
	defer leave()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	if c.State == engine.Running {
		return nil
	}
	f.calls = append(f.calls, "start "+c.Name)
	var b Behaviour
	if f.Behave != nil {
		b = f.Behave(c.spec)
	}
	if b.Err != nil {
		c.Error = b.Err.Error()
		return b.Err
	}
	for _, p := range c.spec.Ports {
		for _, other := range f.containers {
			if other.State == engine.Running && slices.ContainsFunc(other.spec.Ports, func(q engine.Port) bool { return q.Host == p.Host && q.Protocol == p.Protocol && p.Host != 0 }) {
				return fmt.Errorf("start %s: port %d is taken", c.Name, p.Host)
			}
		}
	}
	c.life++
	life := c.life
	c.State, c.StartedAt, c.ExitCode, c.OOMKilled, c.Error, c.IP = engine.Running, time.Now(), 0, false, "", "127.0.0.1"
	f.say(c, engine.Stdout, b.Says)
	f.say(c, engine.Stderr, b.Grumbles)
	f.happened(id, "start")
	if b.Exits {
		c.timer = time.AfterFunc(b.After, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if c.life == life && c.State == engine.Running {
				f.say(c, engine.Stdout, b.Last)
				f.end(c, b.Code, b.OOM)
			}
		})
	}
	return nil
}

func (f *Fake) end(c *fakeContainer, code int, oom bool) {
	c.State, c.ExitCode, c.OOMKilled, c.FinishedAt, c.IP = engine.Exited, code, oom, time.Now(), ""
	if oom {
		f.happened(c.ID, "oom")
	}
	f.happened(c.ID, "die")
}

// Stop implements engine.Containers.
func (f *Fake) Stop(ctx context.Context, id string, _ time.Duration) error {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return err
	}
	defer leave()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	if c.State == engine.Running {
		f.calls = append(f.calls, "stop "+c.Name)
		f.end(c, 0, false)
	}
	return nil
}

// Remove implements engine.Containers.
func (f *Fake) Remove(ctx context.Context, id string) error {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return err
	}
	defer leave()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.calls = append(f.calls, "remove "+c.Name)
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.State == engine.Running {
		f.end(c, 137, false)
	}
	delete(f.containers, id)
	f.happened(id, "destroy")
	return nil
}

// imageLocked finds an image by a name or its id.
func (f *Fake) imageLocked(ref string) (engine.Image, bool) {
	image, ok := f.images[ref]
	for _, i := range f.images {
		if !ok && i.ID == ref {
			image, ok = i, true
		}
	}
	if !ok {
		return engine.Image{}, false
	}
	image.Names = nil
	for name, i := range f.images {
		if i.ID == image.ID {
			image.Names = append(image.Names, name)
		}
	}
	slices.Sort(image.Names)
	return image, true
}

// Image implements engine.Images.
func (f *Fake) Image(ctx context.Context, ref string) (engine.Image, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return engine.Image{}, err
	}
	defer leave()
	image, ok := f.imageLocked(ref)
	if !ok {
		return engine.Image{}, fmt.Errorf("image %s: %w", ref, engine.ErrNotFound)
	}
	return image, nil
}

// Pull implements engine.Images.
func (f *Fake) Pull(ctx context.Context, ref string, progress func(engine.Progress)) error {
	leave, err := f.enter(ctx, "pull", ref)
	if err != nil {
		return err
	}
	defer leave()
	image, ok := f.registry[ref]
	if !ok {
		return fmt.Errorf("pull %s: manifest unknown: %w", ref, engine.ErrNotFound)
	}
	if progress != nil {
		progress(engine.Progress{Done: 1, Total: 1, Layers: 1})
	}
	f.images[ref] = image
	return nil
}

// Tag implements engine.Images.
func (f *Fake) Tag(ctx context.Context, image, ref string) error {
	leave, err := f.enter(ctx, "tag", image)
	if err != nil {
		return err
	}
	defer leave()
	for name, i := range f.images {
		if name == image || i.ID == image {
			f.images[ref] = i
			return nil
		}
	}
	return fmt.Errorf("image %s: %w", image, engine.ErrNotFound)
}

// Untag implements engine.Images.
func (f *Fake) Untag(ctx context.Context, ref string) error {
	leave, err := f.enter(ctx, "untag", ref)
	if err != nil {
		return err
	}
	defer leave()
	image, ok := f.images[ref]
	if !ok {
		return fmt.Errorf("image %s: %w", ref, engine.ErrNotFound)
	}
	named, _ := f.imageLocked(ref)
	for _, c := range f.containers {
		if c.ImageID == image.ID && len(named.Names) == 1 {
			return fmt.Errorf("untag %s: container %s needs it: %w", ref, c.Name, engine.ErrConflict)
		}
	}
	delete(f.images, ref)
	return nil
}

// Load implements engine.Images. An archive is the references in it, one a line.
func (f *Fake) Load(ctx context.Context, archive io.Reader) ([]string, error) {
	text, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	leave, err := f.enter(ctx, "load", "")
	if err != nil {
		return nil, err
	}
	defer leave()
	names := strings.Fields(string(text))
	for _, ref := range names {
		f.images[ref] = engine.Image{ID: "sha256:" + ref, Size: 1}
	}
	return names, nil
}

// Events implements engine.Streams.
func (f *Fake) Events(ctx context.Context, labels map[string]string, since time.Time, emit func(engine.Event)) error {
	f.mu.Lock()
	at := len(f.events)
	if !since.IsZero() {
		at = slices.IndexFunc(f.events, func(e engine.Event) bool { return !e.Time.Before(since) })
		if at < 0 {
			at = len(f.events)
		}
	}
	f.mu.Unlock()
	known := map[string]bool{} // of containers that are gone meanwhile
	for {
		f.mu.Lock()
		if f.down != nil {
			err := f.down
			f.mu.Unlock()
			return err
		}
		var news []engine.Event
		for ; at < len(f.events); at++ {
			e := f.events[at]
			if c := f.containers[e.Container]; c != nil && has(c.Labels, labels) {
				known[e.Container] = true
			}
			if known[e.Container] {
				news = append(news, e)
			}
		}
		changed := f.changed
		f.mu.Unlock()
		for _, e := range news {
			emit(e)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Logs implements engine.Streams.
func (f *Fake) Logs(ctx context.Context, id string, o engine.LogOptions, emit func(engine.LogEntry) error) error {
	fits := func(e engine.LogEntry) bool {
		return (o.Only == engine.Both || o.Only == e.Stream) && !e.Time.Before(o.Since) && (o.Until.IsZero() || !e.Time.After(o.Until))
	}
	at, began := 0, false
	for {
		leave, err := f.enter(ctx, "", "")
		if err != nil {
			return err
		}
		c, err := f.find(id)
		if err != nil {
			leave()
			if began {
				return nil // it was removed
			}
			return err
		}
		var news []engine.LogEntry
		for ; at < len(c.log); at++ {
			if fits(c.log[at]) {
				news = append(news, c.log[at])
			}
		}
		if !began && o.Tail >= 0 {
			news = news[max(0, len(news)-o.Tail):]
		}
		began = true
		more, changed := o.Follow && c.State == engine.Running, f.changed
		leave()
		for _, e := range news {
			e.Data = bytes.Clone(e.Data)
			if err := emit(e); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Exec implements engine.Streams.
func (f *Fake) Exec(ctx context.Context, id string, e engine.ExecSpec) (int, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return 0, err
	}
	c, err := f.find(id)
	if err == nil && c.State != engine.Running {
		err = fmt.Errorf("exec: the container does not run: %w", engine.ErrConflict)
	}
	leave()
	if err != nil || f.OnExec == nil {
		return 0, err
	}
	if e.Stdout == nil {
		e.Stdout = io.Discard
	}
	if e.Stderr == nil {
		e.Stderr = io.Discard
	}
	code := f.OnExec(ctx, c.spec, e)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("exec: %w", ctx.Err())
	}
	return code, nil
}

// Stats implements engine.Streams.
func (f *Fake) Stats(ctx context.Context, id string) (engine.Stats, error) {
	leave, err := f.enter(ctx, "", "")
	if err != nil {
		return engine.Stats{}, err
	}
	defer leave()
	c, err := f.find(id)
	if err != nil {
		return engine.Stats{}, err
	}
	return engine.Stats{CPU: time.Second, Memory: 1 << 20, Limit: max(c.spec.Memory, 1<<20), Time: time.Now()}, nil
}

// Steps makes a Fake behave as the program of dockertest does with the steps that
// the suite uses; it is a Fake's Behave.
func Steps(c engine.Spec) (b Behaviour) {
	for _, step := range c.Args {
		switch name, arg, _ := strings.Cut(step, "="); name {
		case "say":
			if b.After > 0 {
				b.Last += arg + "\n"
			} else {
				b.Says += arg + "\n"
			}
		case "long":
			n, _ := strconv.Atoi(arg)
			b.Says += strings.Repeat("x", n) + "\n"
		case "grumble":
			b.Grumbles += arg + "\n"
		case "exit":
			b.Exits = true
			b.Code, _ = strconv.Atoi(arg)
		case "eat":
			b.Exits, b.Code, b.OOM = true, 137, true
		case "env":
			for _, e := range c.Env {
				if v, ok := strings.CutPrefix(e, arg+"="); ok {
					b.Says += v + "\n"
				}
			}
		case "sleep":
			b.After, _ = time.ParseDuration(arg)
		}
	}
	return b
}

// ExecSteps is the same for commands; it is a Fake's OnExec.
func ExecSteps(ctx context.Context, _ engine.Spec, e engine.ExecSpec) int {
	for _, step := range e.Command[1:] {
		switch name, arg, _ := strings.Cut(step, "="); name {
		case "say":
			fmt.Fprintln(e.Stdout, arg)
		case "grumble":
			fmt.Fprintln(e.Stderr, arg)
		case "echo":
			if e.Stdin != nil {
				_, _ = io.Copy(e.Stdout, e.Stdin)
			}
		case "winsize":
			if !e.TTY {
				fmt.Fprintln(e.Stdout, "no terminal")
				break
			}
			for changes, _ := strconv.Atoi(arg); changes >= 0; changes-- {
				select {
				case s := <-e.Resize:
					fmt.Fprintf(e.Stdout, "%d by %d\r\n", s.Columns, s.Rows)
				case <-ctx.Done():
					return 143
				}
			}
		case "sleep":
			d, _ := time.ParseDuration(arg)
			select {
			case <-ctx.Done():
				return 143
			case <-time.After(d):
			}
		case "exit":
			n, _ := strconv.Atoi(arg)
			return n
		}
	}
	return 0
}
