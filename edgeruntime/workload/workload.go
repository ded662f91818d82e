package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/images"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// The labels of containers and networks. The first two say whose they are.
const (
	labelData       = "whimbrel.data" // the data directory of the edge
	labelLife       = "whimbrel.life" // of the store in it
	labelNode       = "whimbrel.node"
	labelNamespace  = "whimbrel.namespace"
	labelPod        = "whimbrel.pod"
	labelUID        = "whimbrel.pod-uid"
	labelContainer  = "whimbrel.container"
	labelRevision   = "whimbrel.revision"
	labelGeneration = "whimbrel.generation"
	labelEnv        = "whimbrel.environment" // hash of the variables
	labelShares     = "whimbrel.shares"      // id of the container whose network it has
)

// Store keeps what is to survive a restart. *store.Store is one.
type Store interface {
	// Pods returns what SavePod stored, by namespace and name.
	Pods(ctx context.Context) ([]store.Pod, error)
	// SavePod returns when it survives a power loss.
	SavePod(ctx context.Context, namespace, name string, state []byte) error
	// DropPod forgets it.
	DropPod(ctx context.Context, namespace, name string) error
}

// Images brings images into the engine, and takes them away again. *images.Puller is
// one.
type Images interface {
	// Pull returns when the engine has the image under the name that images.LocalName
	// says. progress is called from one goroutine.
	Pull(ctx context.Context, ref string, progress func(engine.Progress)) error
	// Digest is what registries call an image, by the engine's id; "" when that is not known.
	Digest(id string) string
	// Recover finishes what a life before has begun.
	Recover(ctx context.Context) error
	// Collect removes what was brought here and is not used any more. used answers at
	// once. It may return without having removed everything that could go.
	Collect(ctx context.Context, used func(id string, names []string) bool) error
}

// Config is what a Manager needs.
type Config struct {
	Engine engine.Engine
	Store  Store
	Node   string
	// Life tells one life of the store from another: containers of another one are
	// not taken over.
	Life string
	// DataDir is an absolute path of a folder of its own, for the files of pods.
	DataDir string
	// SecretDir is one in memory for the files of Secrets, "" where there is none.
	SecretDir string
	// Listen makes the edge's broker and REST reachable at the address where
	// containers find this machine, and says where they are. It is called each time
	// the engine is found, with the same address or another one, and with "" when
	// there is no need any more.
	Listen func(gateway string) (Endpoints, error)
	// Local says where the edge is for containers in the machine's own network.
	Local func() Endpoints
	// Images fetches images that are not here; nil: the engine does, from registries.
	Images Images
	// RestartDelay is how long a container that has failed twice waits to be started
	// again, at first; 0 for 10 s. It doubles up to thirty times that.
	RestartDelay time.Duration
	// StopAtEnd stops the containers when Run ends; the next start starts them again.
	// Otherwise they run on.
	StopAtEnd bool
	Log       *slog.Logger
}

// times are the intervals of a Manager; tests have shorter ones.
type times struct {
	list     time.Duration // between listings of the containers, besides those after events
	settle   time.Duration // a container without a readiness probe has to run for so long before another makes room
	deadline time.Duration // for a generation to become ready
	call     time.Duration // bound of one call to the engine, besides pulling
	ask      time.Duration // of asking it whether it is there
	gather   time.Duration // events that come within one are one listing
	collect  time.Duration // between looks for images that nobody needs
	oom      time.Duration // how much later than its end the reason of a kill may come
	retry    backoff.Policy
}

var defaultTimes = times{list: 10 * time.Second, settle: 2 * time.Second, deadline: 2 * time.Minute, call: 2 * time.Minute, ask: 15 * time.Second,
	gather: 20 * time.Millisecond, collect: 5 * time.Minute, oom: 100 * time.Millisecond, retry: backoff.Policy{Min: 500 * time.Millisecond, Max: 15 * time.Second, Factor: 2, Jitter: 0.3}}

const (
	// parallelPulls is how many images are fetched at a time: more share one uplink.
	parallelPulls = 2
	// parallelStarts is how many containers are made and started at a time: after a
	// reboot all want to, and more would only be slower together.
	parallelStarts = 4
	// restartReset is how long a container must have run for its failures to be forgotten.
	restartReset = 10 * time.Minute
)

