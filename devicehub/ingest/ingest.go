// Package ingest takes the log lane of all sessions into the store: it decodes
// batches, drops what was committed before, and commits what is new in groups
// of many nodes' records, samples and acknowledged numbers in one transaction.
//
//	sessions ── Submit: decode, accept local writes ──► queue ──► Run: one group at a time ──► store
//	                                                                   └─► Sink, then done
//
// No record can be refused for ever: one that cannot be stored is set aside,
// acknowledged, and leaves a gap. While the store is down nothing is
// acknowledged and nothing lost: the queue fills, Submit blocks, and the edges
// keep what they have.
package ingest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/whimbrel-edge/whimbrel/devicehub/registry"
	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/backoff"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// Devices is what ingest needs to know of devices.
type Devices interface {
	// AcceptLocal takes a desired value that was set at the edge. It is durable
	// when it returns nil, and harmless to repeat. What can never be accepted, by
	// the conflict rule or because the device is gone, is no error; an error means
	// that another try may help.
	AcceptLocal(ctx context.Context, deviceUID string, l twin.Local) (registry.Judgement, error)
	// Reference names a device; ok is false for one that does not exist.
	Reference(deviceUID string) (of models.ObjectReference, ok bool)
	// Current returns a device's assignment and the name of the node that it is
	// assigned to; ok is false for a device that does not exist.
	Current(deviceUID string) (assignment uint64, node string, ok bool)
}

// Sink is told of records when they are committed, of one node in the order of
// its log, each once in the life of this process. It must be quick: all nodes
// wait for it. Records come whole: what a former assignment of a device left in
// them is history, and not for its twin.
type Sink interface {
	Committed(node string, rank, seq uint64, rec *edgelink.Decoded)
}

// Origin says whose log a batch is from.
type Origin struct {
	Node    string // name
	NodeUID string
	Rank    uint64 // of the batch's epoch
}

// Reasons of gaps that are made here.
const (
	reasonUnreadable = edgelink.GapUnreadable // the record cannot be decoded
	// reasonUnknownDevice: the samples are of a device that does not exist, or
	// that is assigned to another node under the number that they carry.
	reasonUnknownDevice = "unknown-device"
)

// Errors of Submit and of done.
var (
	// ErrConflict: the node's log is being ingested by someone else, or the
	// database is not the one that it was.
	ErrConflict = errors.New("ingest: the log has moved on without this session")
	// ErrStopped: the ingester does not take batches any more.
	ErrStopped = errors.New("ingest: stopped")
)

// Defaults of Config.
const (
	DefaultQueueBytes   = 8 << 20
	DefaultGroupSamples = 10_000
	DefaultMostSamples  = 100_000
	DefaultGroupWait    = 5 * time.Millisecond
	DefaultStopWait     = 5 * time.Second
)

// nodeShare is the part of the queue that one node may fill: the others go on
// when one sends more than can be stored, or waits for a local write.
const nodeShare = 4

// seriesKept bounds the cache of series ids, of about 10 bytes each. When it is full
// it starts anew; with fewer than there are in use each would be asked for again and
// again.
const seriesKept = 1 << 21

// Store is what an Ingester needs of the store.
type Store interface {
	store.Log
	LastSamples(ctx context.Context, deviceUID string, properties []string, atUS int64) (map[string]store.Sample, error)
}

// Config is what an Ingester needs. Store, Devices, Sink and Log are required.
type Config struct {
	Store      Store
	Happened   func() // called when events were committed; may be nil
	Devices    Devices
	Sink       Sink
	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil
	Now        func() time.Time      // default time.Now

	QueueBytes   int           // encoded bytes that may wait, DefaultQueueBytes
	GroupSamples int           // samples that make a group large enough to go at once
	MostSamples  int           // of what waits, so many go into one group at most; default GroupSamples, if that is set
	GroupWait    time.Duration // how long the first batch of a group waits for others
	StopWait     time.Duration // how long what was handed over may take to be committed once Run is to end
	Retry        backoff.Policy
}

// Ingester takes batches in. Its methods are safe for concurrent use.
type Ingester struct {
	cfg     Config
	metrics metrics
	wake    chan struct{} // one slot: there is something in the queue
	stopped chan struct{} // closed when Run has ended

	// Only Run's goroutine uses these.
	series      map[edgelink.DeviceRef]*known
	seriesCount int                 // in series
	namings     map[string]*naming  // by the names, joined; those that devices have
	logs        map[string]logState // by node uid: where its log is
	states      map[string]state    // by device uid: as they are stored
	served      map[served]bool     // what is stored of it
	badEnds     map[ending]bool     // of bad ends of writes: those that are events, lately

	mu      sync.Mutex // protects all below
	queue   []*item    // in the order of arrival; bounded by bytes
	bytes   int        // of what Submit has let in and done was not called for
	ofNode  map[string]int
	room    chan struct{}       // closed and replaced when bytes has shrunk
	failing map[string]struct{} // nodes whose sessions are being told of a failure
	ended   bool
}

// logState is an epoch of a node and its acknowledged seq.
type logState struct {
	epoch string
	acked uint64
}

