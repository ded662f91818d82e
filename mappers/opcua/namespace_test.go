package opcua

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

// A node named by its namespace's URI is found under whatever index the server
// has for it: read, written and subscribed to. A namespace that is not there
// makes its own points bad.
func TestNodesAreFoundByNamespaceURI(t *testing.T) {
	sim := counting(t, func(cfg *opcuasim.Config) { cfg.Name = "press" })
	const uri = "nsu=urn:whimbrel:simulator:press:nodes;"
	d := open(t, New(), fmt.Sprintf(`{"url": %q, "publishingInterval": "50ms"}`, sim.URL()),
		pt("still", models.TypeInt, models.ReadWrite, `{"node": %q}`, uri+"s=still"),
		pt("gone", models.TypeInt, models.Read, `{"node": "nsu=urn:elsewhere;s=still"}`),
		pt("count", models.TypeInt, models.Read, `{"node": %q}`, uri+"s=count"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out := make([]mappers.Result, 2)
	if err := d.Read(ctx, []int{0, 1}, out); err != nil {
		t.Fatal(err)
	}
	if out[0].Quality != models.Good || out[0].Value != models.Int(7) || out[1].Quality != models.Bad || out[1].Reason != "node-id-unknown" {
		t.Fatalf("%+v", out)
	}
	if errs := d.Write(ctx, []mappers.WriteRequest{{Point: 0, Value: models.Int(8)}}); errs[0] != nil {
		t.Fatal(errs)
	}
	if v, _ := sim.Get("still"); fmt.Sprint(v) != "8" {
		t.Errorf("still is %v", v)
	}
	sctx, stop := context.WithCancel(ctx)
	err := d.Subscribe(sctx, []mappers.Subscription{{Point: 2, Every: 20 * time.Millisecond}}, func(_ []int, results []mappers.Result) {
		if results[0].Quality == models.Good && results[0].Value.IsNumber() {
			stop()
		}
	})
	if ctx.Err() != nil || sctx.Err() == nil {
		t.Errorf("nothing was delivered: %v", err)
	}
	stop()
}