// endpoints are where apps find the edge, once the engine's network is known.
type endpoints struct {
	network        string
	gateway, local Endpoints
}

func (e *endpoints) of(p *models.Pod) Endpoints {
	if p.Spec.HostNetwork {
		return e.local
	}
	return e.gateway
}

// Manager runs the pods. All methods may be called from any goroutine, Run once.
type Manager struct {
	cfg        Config
	life       string
	secretDir  string
	times      times
	restarting restarting
	ctx        context.Context // Run's; set before the first slot

	wake    chan struct{} // one slot: what is wanted has changed
	lookNow chan struct{} // one slot: containers are to be listed
	pulls   chan struct{} // as many slots as pulls at a time
	starts  chan struct{} // and as containers that are being made and started

	mu      sync.Mutex
	want    wanted
	applied bool
	// What want was made of.
	podPrints, devicePrints map[[3]string]uint64
	slots                   map[key]*slot
	at                      *endpoints // nil until the network is known
	doubt                   bool       // the network may be gone
	lostErr                 error      // the engine does not answer, as a slot found
	digests                 map[string]string
	fetching                map[string]chan struct{} // images by name; closed when that ends

	engineKnown   bool // it was asked
	engineState   problem
	engineVersion string
	engineNews    bool
	told          map[key]*pb.PodState
	news          map[key]bool
	telling       chan struct{} // one slot: there are news

	credentials credentials
}

var _ configs = (*Manager)(nil)

// New returns a Manager without pods.
func New(cfg Config) (*Manager, error) {
	if !filepath.IsAbs(cfg.DataDir) {
		return nil, fmt.Errorf("apps: the data directory must be absolute: %s", cfg.DataDir)
	}
	if cfg.RestartDelay == 0 {
		cfg.RestartDelay = 10 * time.Second
	}
	m := &Manager{cfg: cfg, life: cfg.Life, secretDir: cfg.SecretDir, times: defaultTimes, ctx: context.Background(),
		restarting: restarting{policy: backoff.Policy{Min: cfg.RestartDelay, Max: 30 * cfg.RestartDelay, Factor: 2}, reset: restartReset},
		wake:       make(chan struct{}, 1), lookNow: make(chan struct{}, 1), pulls: make(chan struct{}, parallelPulls), starts: make(chan struct{}, parallelStarts), telling: make(chan struct{}, 1),
		slots: map[key]*slot{}, digests: map[string]string{}, fetching: map[string]chan struct{}{}, told: map[key]*pb.PodState{}, news: map[key]bool{}}
	if m.secretDir == "" {
		m.secretDir = filepath.Join(cfg.DataDir, "..secrets")
	}
	return m, m.restarting.policy.Validate()
}

// Apply says what the hub wants, all of it. It waits for nothing: what runs follows.
func (m *Manager) Apply(items []store.Item) {
	pods, devices := fingerprints(items)
	m.mu.Lock()
	samePods := m.applied && maps.Equal(pods, m.podPrints)
	same := samePods && maps.Equal(devices, m.devicePrints)
	m.mu.Unlock()
	if same {
		return // most calls are about something else, such as a desired value
	}
	w := compile(items, m.cfg.Log)
	m.credentials.devices(w.devices)
	m.mu.Lock()
	m.want, m.applied, m.podPrints, m.devicePrints = w, true, pods, devices
	m.mu.Unlock()
	if !samePods {
		notify(m.wake)
	}
}

// fingerprints are of the items that say what runs, and of the devices.
func fingerprints(items []store.Item) (pods, devices map[[3]string]uint64) {
	pods, devices = map[[3]string]uint64{}, map[[3]string]uint64{}
	for _, i := range items {
		h := fnv.New64a()
		_, _ = h.Write([]byte(i.UID + "\x00")) // never fails
		_, _ = h.Write(i.JSON)
		switch k := [3]string{i.Kind, i.Namespace, i.Name}; i.Kind {
		case kindPod, kindConfigMap, kindSecret:
			pods[k] = h.Sum64()
		case store.KindDevice:
			devices[k] = h.Sum64()
		}
	}
	return pods, devices
}

