package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

// A slot is a pod's name on this node. It outlives the generations that are in it.
type slot struct {
	m    *Manager
	key  key
	wake chan struct{} // one slot: look again
	busy sync.WaitGroup

	mu      sync.Mutex
	wanted  *models.Pod
	current string // hash of the wanted generation, "" until the engine's network is known
	gens    []*generation
	seenAt  time.Time // when the listing began that was last taken in
	actedAt time.Time // when the last step ended
	away    bool      // the engine does not answer
	stale   bool      // ConfigMaps, Secrets or the machine may have changed since refresh
	uid     string    // of the pod that is, or was last, wanted
	saved   string    // what the store has

	changed chan struct{} // closed and replaced when there is something new to look at

	wasReady bool      // as was last told
	turned   time.Time // when that last changed

	running bool // under Manager.mu: its loop was started
}

func newSlot(m *Manager, k key) *slot {
	return &slot{m: m, key: k, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// news tells who looks into the pod to look again. Under the lock.
func (s *slot) news() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// want says what is to run, nil for nothing. Called with the engine's network
// known or not: endpoints are nil as long as it is not.
func (s *slot) want(p *models.Pod, e *endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer notify(s.wake)
	defer s.news()
	s.wanted, s.stale = p, true
	if p == nil {
		s.current = ""
		return
	}
	s.uid = p.Metadata.UID
	if e == nil {
		return
	}
	hash, err := hashOf(p, s.m.life, e.of(p))
	if err != nil { // it came out of JSON
		s.m.cfg.Log.Error("a pod cannot be encoded", "pod", s.key, "error", err)
		return
	}
	s.current = hash
	g := s.find(hash)
	if g == nil {
		// Whoever is ready at this moment is what serves, however short that was.
		if !slices.ContainsFunc(s.gens, func(o *generation) bool { return o.Served }) {
			for _, o := range s.gens {
				o.Served = !o.readySince.IsZero()
			}
		}
		g = s.add(record{Hash: hash, Pod: *p, Password: newSecret(), Token: newSecret(), Created: time.Now()})
	}
	// The same containers may have a new generation number, revision or access.
	g.Pod = *p
	// The newest is the last: Decide takes the order for the order of their lives.
	s.gens = append(slices.DeleteFunc(s.gens, func(o *generation) bool { return o == g }), g)
	s.save()
}

func (s *slot) add(r record) *generation {
	g := newGeneration(r)
	g.volumes = volumes{dir: filepath.Join(s.m.cfg.DataDir, s.folder(r.Hash)), secretDir: filepath.Join(s.m.secretDir, s.folder(r.Hash)),
		secretRoot: s.m.secretDir, namespace: s.key.namespace, spec: g.spec(), from: s.m}
	g.suspendedAt = time.Now()
	s.gens = append(s.gens, g)
	return g
}

func (s *slot) folder(hash string) string {
	return filepath.Join(s.key.namespace+"."+s.key.name, hash)
}

// find returns a generation, nil when there is none. Under the lock.
func (s *slot) find(hash string) *generation {
	for _, g := range s.gens {
		if g.Hash == hash {
			return g
		}
	}
	return nil
}

// save stores what is to survive, and tells who apps are. Under the lock.
func (s *slot) save() {
	var records []record
	for _, g := range s.gens {
		if g.Password != "" {
			records = append(records, g.record)
		}
	}
	s.m.admit(s.key, records)
	text, err := json.Marshal(records)
	if err == nil && string(text) == s.saved {
		return
	}
	if err == nil {
		err = s.m.cfg.Store.SavePod(context.Background(), s.key.namespace, s.key.name, text)
	}
	if err != nil {
		s.m.cfg.Log.Error("storing what is known of a pod failed; after a restart it may be made anew", "pod", s.key, "error", err)
		return
	}
	s.saved = string(text)
}

// see takes in the containers of the slot as a listing that began at a time found
// them.
func (s *slot) see(at time.Time, containers []engine.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !at.After(s.actedAt) {
		return // older than what we did since
	}
	defer notify(s.wake)
	defer s.news()
	now, changed := time.Now(), false
	s.seenAt, s.away = at, false
	byGen := map[string]map[string]engine.Container{}
	strays := map[string][]string{}
	for _, c := range containers {
		id, name := c.Labels[labelGeneration], c.Labels[labelContainer]
		i := slices.IndexFunc(s.gens, func(g *generation) bool { return g.id() == id })
		if i < 0 { // of an earlier life
			s.gens, i = append([]*generation{newGeneration(record{Hash: id})}, s.gens...), 0
		}
		g := s.gens[i]
		hash := g.Hash
		if g.lives[name] == nil || byGen[hash][name].ID != "" {
			strays[hash] = append(strays[hash], c.ID)
			continue
		}
		if byGen[hash] == nil {
			byGen[hash] = map[string]engine.Container{}
		}
		byGen[hash][name] = c
	}
	for _, g := range s.gens {
		g.strays = strays[g.Hash]
		for name, l := range g.lives {
			c := byGen[g.Hash][name]
			if c.ID == "" && l.made.After(at) {
				continue // the listing is older than the container
			}
			changed = l.see(g, name, c, now, s.m.restarting) || changed
		}
		s.probe(g)
		g.judge(now)
	}
	if changed {
		s.save()
	}
}

// lose says that the engine does not answer.
func (s *slot) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = true
	for _, g := range s.gens {
		g.rest()
		g.readySince = time.Time{}
		s.unprobe(g)
	}
	s.news()
	notify(s.wake)
}

// judge says since when the generation is ready. Under the lock.
func (g *generation) judge(now time.Time) {
	if !g.ready() {
		g.readySince = time.Time{}
	} else if g.readySince.IsZero() {
		g.readySince = now
	}
}

// ready reports whether all containers are, or have done what they were for.
func (g *generation) ready() bool {
	for _, c := range g.spec().Containers {
		l := g.lives[c.Name]
		done := l.seen.State == engine.Exited && l.seen.ExitCode == 0 && !again(g.spec().RestartPolicy, 0) || g.done(c.Name) && g.Last[c.Name].ExitCode == 0
		if !done && !(l.seen.State == engine.Running && l.health.ready) {
			return false
		}
	}
	return len(g.lives) > 0
}

// settle is how long it must have been ready before another makes room for it.
func (g *generation) settle(m *Manager) time.Duration {
	for _, c := range g.spec().Containers {
		if c.ReadinessProbe == nil {
			return m.times.settle
		}
	}
	return 0
}

// steady reports whether a generation may take another's place. Where only time tells,
// it is the time at which it was last seen: of a container that has ended meanwhile a
// busy engine has not told yet. Under the lock.
func (s *slot) steady(g *generation) bool {
	settle := g.settle(s.m)
	return !g.readySince.IsZero() && (settle == 0 || s.seenAt.Sub(g.readySince) >= settle)
}

// unsure reports whether a generation would be steady if somebody looked. Under the lock.
func (s *slot) unsure(now time.Time) bool {
	return slices.ContainsFunc(s.gens, func(g *generation) bool {
		return !g.readySince.IsZero() && now.Sub(g.readySince) >= g.settle(s.m) && !s.steady(g)
	})
}

// probe starts probers for the containers that run and ends those of others.
// Under the lock.
func (s *slot) probe(g *generation) {
	for i := range g.spec().Containers {
		c := &g.spec().Containers[i]
		l := g.lives[c.Name]
		running := l.seen.State == engine.Running && !s.away
		if running && g.probing[c.Name] != nil && l.probed.Equal(l.seen.StartedAt) {
			continue
		}
		if end := g.probing[c.Name]; end != nil {
			end()
			delete(g.probing, c.Name)
		}
		if !running {
			continue
		}
		l.probed = l.seen.StartedAt
		if c.StartupProbe == nil && c.ReadinessProbe == nil && c.LivenessProbe == nil {
			l.health = health{started: true, ready: true}
			continue
		}
		ctx, end := context.WithCancel(s.m.ctx)
		g.probing[c.Name] = end
		started := l.seen.StartedAt
		p := &prober{container: c, id: l.seen.ID, host: s.host(g), exec: execIn(s.m.cfg.Engine), found: func(h health) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if ctx.Err() == nil && l.seen.StartedAt.Equal(started) {
				l.health = h
				g.judge(time.Now())
				notify(s.wake)
			}
		}}
		s.busy.Go(func() { p.run(ctx) })
	}
}

