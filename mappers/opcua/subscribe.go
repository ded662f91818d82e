package opcua

import (
	"context"
	"errors"
	"fmt"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Subscribes implements mappers.Subscriber.
func (d *device) Subscribes(p int) bool { return d.target.subscribe && d.points[p].readable }

// subscription is one Subscribe under way. gopcua's own subscriptions say
// nothing of keep-alives and stop publishing on errors that they tell nobody;
// this one publishes itself.
type subscription struct {
	d       *device
	s       *session
	points  []mappers.Subscription
	deliver func([]int, []mappers.Result)

	id        uint32
	keepAlive time.Duration // the server says something at least this often
	polled    []polledPoint
	next      uint32 // the sequence number expected, 0 for any
}

// polledPoint is a point that the server does not monitor.
type polledPoint struct {
	point int
	every time.Duration
	due   time.Time
}

// retryRefused is how often a point is read, at most, that the server refused to
// monitor for another reason than that it monitors enough.
const retryRefused = 5 * time.Second

// published is what one request to publish brought.
type published struct {
	answer *ua.PublishResponse
	err    error
}

// Subscribe implements mappers.Subscriber. What the server refuses to monitor
// is polled, so that it is told of in any case.
func (d *device) Subscribe(ctx context.Context, points []mappers.Subscription, deliver func([]int, []mappers.Result)) error {
	s, err := d.link.session(ctx)
	if err != nil {
		return err
	}
	sub := &subscription{d: d, s: s, points: points, deliver: deliver}
	if err := sub.create(ctx); err != nil {
		return sub.ended(ctx, err)
	}
	pctx, cancel := context.WithCancel(ctx)
	answers := make(chan published)
	publisher := make(chan struct{})
	if sub.id != 0 {
		go func() {
			defer close(publisher)
			sub.publish(pctx, answers)
		}()
	} else {
		close(publisher)
	}
	err = sub.run(ctx, answers)
	cancel()
	<-publisher
	return sub.ended(ctx, err)
}

// ended gives the session up, and the subscription with it: an answer to the
// last request to publish must not be taken for one to the next subscription's.
func (sub *subscription) ended(ctx context.Context, err error) error {
	sub.s.fail()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	sub.d.tap.failed(ctx, err, sub.d.target.timeout)
	return failure(err)
}

// create creates the subscription and its items.
func (sub *subscription) create(ctx context.Context) error {
	t := &sub.d.target
	interval := t.publishingFor(sub.points)
	count := func(d time.Duration) uint32 { return uint32(max(1, (d+interval-1)/interval)) }
	keepAlive := count(t.timeout)
	answer, err := ask[*ua.CreateSubscriptionResponse](ctx, sub.d.link, sub.s, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: float64(interval) / float64(time.Millisecond),
		RequestedMaxKeepAliveCount:  keepAlive,
		RequestedLifetimeCount:      max(3*keepAlive, count(time.Minute)),
		PublishingEnabled:           true,
	})
	if unwilling(err) {
		sub.d.log.Info("the server does not take subscriptions: its values are polled", "err", err)
		for _, p := range sub.points {
			sub.poll(p, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	sub.id = answer.SubscriptionID
	sub.keepAlive = time.Duration(float64(max(1, answer.RevisedMaxKeepAliveCount)) * max(1, answer.RevisedPublishingInterval) * float64(time.Millisecond))
	sub.keepAlive = max(sub.keepAlive, interval)
	return sub.monitor(ctx)
}

// unwilling tells the status codes by which a server says that it does not
// subscribe to more, or at all, but may well be read.
func unwilling(err error) bool {
	for _, status := range []ua.StatusCode{ua.StatusBadTooManySubscriptions, ua.StatusBadTooManyMonitoredItems, ua.StatusBadServiceUnsupported,
		ua.StatusBadNotSupported, ua.StatusBadNotImplemented, ua.StatusBadResourceUnavailable, ua.StatusBadOutOfMemory,
		ua.StatusBadMonitoringModeInvalid, ua.StatusBadMonitoredItemFilterUnsupported, ua.StatusBadFilterNotAllowed} {
		if errors.Is(err, status) {
			return true
		}
	}
	return false
}

// monitor has the server monitor the points; those it refuses are polled.
func (sub *subscription) monitor(ctx context.Context) error {
	refusals := 0
	for done := 0; done < len(sub.points); {
		n := min(int(sub.d.batch.Load()), len(sub.points)-done)
		part := sub.points[done : done+n]
		request := &ua.CreateMonitoredItemsRequest{SubscriptionID: sub.id, TimestampsToReturn: ua.TimestampsToReturnBoth}
		for i, p := range part {
			request.ItemsToCreate = append(request.ItemsToCreate, sub.item(uint32(done+i), p))
		}
		answer, err := ask[*ua.CreateMonitoredItemsResponse](ctx, sub.d.link, sub.s, request)
		switch {
		case tooMany(err) && n > 1:
			sub.d.batch.Store(int64((n + 1) / 2))
			continue
		case unwilling(err):
			for _, p := range part {
				sub.poll(p, err)
			}
			refusals += n
			done += n
			continue
		case err != nil:
			return err
		case len(answer.Results) != n:
			return mappers.Fail(models.ReasonProtocolError, fmt.Errorf("%d answers to %d monitored items", len(answer.Results), n))
		}
		for i, result := range answer.Results {
			if uint32(result.StatusCode)&0x8000_0000 != 0 {
				sub.poll(part[i], result.StatusCode)
				refusals++
			}
		}
		done += n
	}
	if refusals > 0 {
		sub.d.log.Info("the server does not monitor all properties: the others are polled", "polled", refusals, "properties", len(sub.points))
	}
	return nil
}

// item asks to monitor a point; its handle is its place among the points.
func (sub *subscription) item(handle uint32, p mappers.Subscription) *ua.MonitoredItemCreateRequest {
	item := gopcua.NewMonitoredItemCreateRequestWithDefaults(sub.s.node(&sub.d.points[p.Point]), ua.AttributeIDValue, handle)
	sampling := sub.d.target.sampling
	if sampling < 0 {
		sampling = p.Every
	}
	item.RequestedParameters.SamplingInterval = float64(sampling) / float64(time.Millisecond)
	item.RequestedParameters.QueueSize = sub.d.target.queue
	return item
}

// poll notes that a point is not monitored.
func (sub *subscription) poll(p mappers.Subscription, why error) {
	every := p.Every
	if !unwilling(why) {
		every = max(every, retryRefused)
	}
	sub.polled = append(sub.polled, polledPoint{point: p.Point, every: every})
}

// publish keeps a request to publish outstanding until ctx ends or one fails.
func (sub *subscription) publish(ctx context.Context, answers chan<- published) {
	acks := []*ua.SubscriptionAcknowledgement{}
	for {
		answer, err := askFor[*ua.PublishResponse](ctx, sub.s, &ua.PublishRequest{SubscriptionAcknowledgements: acks}, publishWait)
		if errors.Is(err, ua.StatusBadTooManyPublishRequests) { // of a subscription before this one
			select {
			case <-ctx.Done():
				return
			case <-time.After(sub.keepAlive):
			}
			continue
		}
		select {
		case answers <- published{answer, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
		acks = acks[:0:0]
		if m := answer.NotificationMessage; m != nil && len(m.NotificationData) > 0 {
			acks = append(acks, &ua.SubscriptionAcknowledgement{SubscriptionID: answer.SubscriptionID, SequenceNumber: m.SequenceNumber})
		}
	}
}

// run delivers until the subscription is lost. It returns why.
func (sub *subscription) run(ctx context.Context, answers <-chan published) error {
	heard := time.Now() // when the subscription last gave a sign of life
	probed := heard
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sub.s.lost:
			return mappers.Fail(models.ReasonNotConnected, errors.New("the connection is lost"))
		case p := <-answers:
			if p.err != nil {
				return fmt.Errorf("publishing: %w", p.err)
			}
			if p.answer.SubscriptionID != sub.id {
				continue // an answer to one before
			}
			if err := sub.take(ctx, p.answer.NotificationMessage); err != nil {
				return err
			}
			heard = time.Now() // delivering may have taken long
		case <-timer.C:
			if err := sub.pollDue(ctx); err != nil {
				return err
			}
			// A connection that died without a word is found by asking, a
			// subscription that did by its silence.
			if now := time.Now(); sub.id != 0 && now.Sub(heard) > 3*sub.keepAlive+sub.d.target.timeout {
				return mappers.Fail(models.ReasonTimeout, fmt.Errorf("the subscription has been silent for %s", now.Sub(heard).Round(time.Millisecond)))
			} else if quiet := now.Sub(later(heard, probed)); quiet > sub.keepAlive+sub.keepAlive/4 {
				if err := sub.probe(ctx); err != nil {
					return err
				}
				probed = time.Now()
			}
		}
		timer.Reset(sub.wait())
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wait is how long nothing has to be looked at.
func (sub *subscription) wait() time.Duration {
	d := time.Hour
	if sub.id != 0 {
		d = max(sub.keepAlive/4, 5*time.Millisecond)
	}
	for i := range sub.polled {
		d = min(d, time.Until(sub.polled[i].due))
	}
	return max(d, time.Millisecond)
}

// probe asks the server for its time.
func (sub *subscription) probe(ctx context.Context) error {
	_, err := ask[*ua.ReadResponse](ctx, sub.d.link, sub.s, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{
		NodeID: ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}})
	if err != nil {
		return fmt.Errorf("the subscription is silent, and so is the server: %w", err)
	}
	return nil
}

// pollDue reads the points that are not monitored and due.
func (sub *subscription) pollDue(ctx context.Context) error {
	now := time.Now()
	var points []int
	for i := range sub.polled {
		p := &sub.polled[i]
		if now.Before(p.due) {
			continue
		}
		points = append(points, p.point)
		if p.due = p.due.Add(p.every); p.due.Before(now) {
			p.due = now.Add(p.every)
		}
	}
	return sub.readAndDeliver(ctx, points)
}

func (sub *subscription) readAndDeliver(ctx context.Context, points []int) error {
	if len(points) == 0 {
		return nil
	}
	results := make([]mappers.Result, len(points))
	if err := sub.d.read(ctx, sub.s, points, results); err != nil {
		return err
	}
	sub.deliver(points, results)
	return nil
}

// take delivers what a message tells. An empty one keeps alive.
func (sub *subscription) take(ctx context.Context, m *ua.NotificationMessage) error {
	if m == nil || len(m.NotificationData) == 0 {
		return nil
	}
	missed := sub.next != 0 && m.SequenceNumber != sub.next
	if sub.next = m.SequenceNumber + 1; sub.next == 0 {
		sub.next = 1
	}
	var points []int
	var values []*ua.DataValue
	var results []mappers.Result
	for _, data := range m.NotificationData {
		if data == nil {
			continue
		}
		switch n := data.Value.(type) {
		case *ua.DataChangeNotification:
			for _, item := range n.MonitoredItems {
				if item == nil || int(item.ClientHandle) >= len(sub.points) {
					continue
				}
				p := sub.points[item.ClientHandle].Point
				points, values, results = append(points, p), append(values, item.Value), append(results, sub.d.result(p, item.Value))
			}
		case *ua.StatusChangeNotification:
			return fmt.Errorf("the server ends the subscription: %w", n.Status)
		}
	}
	if len(points) > 0 {
		sub.d.tap.told(sub.d.points, points, values)
		sub.deliver(points, results)
	}
	if !missed {
		return nil
	}
	// What was in the message that is missing is not known: whatever is true
	// now comes after it.
	sub.d.log.Warn("a notification is missing: all values are read")
	all := make([]int, len(sub.points))
	for i, p := range sub.points {
		all[i] = p.Point
	}
	return sub.readAndDeliver(ctx, all)
}