func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// look asks for a listing soon.
func (m *Manager) look() { notify(m.lookNow) }

// lost says that the engine does not answer.
func (m *Manager) lost(err error) {
	m.mu.Lock()
	m.lostErr = err
	m.mu.Unlock()
	m.look()
}

// networkDoubtful has the network looked for again before the next container is made.
func (m *Manager) networkDoubtful() {
	m.mu.Lock()
	m.doubt = true
	m.mu.Unlock()
	m.look()
}

func (m *Manager) labels() map[string]string {
	return map[string]string{labelData: m.cfg.DataDir, labelLife: m.life}
}

func (m *Manager) configMap(k key) (map[string][]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.want.configMaps[k]
	return data, ok
}

func (m *Manager) secret(k key) (map[string][]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.want.secrets[k]
	return data, ok
}

// configPrint tells one state of what a pod's spec names of ConfigMaps and Secrets
// from another.
func (m *Manager) configPrint(namespace string, s *models.PodSpec) uint64 {
	configMaps, secrets := s.References()
	h := fnv.New64a()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, kind := range []struct {
		names map[string]bool
		data  map[key]map[string][]byte
	}{{configMaps, m.want.configMaps}, {secrets, m.want.secrets}} {
		for _, name := range slices.Sorted(maps.Keys(kind.names)) {
			data := kind.data[key{namespace, name}]
			for _, k := range slices.Sorted(maps.Keys(data)) {
				_, _ = fmt.Fprintf(h, "%q %q %q\n", name, k, data[k]) // never fails
			}
		}
	}
	return max(h.Sum64(), 1)
}

func (m *Manager) endpointsNow() *endpoints {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *Manager) engineProblem() problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.engineState
}

func (m *Manager) digest(imageID string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digests[imageID]
}

// Run runs the pods until ctx ends, and returns nil then. The containers run on:
// the next start finds them again.
func (m *Manager) Run(ctx context.Context) error {
	m.ctx = ctx
	if err := m.restore(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var slots sync.WaitGroup
	defer func() {
		slots.Wait()
		if m.cfg.StopAtEnd {
			m.stopAll(context.WithoutCancel(ctx))
		}
	}()
	retry, err := backoff.New(m.times.retry, rand.Float64)
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	for ctx.Err() == nil {
		m.reconcile(&slots)
		version, err := m.find(ctx)
		if err == nil {
			m.setEngine(problem{}, version)
			retry.Reset()
			err = m.session(ctx, &slots)
		}
		if ctx.Err() != nil {
			break
		}
		m.setEngine(problem{models.ReasonEngineUnavailable, err.Error()}, "")
		m.mu.Lock()
		m.lostErr = nil
		all := m.allSlots()
		m.mu.Unlock()
		for _, s := range all {
			s.lose()
		}
		m.waitFor(ctx, &slots, retry.Next())
	}
	return nil
}

// stopAll stops all containers, at once.
func (m *Manager) stopAll(ctx context.Context) {
	const grace = 3 * time.Second // somebody is waiting for the end
	ctx, cancel := context.WithTimeout(ctx, 3*grace)
	defer cancel()
	list, err := m.cfg.Engine.List(ctx, m.labels())
	if err != nil {
		return // no engine, no containers
	}
	var running []string
	for _, c := range list {
		if c.State == engine.Running {
			running = append(running, c.ID)
		}
	}
	if err := each(running, func(id string) error { return m.cfg.Engine.Stop(ctx, id, grace) }); err != nil {
		m.cfg.Log.Warn("stopping the apps failed", "error", err)
	}
}

// waitFor waits, and meanwhile does what can be done without an engine.
func (m *Manager) waitFor(ctx context.Context, slots *sync.WaitGroup, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			m.reconcile(slots)
		case <-t.C:
			return
		}
	}
}