func (s *slot) unprobe(g *generation) {
	for name, end := range g.probing {
		end()
		delete(g.probing, name)
	}
}

// host is where a generation's ports are. Under the lock.
func (s *slot) host(g *generation) string {
	if g.spec().HostNetwork {
		return "127.0.0.1"
	}
	return g.lives[g.spec().Containers[0].Name].seen.IP
}

// view is what there is to decide on. Under the lock.
func (s *slot) view(now time.Time) View {
	v := View{Wanted: s.current, Deadline: s.m.times.deadline}
	for _, g := range s.gens {
		// The generation that is wanted when the network is not known is the newest.
		out := Generation{Hash: g.Hash, RestartPolicy: g.spec().RestartPolicy, Claims: claims(g.spec()), Strays: g.strays, Missing: g.missing.message,
			Served: g.Served, Suspended: g.Suspended, SuspendedAt: g.suspendedAt, GivenUp: g.GivenUp != "",
			Steady: s.steady(g)}
		for _, c := range g.spec().Containers {
			l := g.lives[c.Name]
			out.Containers = append(out.Containers, Container{Name: c.Name, Image: l.image, ID: l.seen.ID, State: l.seen.State, ExitCode: l.seen.ExitCode,
				StartedAt: l.seen.StartedAt, SharesID: l.seen.Labels[labelShares], Failed: l.failed, RetryAt: l.retryAt, Done: g.done(c.Name), Broken: l.broken, Unhealthy: l.health.unhealthy})
			if p := c.StartupProbe; p != nil && g.Hash == s.current {
				v.Deadline = max(v.Deadline, s.m.times.deadline+time.Duration(p.InitialDelaySeconds+p.PeriodSeconds*p.FailureThreshold)*time.Second)
			}
		}
		v.Generations = append(v.Generations, out)
	}
	return v
}

