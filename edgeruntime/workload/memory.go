package workload

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
)

// record is what is stored of a generation.
type record struct {
	Hash      string     `json:"hash"`
	Pod       models.Pod `json:"pod"`
	Password  string     `json:"password"` // of the app, for the broker
	Token     string     `json:"token"`    // and for the local REST
	Served    bool       `json:"served,omitempty"`
	Suspended bool       `json:"suspended,omitempty"`
	GivenUp   string     `json:"givenUp,omitempty"` // why
	Created   time.Time  `json:"created,omitzero"`
	// By container.
	Restarts map[string]int32                      `json:"restarts,omitempty"`
	Last     map[string]models.ContainerTerminated `json:"last,omitempty"`
	// Images are the ids of those that were meant when the containers were first made:
	// another image of the same name is another version.
	Images map[string]string `json:"images,omitempty"`
}

// id is what the generation's containers are labelled with: also by the
// credentials in them, without which they are somebody else's.
func (r record) id() string {
	if r.Token == "" {
		return r.Hash // not ours: the label itself
	}
	return r.Hash + "-" + shortHash(r.Token)
}

// generation is one version of a slot's pod. Its fields belong to the slot's lock.
type generation struct {
	record
	volumes     volumes
	lives       map[string]*life // by container
	strays      []string         // ids
	missing     problem          // what it lacks besides images
	configs     uint64           // print of the ConfigMaps and Secrets that it names, 0 before it was made
	suspendedAt time.Time
	readySince  time.Time // zero while it is not
	probing     map[string]func()
}

// problem is a reason and a message.
type problem struct{ reason, message string }

// life is what is known of one container, through all its starts.
type life struct {
	seen      engine.Container // ID "" when there is none
	made      time.Time        // when we made it; a listing that began before does not have it
	begun     bool             // it has run before: the next start is a restart
	known     bool             // its end, if it has ended, is news
	ended     time.Time        // StartedAt of the life whose end was dealt with
	removed   bool             // by us: that it is not there is no news
	broken    bool             // the engine could not start it
	stopping  problem          // why we stopped it, zero when we did not
	failed    int
	retryAt   time.Time
	delay     time.Duration // that led to retryAt
	problem   problem       // why it could not be made or started
	image     ImageState
	imageNote problem // why the image is not here, or how far it is
	imageID   string  // its digest, when known
	health    health
	probed    time.Time // StartedAt of the life that is being probed
}

func newGeneration(r record) *generation {
	if r.Restarts == nil {
		r.Restarts = map[string]int32{}
	}
	if r.Last == nil {
		r.Last = map[string]models.ContainerTerminated{}
	}
	if r.Images == nil {
		r.Images = map[string]string{}
	}
	g := &generation{record: r, lives: map[string]*life{}, probing: map[string]func(){}}
	for _, c := range r.Pod.Spec.Containers {
		g.lives[c.Name] = &life{}
	}
	return g
}

// newSecret makes a random secret of 192 bits.
func newSecret() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func (g *generation) spec() *models.PodSpec { return &g.Pod.Spec }

func (g *generation) grace() time.Duration {
	if s := g.spec().TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

// done reports whether a container has ended for good although nothing of it is
// left, as after somebody's tidying up: a job is not done twice for that.
func (g *generation) done(name string) bool {
	last, ended := g.Last[name]
	return g.lives[name].seen.ID == "" && ended && !again(g.spec().RestartPolicy, int(last.ExitCode))
}

// restarting says when what has failed is tried again: at once the first time,
// then with growing delays.
type restarting struct {
	policy backoff.Policy
	// reset is how long a container must have run for its failures to be forgotten.
	reset time.Duration
}

// failure counts one. quick: the first time it is tried again at once.
func (r restarting) failure(l *life, now time.Time, quick bool) {
	l.failed++
	n := l.failed
	if quick {
		n--
	}
	l.delay = r.policy.Delay(n, 0)
	l.retryAt = now.Add(l.delay)
}

// see takes in what the engine says of a container now. changed: there is
// something in it to be stored.
func (l *life) see(g *generation, name string, c engine.Container, now time.Time, r restarting) (changed bool) {
	before := l.seen
	l.seen, l.begun = c, l.begun || !c.StartedAt.IsZero()
	switch {
	case c.ID == "":
		if before.ID != "" {
			if !l.removed && l.known && before.State != engine.Created && !g.done(name) { // somebody else has removed it
				r.failure(l, now, true)
			}
			l.ended = time.Time{}
		}
		l.removed, l.broken, l.known = false, false, true
		return changed
	case c.State == engine.Running:
		l.problem, l.broken = problem{}, false
		if c.StartedAt != before.StartedAt || c.ID != before.ID {
			l.health, l.stopping = health{}, problem{}
		}
	case (c.State == engine.Exited || c.State == engine.Dead) && !c.StartedAt.IsZero() && l.ended != c.StartedAt:
		l.ended, changed = c.StartedAt, true
		g.Last[name] = terminated(c, l.stopping)
		if c.FinishedAt.Sub(c.StartedAt) >= r.reset {
			l.failed = 0
		}
		if l.known && (l.stopping.reason == "" || l.stopping.reason == models.ReasonUnhealthy) && again(g.spec().RestartPolicy, c.ExitCode) {
			r.failure(l, now, true)
		}
		l.health, l.stopping = health{}, problem{}
	}
	if last := g.Last[name]; c.State == engine.Exited && c.OOMKilled && last.Reason != models.ReasonOOMKilled && last.FinishedAt != nil && last.FinishedAt.Equal(c.FinishedAt) {
		g.Last[name], changed = terminated(c, problem{}), true // engines may say so a moment later
	}
	l.known = true
	return changed
}

// terminated says how a container ended.
func terminated(c engine.Container, stopping problem) models.ContainerTerminated {
	t := models.ContainerTerminated{ExitCode: int32(c.ExitCode), Reason: models.ReasonCompleted, Message: c.Error}
	if !c.StartedAt.IsZero() {
		t.StartedAt = new(c.StartedAt.UTC())
	}
	if !c.FinishedAt.IsZero() {
		t.FinishedAt = new(c.FinishedAt.UTC())
	}
	if c.ExitCode > 128 && c.ExitCode <= 128+64 {
		t.Signal = int32(c.ExitCode - 128)
	}
	switch {
	case c.OOMKilled:
		t.Reason = models.ReasonOOMKilled
		t.Message = "it used more memory than it may"
	case stopping.reason == models.ReasonUnhealthy:
		t.Reason = models.ReasonUnhealthy
		t.Message = "it was stopped: " + cut(stopping.message)
	case c.ExitCode != 0:
		t.Reason = models.ReasonError
	}
	return t
}

// rest forgets the hurry or the patience of before: the engine was away, and what
// ended with it is no failure.
func (g *generation) rest() {
	for _, l := range g.lives {
		l.known, l.failed, l.retryAt, l.health = false, 0, time.Time{}, health{}
	}
}

// decodeRecords reads what is stored of a slot.
func decodeRecords(text []byte) ([]record, error) {
	var records []record
	if err := json.Unmarshal(text, &records); err != nil {
		return nil, fmt.Errorf("stored pod: %w", err)
	}
	for i := range records {
		records[i].Pod.Spec.Default()
	}
	return records, nil
}
