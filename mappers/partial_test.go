package mappers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

// picky is a driver that refuses in rounds: the first property whose address is
// in the round's list.
type picky struct {
	rounds [][]models.FieldError
	device Device
	opened [][]Point
}

func (d *picky) Info() Info { return Info{Name: "picky"} }

func (d *picky) Open(cfg DeviceConfig) (Device, error) {
	d.opened = append(d.opened, cfg.Points)
	if len(d.rounds) > 0 {
		fields := d.rounds[0]
		d.rounds = d.rounds[1:]
		return nil, &models.Error{Kind: models.KindInvalid, Fields: fields}
	}
	return d.device, nil
}

func at(pointer string) models.FieldError {
	return models.FieldError{Pointer: pointer, Detail: "does not do"}
}

func namedPoints(names ...string) (out []Point) {
	for _, n := range names {
		out = append(out, Point{Property: n, Type: models.TypeInt, Access: models.ReadWrite})
	}
	return out
}

func TestOpenFittingLeavesOutWhatIsRefused(t *testing.T) {
	f := newFake(models.Int(10), models.Int(20))
	f.line = "wire"
	d := &picky{device: f, rounds: [][]models.FieldError{{at("/spec/properties/b/address/register"), at("/spec/properties/b/address/table")}, {at("/spec/properties/d.x/address")}}}
	dev, err := OpenFitting(d, DeviceConfig{Points: namedPoints("a", "b", "c", "d.x")})
	if err != nil || len(d.opened) != 3 || len(d.opened[2]) != 2 || d.opened[2][1].Property != "c" {
		t.Fatalf("%v, %v", err, d.opened)
	}
	p := dev.(Partial)
	if p.Misfit(0) != nil || p.Misfit(2) != nil || p.Misfit(1).Error() != "/address/register: does not do; /address/table: does not do" || p.Misfit(3) == nil {
		t.Errorf("%v, %v, %v, %v", p.Misfit(0), p.Misfit(1), p.Misfit(2), p.Misfit(3))
	}
	out := make([]Result, 4)
	if err := dev.Read(t.Context(), []int{3, 2, 1, 0}, out); err != nil {
		t.Fatal(err)
	}
	if out[1].Value != models.Int(20) || out[3].Value != models.Int(10) || out[0].Reason != models.ReasonMisconfigured || out[2].Quality != models.Bad {
		t.Errorf("%+v", out)
	}
	if err := dev.Read(t.Context(), []int{1}, out[:1]); err != nil || len(f.reads) != 1 {
		t.Errorf("%v, %v", err, f.reads)
	}
	errs := dev.Write(t.Context(), []WriteRequest{{Point: 1, Value: models.Int(1)}, {Point: 2, Value: models.Int(2)}})
	if FailureOf(errs[0]).Reason != models.ReasonMisconfigured || !FailureOf(errs[0]).Refused || errs[1] != nil || len(f.writes) != 1 || f.writes[0][0].Point != 1 {
		t.Errorf("%v, %v", errs, f.writes)
	}
	f.setFail(errors.New("gone"))
	if err := dev.Read(t.Context(), []int{0, 1}, out[:2]); err == nil {
		t.Error("the device's failure is lost")
	}
	errs = dev.Write(t.Context(), []WriteRequest{{Point: 0, Value: models.Int(1)}, {Point: 3, Value: models.Int(2)}})
	if errs[0] == nil || FailureOf(errs[1]).Reason != models.ReasonMisconfigured {
		t.Errorf("%v", errs)
	}
	if dev.(LineSharer).Line() != "wire" || dev.(Subscriber).Subscribes(0) || len(dev.(Planner).Plan([]int{0, 1})) != 1 {
		t.Error("what the device can do besides is lost")
	}
	if _, err := dev.(Canonicalizer).Canonical(1, models.Int(1)); err == nil {
		t.Error("a misfit has a canonical value")
	}
	if v, err := dev.(Canonicalizer).Canonical(0, models.Int(1)); err != nil || v != models.Int(1) {
		t.Errorf("%v, %v", v, err)
	}
	if err := dev.Close(); err != nil || f.closed != 1 {
		t.Errorf("%v, closed %d times", err, f.closed)
	}
}

func TestOpenFittingGivesUp(t *testing.T) {
	for _, fields := range [][]models.FieldError{
		{at("/spec/connection/url")},
		{at("/spec/properties/a/address"), at("/spec/connection/url")},
		{at("/spec/properties/a/address"), at("/spec/properties/b/address")}, // nothing would be left
		{at("/spec/properties/z/address")},
		{at("/spec/properties/ab/address")},
	} {
		d := &picky{device: newFake(), rounds: [][]models.FieldError{fields}}
		if dev, err := OpenFitting(d, DeviceConfig{Points: namedPoints("a", "b")}); err == nil || len(d.opened) != 1 {
			t.Errorf("%v: %v, %v", fields, dev, d.opened)
		}
	}
	whole, err := OpenFitting(&picky{device: newFake()}, DeviceConfig{Points: namedPoints("a")})
	if _, partial := whole.(Partial); err != nil || partial {
		t.Errorf("a device that fits is %T, %v", whole, err)
	}
}

// telling is a device that subscribes and reports by its own numbers.
type telling struct {
	*fake
	asked []Subscription
}

func (d *telling) Subscribes(int) bool { return true }

func (d *telling) Subscribe(_ context.Context, points []Subscription, deliver func([]int, []Result)) error {
	d.asked = points
	deliver([]int{1, 0}, make([]Result, 2))
	return nil
}

type reporting struct{ *telling }

func (d reporting) Report(_ context.Context, deliver func(Delivery) bool) {
	deliver(Delivery{Points: []int{0, 1}, Results: make([]Result, 2)})
}

func TestOpenFittingCarriesSubscriptionsAndReports(t *testing.T) {
	inner := &telling{fake: newFake()}
	rounds := [][]models.FieldError{{at("/spec/properties/b/address")}}
	dev, err := OpenFitting(&picky{device: inner, rounds: rounds}, DeviceConfig{Points: namedPoints("a", "b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	s := dev.(Subscriber)
	if !s.Subscribes(0) || s.Subscribes(1) || !s.Subscribes(2) {
		t.Error("the wrong points are subscribed to")
	}
	var told []int
	if err := s.Subscribe(t.Context(), []Subscription{{Point: 2}, {Point: 1}, {Point: 0}}, func(points []int, _ []Result) { told = points }); err != nil {
		t.Fatal(err)
	}
	if len(inner.asked) != 2 || inner.asked[0].Point != 1 || inner.asked[1].Point != 0 || !slices.Equal(told, []int{2, 0}) {
		t.Errorf("asked for %v, told of %v", inner.asked, told)
	}
	if _, ok := dev.(Reporter); ok {
		t.Error("it reports")
	}
	dev, err = OpenFitting(&picky{device: reporting{inner}, rounds: rounds}, DeviceConfig{Points: namedPoints("a", "b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	dev.(Reporter).Report(t.Context(), func(d Delivery) bool { told = d.Points; return true })
	if !slices.Equal(told, []int{0, 2}) {
		t.Errorf("told of %v", told)
	}
	if _, ok := dev.(Partial); !ok || !strings.Contains(dev.(Partial).Misfit(1).Error(), "does not do") {
		t.Error("the misfit is forgotten")
	}
}