// run makes the slot what it is to be until nothing of it is left, or ctx ends.
func (s *slot) run(ctx context.Context) {
	defer s.busy.Wait()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, g := range s.gens {
			s.unprobe(g)
		}
	}()
	for ctx.Err() == nil {
		s.refresh()
		s.mu.Lock()
		now := time.Now()
		fresh := !s.away && s.seenAt.After(s.actedAt)
		undecided := s.wanted != nil && s.current == "" // the network is not known
		step := Step{Verb: Wait}
		if fresh && !undecided {
			step = s.view(now).Decide(now)
		}
		over := fresh && s.wanted == nil && len(s.gens) == 0
		until, unsure := s.soonest(step, now), s.unsure(now)
		s.mu.Unlock()
		s.m.tell(s)
		if over && s.m.leave(s) {
			s.mu.Lock()
			s.news()
			s.mu.Unlock()
			s.m.admit(s.key, nil)
			if err := s.m.cfg.Store.DropPod(context.WithoutCancel(ctx), s.key.namespace, s.key.name); err != nil {
				s.m.cfg.Log.Error("forgetting a pod failed", "pod", s.key, "error", err)
			}
			return
		}
		if step.Verb != Wait {
			s.do(ctx, step)
			continue
		}
		if unsure {
			s.m.look() // and that wakes this slot
		}
		s.sleep(ctx, until)
	}
}

// soonest is when to look again: zero for not before something happens. Under the
// lock.
func (s *slot) soonest(step Step, now time.Time) time.Time {
	until := step.Until
	for _, g := range s.gens {
		if g.readySince.IsZero() {
			continue
		}
		if at := g.readySince.Add(g.settle(s.m)); at.After(now) && (until.IsZero() || at.Before(until)) {
			until = at
		}
	}
	return until
}

func (s *slot) sleep(ctx context.Context, until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-timer:
	}
}