// restore makes a slot for each pod that is stored.
func (m *Manager) restore(ctx context.Context) error {
	pods, err := m.cfg.Store.Pods(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range pods {
		records, err := decodeRecords(p.State)
		if err != nil {
			m.cfg.Log.Error("what is stored of a pod cannot be read; its containers are made anew", "pod", p.Namespace+"/"+p.Name, "error", err)
			continue
		}
		s := newSlot(m, key{p.Namespace, p.Name})
		for _, r := range records {
			s.add(r)
			s.uid = r.Pod.Metadata.UID
		}
		m.slots[s.key] = s
		m.admit(s.key, records)
	}
	return nil
}

func (m *Manager) setEngine(p problem, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.engineKnown && m.engineState == p && m.engineVersion == version {
		return
	}
	first := !m.engineKnown
	m.engineKnown, m.engineState, m.engineVersion, m.engineNews = true, p, version, true
	notify(m.telling)
	switch {
	case p.reason == "":
		m.cfg.Log.Info("container engine found", "version", version)
	case first:
		m.cfg.Log.Info("no container engine: apps wait for one, everything else works", "error", p.message)
	default:
		m.cfg.Log.Warn("the container engine does not answer; apps are looked after when it does", "error", p.message)
	}
}

// Engine says what engine there is, or why none; known is false before it was asked.
func (m *Manager) Engine() (version, trouble string, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.engineVersion, m.engineState.message, m.engineKnown
}

// find asks the engine whether it is there.
func (m *Manager) find(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.times.ask)
	defer cancel()
	info, err := m.cfg.Engine.Info(ctx)
	if err != nil {
		return "", err
	}
	return info.Name + " " + info.Version, nil
}

// allSlots is under the lock.
func (m *Manager) allSlots() (out []*slot) {
	for _, s := range m.slots {
		out = append(out, s)
	}
	return out
}

// reconcile starts a slot for each pod that has none, and tells all what is wanted.
func (m *Manager) reconcile(slots *sync.WaitGroup) {
	type order struct {
		s *slot
		p *models.Pod
	}
	m.mu.Lock()
	if !m.applied {
		m.mu.Unlock()
		return
	}
	var orders []order
	for k, p := range m.want.pods {
		s := m.slots[k]
		if s == nil {
			s = newSlot(m, k)
			m.slots[k] = s
		}
		orders = append(orders, order{s, p})
	}
	for k, s := range m.slots {
		if m.want.pods[k] == nil {
			orders = append(orders, order{s, nil})
		}
	}
	at := m.at
	m.mu.Unlock()
	for _, o := range orders {
		o.s.want(o.p, at)
		m.run(slots, o.s)
	}
}

// run starts a slot's loop unless it runs.
func (m *Manager) run(slots *sync.WaitGroup, s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.running {
		return
	}
	s.running = true
	slots.Go(func() { s.run(m.ctx) }) // it outlives sessions with the engine
}

// leave gives a slot up unless it is wanted again.
func (m *Manager) leave(s *slot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want.pods[s.key] != nil {
		return false
	}
	delete(m.slots, s.key)
	m.look() // that may have been the last
	return true
}

// session looks after the containers for as long as the engine answers.
func (m *Manager) session(ctx context.Context, slots *sync.WaitGroup) error {
	ctx, cancel := context.WithCancel(ctx)
	var events sync.WaitGroup
	defer events.Wait()
	defer cancel()
	dirty := &ids{}
	ended := make(chan error, 1) // one session of events, one end
	since := time.Now()
	events.Go(func() {
		ended <- m.cfg.Engine.Events(ctx, map[string]string{labelData: m.cfg.DataDir}, since, func(e engine.Event) {
			dirty.add(e.Container, e.Action == "oom")
			m.look()
		})
	})
	if m.cfg.Images != nil {
		if err := m.cfg.Images.Recover(ctx); errors.Is(err, engine.ErrUnavailable) {
			return err
		} else if err != nil {
			m.cfg.Log.Warn("what was being fetched before cannot be found again; it is fetched anew", "error", err)
		}
		events.Go(func() { m.collectImages(ctx) })
	}
	known := map[string]engine.Container{}
	m.mu.Lock()
	m.doubt = true // the engine may have forgotten it
	m.mu.Unlock()
	tick := time.NewTicker(m.times.list)
	defer tick.Stop()
	for again := true; ; {
		moved, err := m.network(ctx)
		if err != nil {
			return err
		}
		if again || moved {
			m.reconcile(slots)
		}
		if err := m.list(ctx, slots, known, dirty); err != nil {
			return err
		}
		again = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-tick.C:
			m.lookAgain()
		case <-m.wake:
			again = true
		case <-m.lookNow:
			m.gather(ctx)
		}
		m.mu.Lock()
		err = m.lostErr
		m.lostErr = nil
		m.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// collectImages has images removed that nobody needs any more, until ctx ends.
func (m *Manager) collectImages(ctx context.Context) {
	tick := time.NewTicker(m.times.collect)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		used, ok := m.usedImages()
		if !ok {
			continue
		}
		if err := m.cfg.Images.Collect(ctx, used); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("images that no app needs could not be removed from the engine; that is tried again", "error", err)
		}
	}
}