// item is one batch.
type item struct {
	from    Origin
	epoch   string
	records []record
	samples int
	bytes   int
	at      time.Time
	done    func(acked uint64, err error)
}

// record is one record of a batch.
type record struct {
	seq      uint64
	backfill bool
	decoded  *edgelink.Decoded           // nil: it cannot be decoded
	ids      []int64                     // of its series, or notServed
	stateIDs []int64                     // of the series of its states, or notServed
	refused  map[edgelink.DeviceRef]bool // devices of its writes that its node does not serve
	judged   []*registry.Judgement       // of its local writes, nil of those that are dropped
}

// New returns an Ingester. Run must run for batches to be committed.
func New(cfg Config) *Ingester {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = DefaultQueueBytes
	}
	if cfg.MostSamples == 0 {
		cfg.MostSamples = cfg.GroupSamples
	}
	if cfg.GroupSamples == 0 {
		cfg.GroupSamples, cfg.MostSamples = DefaultGroupSamples, max(cfg.MostSamples, DefaultMostSamples)
	}
	if cfg.GroupWait == 0 {
		cfg.GroupWait = DefaultGroupWait
	}
	if cfg.StopWait == 0 {
		cfg.StopWait = DefaultStopWait
	}
	if cfg.Retry == (backoff.Policy{}) {
		cfg.Retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 5 * time.Second, Factor: 2, Jitter: 0.5}
	}
	return &Ingester{
		cfg: cfg, metrics: newMetrics(cfg.Registerer, cfg.Log), wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		series: map[edgelink.DeviceRef]*known{}, namings: map[string]*naming{}, logs: map[string]logState{}, states: map[string]state{}, served: map[served]bool{}, badEnds: map[ending]bool{},
		ofNode: map[string]int{}, room: make(chan struct{}), failing: map[string]struct{}{},
	}
}

// Submit hands over one batch of a session's log. It blocks while too much
// waits, of this node or of all, until ctx ends; so the edge is held back.
//
// When it returns nil, done will be called once: after the commit with the
// epoch's acknowledged seq, or with an error, after which nothing more of this
// session may come. To make sure of that, done must end ctx before it returns
// from a call with an error. done must not block; it may be called before Submit
// returns. When Submit returns an error, done is not called.
//
// A node's batches must be submitted one after the other; b must not be changed
// afterwards.
func (g *Ingester) Submit(ctx context.Context, from Origin, b *pb.Batch, done func(acked uint64, err error)) error {
	it := &item{from: from, epoch: b.Epoch, done: done, bytes: 64}
	for _, n := range b.Records {
		it.bytes += 64 + len(n.Record)
	}
	if err := g.enter(ctx, it); err != nil {
		return err
	}
	err := g.prepare(ctx, it, b.Records)
	if err == nil {
		err = g.enqueue(ctx, it)
	}
	if err != nil {
		g.leave(it)
	}
	return err
}

// enter waits for room. Room for one byte is enough: a batch larger than the rest
// would wait for ever while small ones pass it. So the bounds are overrun by one
// batch.
func (g *Ingester) enter(ctx context.Context, it *item) error {
	for {
		g.mu.Lock()
		all, own := g.bytes, g.ofNode[it.from.NodeUID]
		if all < g.cfg.QueueBytes && own < g.cfg.QueueBytes/nodeShare {
			g.bytes += it.bytes
			g.ofNode[it.from.NodeUID] += it.bytes
			g.mu.Unlock()
			return nil
		}
		room := g.room
		g.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-g.stopped:
			return ErrStopped
		}
	}
}

// leave gives an item's room back.
func (g *Ingester) leave(it *item) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes -= it.bytes
	if g.ofNode[it.from.NodeUID] -= it.bytes; g.ofNode[it.from.NodeUID] == 0 {
		delete(g.ofNode, it.from.NodeUID)
	}
	close(g.room)
	g.room = make(chan struct{})
}

// prepare decodes the records and has their local writes accepted, in the
// session's goroutine: a write that cannot be accepted now holds up its own node
// only.
func (g *Ingester) prepare(ctx context.Context, it *item, records []*pb.Numbered) error {
	it.records = make([]record, 0, len(records))
	for _, n := range records {
		r := record{seq: n.Seq, backfill: n.Backfill}
		decoded, err := edgelink.DecodeRecord(n.Record)
		if err != nil {
			g.cfg.Log.Warn("a record cannot be read and is set aside", "node", it.from.Node, "epoch", it.epoch, "seq", n.Seq, "error", err)
		} else {
			r.decoded = decoded
			it.samples += decoded.Samples()
		}
		it.records = append(it.records, r)
	}
	bySeq := func(a, b record) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	}
	// In order but for a faulty edge; then still nothing may be taken for a resend.
	if !slices.IsSortedFunc(it.records, bySeq) {
		slices.SortStableFunc(it.records, bySeq)
	}
	for i := range it.records {
		r := &it.records[i]
		if r.decoded == nil {
			continue
		}
		for _, l := range r.decoded.Locals {
			judged, err := g.acceptLocal(ctx, it.from, l)
			if err != nil {
				return err
			}
			r.judged = append(r.judged, judged)
		}
	}
	return nil
}