// do does a step. What it changes at the engine is seen by the next listing, and
// nothing is decided before that.
func (s *slot) do(ctx context.Context, step Step) {
	s.mu.Lock()
	g := s.find(step.Generation)
	s.mu.Unlock()
	if g == nil {
		return
	}
	log := s.m.cfg.Log.With("pod", s.key.String(), "generation", step.Generation)
	if step.Why != "" {
		log = log.With("why", step.Why)
	}
	if step.Container != "" {
		log = log.With("container", step.Container)
	}
	var err error
	switch step.Verb {
	case Fetch:
		s.fetch(ctx, g, step.Container)
		return
	case Serve, GiveUp, Resume, Forget:
		s.remember(g, step)
		log.Debug("pod", "step", step.Verb)
		return
	case Make, Start:
		select {
		case s.m.starts <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if step.Verb == Make {
			err = s.create(ctx, g, step.Container)
		} else {
			err = s.start(ctx, g, step.Container)
		}
		<-s.m.starts
	case Stop:
		err = s.stop(ctx, g, step.Container)
	case Suspend:
		s.remember(g, step)
		err = s.stopAll(ctx, g)
	case Remove:
		err = s.remove(ctx, g, step.IDs)
	}
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, engine.ErrUnavailable) {
		s.m.lost(err)
	} else if err != nil {
		log.Warn("pod", "step", step.Verb, "error", err)
	} else {
		log.Info("pod", "step", step.Verb)
	}
	s.mu.Lock()
	s.actedAt = time.Now()
	s.mu.Unlock()
	s.m.look()
}

// remember changes what is stored of a generation.
func (s *slot) remember(g *generation, step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch step.Verb {
	case Serve:
		g.Served = true
	case GiveUp:
		g.GivenUp = step.Why
		for name, l := range g.lives {
			if l.problem.message != "" {
				g.GivenUp += ": " + l.problem.message
			} else if t, ok := g.Last[name]; ok && l.failed > 0 {
				g.GivenUp += fmt.Sprintf(": exit code %d", t.ExitCode)
			}
		}
	case Suspend:
		g.Suspended, g.suspendedAt = true, time.Now()
		for _, l := range g.lives {
			l.stopping = problem{reason: "Suspended"}
		}
	case Resume:
		g.Suspended = false
		for _, l := range g.lives {
			l.failed, l.retryAt = 0, time.Time{}
		}
	case Forget:
		s.unprobe(g)
		s.gens = slices.DeleteFunc(s.gens, func(o *generation) bool { return o == g })
		if g.volumes.spec != nil {
			if err := g.volumes.remove(); err != nil {
				s.m.cfg.Log.Warn("removing the files of a pod failed", "pod", s.key, "error", err)
			}
		}
	}
	s.news()
	s.save()
}

// fetch has an image brought here. The slot is woken when it is, or is not.
func (s *slot) fetch(ctx context.Context, g *generation, name string) {
	s.mu.Lock()
	c := find(g.spec(), name) // the pod may be replaced by a like one meanwhile, never changed
	l := g.lives[name]
	l.image = ImageComing
	pinned := g.Images[name]
	s.mu.Unlock()
	s.busy.Go(func() {
		report := func(state ImageState, note problem, image *engine.Image) bool {
			digest := ""
			if image != nil {
				digest = s.m.digestOf(*image)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			l.image, l.imageNote = state, note
			if image != nil {
				l.imageID, g.Images[name] = digest, image.ID
				s.save()
			}
			notify(s.wake)
			return s.find(g.Hash) == g // else nobody waits for it any more
		}
		for n := 1; ; n++ {
			image, err := s.m.fetchImage(ctx, c, pinned, func(note string) { report(ImageComing, problem{models.ReasonContainerCreating, note}, nil) })
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				report(ImageReady, problem{}, &image)
				return
			}
			if errors.Is(err, engine.ErrUnavailable) { // no fault of the image; it is looked for when the engine is back
				report(ImageUnknown, problem{}, nil)
				s.m.lost(err)
				return
			}
			reason := models.ReasonErrImagePull
			switch {
			case errors.Is(err, errNeverPull):
				reason = models.ReasonErrImageNeverPull
			case n > 1:
				reason = models.ReasonImagePullBackOff
			}
			s.m.cfg.Log.Warn("an image is not to be had; it is tried again", "pod", s.key, "image", c.Image, "error", err)
			if !report(ImageFailed, problem{reason, err.Error()}, nil) {
				return
			}
			t := time.NewTimer(s.m.restarting.policy.Delay(n, 0))
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			s.mu.Lock()
			needed := s.find(g.Hash) == g
			s.mu.Unlock()
			if !needed {
				return
			}
		}
	})
}

func find(s *models.PodSpec, name string) *models.Container {
	i := slices.IndexFunc(s.Containers, func(c models.Container) bool { return c.Name == name })
	return &s.Containers[i]
}

// refresh makes the volumes of all generations what they are to be now, and says
// what is missing.
func (s *slot) refresh() {
	s.mu.Lock()
	stale, gens := s.stale, slices.Clone(s.gens)
	s.stale = false
	s.mu.Unlock()
	if !stale {
		return
	}
	for _, g := range gens {
		if g.Password != "" {
			_ = s.prepare(g) // it is said in the pod's status
		}
	}
}