// usedImages returns what says whether a pod needs an image: one that wants it, or
// whose containers are of it, also such as are about to be replaced. ok is false
// before it is known which pods there are.
func (m *Manager) usedImages() (used func(id string, names []string) bool, ok bool) {
	ids, names := map[string]bool{}, map[string]bool{}
	name := func(image string) {
		names[image] = true
		if ref, err := oci.ParseReference(image); err == nil {
			names[ref.String()], names[images.LocalName(ref)] = true, true
		}
	}
	m.mu.Lock()
	if !m.applied {
		m.mu.Unlock()
		return nil, false
	}
	for _, p := range m.want.pods {
		for _, c := range p.Spec.Containers {
			name(c.Image)
		}
	}
	all := m.allSlots()
	m.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		for _, g := range s.gens {
			for _, c := range g.spec().Containers {
				name(c.Image)
				ids[g.Images[c.Name]], ids[g.lives[c.Name].seen.ImageID] = true, true
			}
		}
		s.mu.Unlock()
	}
	delete(ids, "") // of containers that are not there
	return func(id string, own []string) bool {
		return ids[id] || slices.ContainsFunc(own, func(n string) bool { return names[n] })
	}, true
}

// gatherOOM waits for an engine to say that a container was killed for its memory.
func (m *Manager) gatherOOM(ctx context.Context) {
	t := time.NewTimer(m.times.oom)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// gather waits for what comes together with a request for a listing, so that one
// listing is enough.
func (m *Manager) gather(ctx context.Context) {
	t := time.NewTimer(m.times.gather)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	select {
	case <-m.lookNow:
	default:
	}
}

// lookAgain has the slots look whether what they miss on the machine is there now.
func (m *Manager) lookAgain() {
	m.mu.Lock()
	all := m.allSlots()
	m.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		for _, g := range s.gens {
			s.stale = s.stale || g.missing.message != ""
		}
		s.mu.Unlock()
	}
}

// ids are containers that something happened to.
type ids struct {
	mu   sync.Mutex
	all  map[string]bool
	ooms map[string]bool // of these memory was short; an engine may forget to say so of the container itself
}

func (i *ids) add(id string, oom bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.all == nil {
		i.all = map[string]bool{}
	}
	i.all[id] = true
	if oom {
		if i.ooms == nil {
			i.ooms = map[string]bool{}
		}
		i.ooms[id] = true
	}
}

// take returns the containers that something has happened to since the last take.
func (i *ids) take() map[string]bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := i.all
	i.all = nil
	return all
}

// has reports whether memory was short in a container.
func (i *ids) has(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ooms[id]
}

// oom reports whether memory was short in a container that was killed, once.
func (i *ids) oom(c engine.Container) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	was := i.ooms[c.ID]
	delete(i.ooms, c.ID)
	return was && c.ExitCode == 128+9
}

// networkName is that of the network of this edge's pods.
func (m *Manager) networkName() string {
	return "whimbrel-" + m.cfg.Node + "-" + shortHash(m.cfg.DataDir)
}