// acceptLocal tries until it succeeds or ctx ends. A write that is dropped has no
// judgement.
func (g *Ingester) acceptLocal(ctx context.Context, from Origin, l edgelink.LocalDesired) (*registry.Judgement, error) {
	if assignment, node, ok := g.cfg.Devices.Current(l.Device.UID); !ok || node != from.Node || assignment != l.Device.Assignment {
		g.cfg.Log.Warn("a write made at the edge is dropped: the device is not assigned to the node", "node", from.Node,
			"device", l.Device.UID, "property", l.Property, "write", l.ID)
		return nil, nil
	}
	retry, err := backoff.New(g.cfg.Retry, rand.Float64)
	if err != nil {
		return nil, err
	}
	local := twin.Local{Property: l.Property, Value: l.Value, ID: l.ID, Base: l.Base, After: l.After, Time: l.Time, By: l.By, Reason: l.Reason, Origin: l.Origin}
	if l.Before != nil {
		local.Before = twin.Heard(*l.Before)
	}
	for {
		judged, err := g.cfg.Devices.AcceptLocal(ctx, l.Device.UID, local)
		if err == nil {
			return &judged, nil
		}
		if ctx.Err() == nil {
			g.cfg.Log.Warn("a write made at the edge is not accepted yet", "node", from.Node, "device", l.Device.UID, "write", l.ID, "error", err)
		}
		if err := retry.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// enqueue hands the item to Run.
func (g *Ingester) enqueue(ctx context.Context, it *item) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, failing := g.failing[it.from.NodeUID]
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.ended:
		return ErrStopped
	case failing: // this session, too, is about to hear of it
		return ErrConflict
	}
	it.at = time.Now()
	g.queue = append(g.queue, it)
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// Run commits what is submitted until ctx ends, and then what was handed over
// before, within Config.StopWait.
func (g *Ingester) Run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	ending := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-ctx.Done():
		case <-ending:
			return
		}
		select {
		case <-time.After(g.cfg.StopWait):
			cancel(ErrStopped)
		case <-ending:
		}
	})
	for {
		group := g.collect(ctx)
		if group == nil {
			break
		}
		g.ingest(work, group)
	}
	close(ending)
	wait.Wait()
	g.mu.Lock()
	g.ended = true
	left := g.queue
	g.queue = nil
	g.mu.Unlock()
	close(g.stopped)
	for _, it := range left {
		g.finish(it, 0, ErrStopped)
	}
	return context.Cause(ctx)
}

// collect waits for a group: batches that have as many samples together as a
// group needs, or whatever came within the time that the first one may wait. It
// returns nil when ctx has ended and nothing is left.
func (g *Ingester) collect(ctx context.Context) []*item {
	var timer *time.Timer
	var timeUp <-chan time.Time
	for {
		g.mu.Lock()
		n, samples := 0, 0
		for n < len(g.queue) && samples < g.cfg.MostSamples {
			samples += g.queue[n].samples
			n++
		}
		if n > 0 && (samples >= g.cfg.GroupSamples || ctx.Err() != nil || time.Since(g.queue[0].at) >= g.cfg.GroupWait) {
			group := slices.Clone(g.queue[:n])
			g.queue = slices.Delete(g.queue, 0, n)
			g.mu.Unlock()
			return group
		}
		if n > 0 && timer == nil {
			timer = time.NewTimer(g.cfg.GroupWait - time.Since(g.queue[0].at))
			defer timer.Stop()
			timeUp = timer.C
		}
		g.mu.Unlock()
		if n == 0 && ctx.Err() != nil {
			return nil
		}
		select {
		case <-g.wake:
		case <-timeUp:
		case <-ctx.Done():
		}
	}
}

// finish ends an item.
func (g *Ingester) finish(it *item, acked uint64, err error) {
	g.leave(it)
	it.done(acked, err)
}

// fail ends items of nodes whose logs cannot go on in their sessions, and all
// that these nodes have waiting: to commit a later batch of a session whose
// earlier one was not would lose the earlier one.
func (g *Ingester) fail(group []*item, err error) {
	if len(group) == 0 {
		return
	}
	nodes := map[string]struct{}{}
	for _, it := range group {
		nodes[it.from.NodeUID] = struct{}{}
		delete(g.logs, it.from.NodeUID)
	}
	g.mu.Lock()
	for uid := range nodes {
		g.failing[uid] = struct{}{}
	}
	g.queue = slices.DeleteFunc(g.queue, func(it *item) bool {
		_, is := nodes[it.from.NodeUID]
		if is {
			group = append(group, it)
		}
		return is
	})
	g.mu.Unlock()
	for _, it := range group {
		g.cfg.Log.Warn("a node's batch is not committed", "node", it.from.Node, "epoch", it.epoch, "error", err)
		g.finish(it, 0, err)
	}
	// Every session that was told has ended its ctx: enqueue refuses what it still
	// sends. A new session may come in again.
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid := range nodes {
		delete(g.failing, uid)
	}
}