// prepare makes the volumes and looks whether the environment is there. Called
// without the lock.
func (s *slot) prepare(g *generation) error {
	s.mu.Lock()
	pod := g.Pod
	v := g.volumes
	v.spec = &pod.Spec
	s.mu.Unlock()
	err := v.prepare()
	for i := range pod.Spec.Containers {
		if err == nil {
			_, err = environment(s.key.namespace, &pod.Spec.Containers[i], s.m, nil)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := g.missing
	g.missing = problem{}
	configs := s.m.configPrint(s.key.namespace, &pod.Spec)
	if g.configs != 0 && g.configs != configs {
		// Whoever has mended the configuration need not wait for a back-off that is
		// about the former one.
		for _, l := range g.lives {
			l.retryAt = time.Time{}
		}
	}
	g.configs = configs
	if err != nil {
		g.missing = problem{models.ReasonCreateContainerError, err.Error()}
		var m missing
		if errors.As(err, &m) {
			g.missing.reason = models.ReasonConfigNotFound
		}
		if g.missing != before {
			s.m.cfg.Log.Warn("a pod cannot have what it needs", "pod", s.key, "error", err)
		}
	}
	return err
}

// create makes a container and starts it.
func (s *slot) create(ctx context.Context, g *generation, name string) error {
	if err := s.prepare(g); err != nil {
		return err // tried again when what the hub wants has changed, and by the manager's clock
	}
	var id string
	spec, err := s.spec(g, name)
	if err == nil {
		call, cancel := context.WithTimeout(ctx, s.m.times.call)
		s.mu.Lock()
		pinned := g.Images[name]
		s.mu.Unlock()
		spec.Image = s.m.imageName(call, spec.Image, pinned)
		id, err = s.m.cfg.Engine.Create(call, spec)
		cancel()
	}
	s.mu.Lock()
	l := g.lives[name]
	switch {
	case err == nil:
		l.problem = problem{}
	case errors.Is(err, engine.ErrUnavailable):
	case errors.Is(err, engine.ErrNotFound): // the image went meanwhile, or the network
		l.image = ImageUnknown
		s.m.restarting.failure(l, time.Now(), false)
		l.problem = problem{models.ReasonCreateContainerError, err.Error()}
		s.m.networkDoubtful()
	default:
		s.m.restarting.failure(l, time.Now(), false)
		l.problem = problem{models.ReasonCreateContainerError, err.Error()}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.mu.Lock()
	l.seen, l.made = engine.Container{ID: id, State: engine.Created}, time.Now() // what start is about
	s.mu.Unlock()
	return s.start(ctx, g, name)
}

// spec is what a container is made from.
func (s *slot) spec(g *generation, name string) (engine.Spec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod, c := &g.Pod, find(g.spec(), name)
	e := s.m.endpointsNow()
	if e == nil {
		return engine.Spec{}, fmt.Errorf("%w: its network is not known", engine.ErrUnavailable)
	}
	at := e.of(pod)
	env, err := environment(s.key.namespace, c, s.m, map[string]string{
		"WHIMBREL_MQTT_URL": at.MQTT, "WHIMBREL_MQTT_USERNAME": username(s.key), "WHIMBREL_MQTT_PASSWORD": g.Password,
		"WHIMBREL_API_URL": at.API, "WHIMBREL_API_TOKEN": g.Token, "WHIMBREL_NODE": s.m.cfg.Node,
		"WHIMBREL_NAMESPACE": s.key.namespace, "WHIMBREL_POD": s.key.name,
	})
	if err != nil {
		return engine.Spec{}, err
	}
	mounts, devices, err := g.volumes.mounts(c)
	if err != nil {
		return engine.Spec{}, err
	}
	labels := s.m.labels()
	maps.Copy(labels, map[string]string{labelNamespace: s.key.namespace, labelPod: s.key.name, labelUID: pod.Metadata.UID, labelContainer: name,
		labelRevision: fmt.Sprint(pod.Revision()), labelGeneration: g.id(), labelEnv: longHash(env), labelNode: s.m.cfg.Node})
	spec := engine.Spec{Name: "whimbrel_" + s.key.namespace + "_" + s.key.name + "_" + name + "_" + g.Hash[:8], Image: c.Image, Labels: labels,
		Command: c.Command, Args: c.Args, Env: env, Mounts: mounts, Devices: devices,
		Memory: c.Resources.Limits.Memory.Value(), NanoCPUs: c.Resources.Limits.CPU.Milli() * 1e6, CPUShares: shares(c),
		LogBytes: g.spec().Logs.MaxSize.Value(), LogFiles: int(g.spec().Logs.MaxFiles)}
	switch first := g.spec().Containers[0].Name; {
	case g.spec().HostNetwork:
		spec.Network = engine.HostNetwork
	case name == first:
		spec.Network, spec.Ports, spec.Hostname = e.network, ports(g.spec()), hostname(s.key.name)
	default:
		labels[labelShares] = g.lives[first].seen.ID
		spec.Network = engine.ContainerNetwork(g.lives[first].seen.ID)
	}
	return spec, nil
}

// hostname is as much of a pod's name as a hostname can be.
func hostname(name string) string { return name[:min(len(name), 63)] }

// start starts a container that is there.
func (s *slot) start(ctx context.Context, g *generation, name string) error {
	// A volume in memory is not there after the machine was off.
	if err := s.prepare(g); err != nil {
		return err
	}
	s.mu.Lock()
	l := g.lives[name]
	id, again, env, begun := l.seen.ID, !l.seen.StartedAt.IsZero(), l.seen.Labels[labelEnv], l.begun
	s.mu.Unlock()
	if again {
		// Variables are of the container: where they have changed it takes another one.
		spec, err := s.spec(g, name)
		if err != nil {
			return err
		}
		if spec.Labels[labelEnv] != env {
			s.mu.Lock()
			defer s.mu.Unlock()
			l.broken = true
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.m.times.call)
	defer cancel()
	err := s.m.cfg.Engine.Start(ctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		l.problem, l.known, l.begun = problem{}, true, true
		if begun {
			g.Restarts[name]++
			s.save()
		}
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrNotFound):
	default:
		s.m.restarting.failure(l, time.Now(), false)
		l.problem, l.broken = problem{models.ReasonRunContainerError, err.Error()}, true
	}
	return err
}

// stop stops one container, which is to be started again.
func (s *slot) stop(ctx context.Context, g *generation, name string) error {
	s.mu.Lock()
	l := g.lives[name]
	l.stopping = problem{reason: "Network"}
	if l.health.unhealthy {
		l.stopping = problem{models.ReasonUnhealthy, l.health.problem}
		s.m.cfg.Log.Warn("a container is started anew", "pod", s.key, "container", name, "reason", l.health.problem)
	}
	id := l.seen.ID
	s.mu.Unlock()
	return s.stopOne(ctx, id, g.grace())
}

func (s *slot) stopOne(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+s.m.times.call)
	defer cancel()
	return s.m.cfg.Engine.Stop(ctx, id, grace)
}

func (s *slot) stopAll(ctx context.Context, g *generation) error {
	s.mu.Lock()
	var ids []string
	for _, l := range g.lives {
		if l.seen.State == engine.Running {
			ids = append(ids, l.seen.ID)
		}
	}
	s.mu.Unlock()
	return each(ids, func(id string) error { return s.stopOne(ctx, id, g.grace()) })
}

// each does something to all, at once.
func each(ids []string, do func(id string) error) error {
	errs := make([]error, len(ids))
	var wait sync.WaitGroup
	for i, id := range ids {
		wait.Go(func() { errs[i] = do(id) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// remove stops containers, all at once, and takes them away.
func (s *slot) remove(ctx context.Context, g *generation, ids []string) error {
	s.mu.Lock()
	for _, l := range g.lives {
		if slices.Contains(ids, l.seen.ID) {
			l.removed = true
		}
	}
	s.mu.Unlock()
	err := each(ids, func(id string) error { return s.stopOne(ctx, id, g.grace()) })
	if errors.Is(err, engine.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	// One that could not be stopped is killed by its removal.
	var errs []error
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(ctx, s.m.times.call)
		if err := s.m.cfg.Engine.Remove(ctx, id); err != nil && !errors.Is(err, engine.ErrNotFound) {
			errs = append(errs, err)
		}
		cancel()
	}
	return errors.Join(errs...)
}