// network makes sure of the network while there are pods, and lets the edge listen
// there. moved: it is another than before.
func (m *Manager) network(ctx context.Context) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	m.mu.Lock()
	needed, used, doubt := len(m.want.pods) > 0, len(m.slots) > 0, m.doubt || m.at == nil
	idle := m.applied && !needed && !used && (m.at != nil || m.doubt)
	m.mu.Unlock()
	if idle {
		return false, m.dropNetwork(ctx)
	}
	if !needed || !doubt {
		return false, nil
	}
	n, err := m.cfg.Engine.Network(ctx, m.networkName(), m.labels())
	if err != nil {
		return false, err
	}
	gateway, err := m.cfg.Listen(n.Gateway)
	if err != nil {
		return false, fmt.Errorf("listening for apps on %s, where their network finds this node: %w", n.Gateway, err)
	}
	now := &endpoints{network: n.Name, gateway: gateway, local: m.cfg.Local()}
	m.mu.Lock()
	defer m.mu.Unlock()
	moved = m.at == nil || *m.at != *now
	m.at, m.doubt = now, false
	return moved, nil
}

// dropNetwork takes the network away when there are no pods any more. Whoever else
// has put a container into it keeps it.
func (m *Manager) dropNetwork(ctx context.Context) error {
	if _, err := m.cfg.Listen(""); err != nil {
		return err
	}
	err := m.cfg.Engine.RemoveNetwork(ctx, m.networkName())
	if err != nil && !errors.Is(err, engine.ErrUnavailable) {
		m.cfg.Log.Info("the network of the apps stays", "error", err)
		err = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.doubt = nil, err != nil
	return err
}

// list sees what containers there are and tells the slots. known is what the
// listing before found, changed what something has happened to since.
func (m *Manager) list(ctx context.Context, slots *sync.WaitGroup, known map[string]engine.Container, changed *ids) error {
	dirty := changed.take()
	at := time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	list, err := m.cfg.Engine.List(ctx, map[string]string{labelData: m.cfg.DataDir})
	if err != nil {
		return err
	}
	bySlot, seen := map[key][]engine.Container{}, map[string]bool{}
	for _, c := range list {
		before, ok := known[c.ID]
		if !ok || dirty[c.ID] || before.State != c.State || c.State != engine.Running {
			if c, err = m.cfg.Engine.Inspect(ctx, c.ID); errors.Is(err, engine.ErrNotFound) {
				continue // gone meanwhile
			} else if err != nil {
				return err
			}
			if killed := c.State == engine.Exited && c.ExitCode == 128+9; killed && before.State == engine.Running && !c.OOMKilled && !changed.has(c.ID) {
				m.gatherOOM(ctx) // why comes a moment later, if it was that
				if again, err := m.cfg.Engine.Inspect(ctx, c.ID); err == nil {
					c = again
				}
			}
			if c.State == engine.Exited && changed.oom(c) {
				c.OOMKilled = true
			}
			known[c.ID] = c
			m.learnDigest(ctx, c.ImageID)
		} else {
			c = before
		}
		seen[c.ID] = true
		k := key{c.Labels[labelNamespace], c.Labels[labelPod]}
		bySlot[k] = append(bySlot[k], c)
	}
	for id := range known {
		if !seen[id] {
			delete(known, id)
		}
	}
	m.mu.Lock()
	if !m.applied {
		m.mu.Unlock()
		return nil // nothing is removed before it is known what is wanted
	}
	var fresh []*slot
	for k := range bySlot {
		if m.slots[k] == nil { // left from an earlier life
			m.slots[k] = newSlot(m, k)
			fresh = append(fresh, m.slots[k])
		}
	}
	all := m.allSlots()
	m.mu.Unlock()
	for _, s := range fresh {
		m.run(slots, s)
	}
	for _, s := range all {
		s.see(at, bySlot[s.key])
	}
	return nil
}

// learnDigest finds out what registries call an image.
func (m *Manager) learnDigest(ctx context.Context, id string) {
	if id == "" || m.digest(id) != "" {
		return
	}
	image, err := m.cfg.Engine.Image(ctx, id)
	if err != nil {
		return // it may have been removed under its container; the id says it, too
	}
	digest := m.digestOf(image)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.digests[id] = digest
}

// digestOf is what registries call an image; its id when none does.
func (m *Manager) digestOf(i engine.Image) (digest string) {
	if m.cfg.Images != nil {
		digest = m.cfg.Images.Digest(i.ID)
	}
	if len(i.Digests) > 0 {
		digest = cmp.Or(digest, i.Digests[0])
	}
	return cmp.Or(digest, i.ID)
}

// imageHere looks for what a pod calls an image, without asking anybody else.
func (m *Manager) imageHere(ctx context.Context, name string) (engine.Image, error) {
	image, err := m.cfg.Engine.Image(ctx, name)
	if ref, bad := oci.ParseReference(name); errors.Is(err, engine.ErrNotFound) && bad == nil && ref.Digest != "" {
		return m.cfg.Engine.Image(ctx, images.LocalName(ref))
	}
	return image, err
}

// imageName is what a container is made from: the name that the pod has for the
// image as long as that means the same one, for people who look at the engine.
func (m *Manager) imageName(ctx context.Context, name, id string) string {
	if image, err := m.cfg.Engine.Image(ctx, name); id == "" || err == nil && image.ID == id {
		return name
	}
	return id
}

// fetchImage makes sure that a container's image is here. pinned is the id of the
// one that it was made from before, "" when it never was.
func (m *Manager) fetchImage(ctx context.Context, c *models.Container, pinned string, note func(string)) (engine.Image, error) {
	here := func() (engine.Image, error) {
		if pinned != "" {
			if image, err := m.cfg.Engine.Image(ctx, pinned); err == nil || !errors.Is(err, engine.ErrNotFound) {
				return image, err
			}
		}
		return m.imageHere(ctx, c.Image)
	}
	if c.ImagePullPolicy != models.PullAlways {
		image, err := here()
		if err == nil || !errors.Is(err, engine.ErrNotFound) {
			return image, err
		}
		if c.ImagePullPolicy == models.PullNever {
			return image, fmt.Errorf("image %s is not on the node, and %w", c.Image, errNeverPull)
		}
	}
	note(pullText(c.Image, engine.Progress{}))
	// Pods that want the same image wait for one another: it is fetched once.
	free, err := m.holdImage(ctx, c.Image)
	if err != nil {
		return engine.Image{}, err
	}
	defer free()
	if c.ImagePullPolicy != models.PullAlways {
		if image, err := here(); err == nil || !errors.Is(err, engine.ErrNotFound) {
			return image, err
		}
	}
	select {
	case m.pulls <- struct{}{}:
	case <-ctx.Done():
		return engine.Image{}, ctx.Err()
	}
	defer func() { <-m.pulls }()
	pull := m.cfg.Engine.Pull
	if m.cfg.Images != nil {
		pull = m.cfg.Images.Pull
	}
	last := ""
	pulled := pull(ctx, c.Image, func(p engine.Progress) {
		if text := pullText(c.Image, p); text != last {
			last = text
			note(text)
		}
	})
	image, err := m.imageHere(ctx, c.Image)
	switch {
	case pulled == nil:
		return image, err
	case err == nil && !errors.Is(pulled, engine.ErrUnavailable):
		// Always means the newest there is to be had; without a registry that is what is here.
		m.cfg.Log.Warn("pulling failed; the image that is here is used", "image", c.Image, "error", pulled)
		return image, nil
	}
	return engine.Image{}, pulled
}

var errNeverPull = errors.New("imagePullPolicy is Never")

// pullText says how far a pull is.
func pullText(name string, p engine.Progress) string {
	const mega = 1e6
	text := models.PullingMessage + name
	switch {
	case p.Total > 0 && p.Done == p.Total:
		text += fmt.Sprintf(": unpacking %.0f MB", math.Ceil(float64(p.Total)/mega))
	case p.Total > 0:
		text += fmt.Sprintf(": %.0f of %.0f MB", math.Floor(float64(p.Done)/mega), math.Ceil(float64(p.Total)/mega))
	}
	if p.Waiting != "" {
		text += " (waits: " + p.Waiting + ")"
	}
	return text
}

// holdImage waits until nobody else fetches an image.
func (m *Manager) holdImage(ctx context.Context, name string) (free func(), err error) {
	for {
		m.mu.Lock()
		busy := m.fetching[name]
		if busy == nil {
			mine := make(chan struct{})
			m.fetching[name] = mine
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.fetching, name)
				m.mu.Unlock()
				close(mine)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// MemoryDir is the path of a folder in memory for this data directory, "" where
// there can be none. The folder is made when there is something to put into it.
func MemoryDir(dataDir string) string {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return ""
	}
	return filepath.Join(memory, "whimbrel-"+shortHash(dataDir))
}
