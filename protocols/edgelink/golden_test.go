package edgelink

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var add = flag.Bool("add", false, "write golden files that are not there yet")

// golden is the folder of each capability number that was ever released: messages
// as that release wrote them, and what they mean in JSON. They are never
// changed: an edge two years old still writes them.
const golden = "testdata/capability-1"

// goldenFrames has one frame of every type, every field set.
func goldenFrames() map[string]*pb.Frame {
	held := &pb.Held{Kind: "Device", Namespace: "default", Name: "boiler-1", Uid: "01JD0A", Revision: 41}
	writes := []*pb.WriteEvent{{Device: 0, Property: "setpoint", Id: "01JDW", State: "failed", Error: "refused", TimeUs: 1795348800000001, Late: true, Refused: true}}
	return map[string]*pb.Frame{
		"hello": {Id: 1, Body: &pb.Frame_Hello{Hello: &pb.Hello{Capability: 1, Capabilities: []string{"x"}, Node: "gateway-1", Version: "0.1.0", Os: "linux", Arch: "arm64", Lineage: "01JDL",
			Epochs: []*pb.Epoch{{Id: "01JDE1", Parent: "01JDE0", ParentLast: 7, First: 9, Last: 12, Acked: 8}}, Held: []*pb.Held{held}, ClockUs: 1795348800000000, Labels: map[string]string{"site": "north"}}}},
		"welcome": {Re: 1, Body: &pb.Frame_Welcome{Welcome: &pb.Welcome{Capability: 1, Capabilities: []string{"x"}, Lineage: "01JDL", NodeUid: "01JDN",
			Acks: []*pb.EpochAck{{Epoch: "01JDE1", Seq: 10}}, WindowBytes: 1 << 20, ClockUs: 1795348800000000}}},
		"batch":     {Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: "01JDE1", Records: []*pb.Numbered{{Seq: 11, Record: []byte{1, 2, 3}, Backfill: true}, {Seq: 12}}}}},
		"batch-big": {Body: &pb.Frame_Batch{Batch: &pb.Batch{Epoch: "01JDE1", Records: []*pb.Numbered{{Seq: 11, Record: bytes.Repeat([]byte("packed "), 400)}}}}},
		"ack":       {Body: &pb.Frame_Ack{Ack: &pb.Ack{Acks: []*pb.EpochAck{{Epoch: "01JDE1", Seq: 12}}, WindowBytes: 1 << 19}}},
		"latest": {Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "01JDE1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "01JD0A", Assignment: 2}, Seq: 12, Full: true, State: "degraded", SeenUs: 1795348800000000,
			Values: []*pb.LatestValue{{Property: "temperature", Kind: 4, Bits: math.Float64bits(71.5), Text: []byte("t"), Quality: 1, Reason: "stale", TimeUs: 1795348800000000, SinceUs: 1795348800000002, Seq: 12}},
			Writes: writes, ReadPlan: []byte("{}"), Problem: "no such register", StateReason: "timeout"}}}}},
		"latest-sent": {Body: &pb.Frame_Latest{Latest: &pb.Latest{Epoch: "01JDE1", Twins: []*pb.LatestTwin{{Device: &pb.DeviceRef{Uid: "01JD0A", Assignment: 2}, Seq: 12, Full: true, State: "online", SeenUs: 1795348800000000,
			Writes: []*pb.WriteEvent{{Property: "setpoint", Id: "01JDW", State: "applied", TimeUs: 1795348800000001, SentUs: 1795348800000000}}}}}}},
		"sync": {Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Body: &pb.Frame_Sync{Sync: &pb.Sync{Id: 5, Full: true,
			Items: []*pb.Item{{Kind: "Device", Namespace: "default", Name: "boiler-1", Uid: "01JD0A", Revision: 42, Assignment: 2, Json: []byte("{}")}}, Keep: []*pb.Held{held}, Removed: []*pb.Held{held}}}},
		"sync-done":      {Body: &pb.Frame_SyncDone{SyncDone: &pb.SyncDone{Id: 5}}},
		"report-failing": {Body: &pb.Frame_Report{Report: &pb.NodeReport{OutboxRecords: 3, OutboxBytes: 4, OutboxDropped: 5, LastSeq: 12, ClockUs: 1795348800000000, Seen: []*pb.Seen{{Uid: "01JD0A", SeenUs: 1795348800000000}}, Failing: "the disk is full"}}},
		"request": {Id: 9, Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			Body: &pb.Frame_Request{Request: &pb.Request{Method: "device.read", Body: []byte(`{"device":"01JD0A"}`), TimeoutMs: 4750, Credit: 4}}},
		"response":    {Re: 9, Body: &pb.Frame_Response{Response: &pb.Response{Body: []byte("{}"), Final: true, Problem: []byte(`{"status":504}`)}}},
		"cancel":      {Re: 9, Body: &pb.Frame_Cancel{Cancel: &pb.Cancel{}}},
		"credit":      {Re: 9, Body: &pb.Frame_Credit{Credit: &pb.Credit{Parts: 2}}},
		"mapper-info": {Body: &pb.Frame_MapperInfo{MapperInfo: &pb.MapperInfo{Name: "scpi", Version: "1.0.0", Description: "instruments", Connection: []byte(`{"type":"object"}`), Address: []byte("true"), Property: []byte("{}")}}},
		"pod-statuses": {Body: &pb.Frame_PodStatuses{PodStatuses: &pb.PodStatuses{Full: true, Engine: &pb.Engine{Ready: true, Version: "28.5.2", Reason: "EngineUnavailable", Message: "no answer"},
			Pods: []*pb.PodState{{Namespace: "default", Name: "vibration-0", Uid: "01JDP", Json: []byte(`{"phase":"Running"}`)}, {Namespace: "default", Name: "vibration-1", Uid: "01JDQ", Gone: true}}}}},
		"route-messages": {Body: &pb.Frame_RouteMessages{RouteMessages: &pb.RouteMessages{Messages: []*pb.RouteMessage{
			{Key: "01JDK", Route: "01JDR", Generation: 2, Topic: "alarms/hall", Node: "gateway-1", ContentType: "application/json", Payload: []byte(`{"severity":3}`), AgeMs: 1500,
				Wait: true, Namespace: "plant", Name: "alarms-to-erp", Filter: "alarms/#"},
			{Key: "01JDL", Route: "01JDS", Generation: 1, Device: "boiler-1", Property: "temperature", Payload: []byte("{}"), Dead: "status 500",
				Target: []byte(`{"mqtt":{"topic":"x"}}`), TtlMs: 3600000, Retries: 5, Namespace: "default", Name: "down"}}}}},
		"route-dead":   {Body: &pb.Frame_RouteMessages{RouteMessages: &pb.RouteMessages{Messages: []*pb.RouteMessage{{Key: "01JDM", Route: "01JDS", Dead: "status 500", Attempts: 3}}}}},
		"route-acks":   {Body: &pb.Frame_RouteAcks{RouteAcks: &pb.RouteAcks{Keys: []string{"01JDK"}, Refused: []string{"01JDL"}}}},
		"route-reply":  {Body: &pb.Frame_RouteReply{RouteReply: &pb.RouteReply{Key: "01JDK", Status: 201, ContentType: "text/plain", Body: []byte("ok"), Error: "late"}}},
		"route-counts": {Body: &pb.Frame_RouteCounts{RouteCounts: &pb.RouteCounts{Queue: "01JDT", Routes: []*pb.RouteCount{{Route: "01JDR", Delivered: 7, Failed: 1, Dropped: 2, Queued: 3, LastError: "status 500", LastErrorUs: 1767225600000000}}}}},
		"goodbye":      {Body: &pb.Frame_Goodbye{Goodbye: &pb.Goodbye{Reason: "shutdown", Message: "restarting", RetryAfterS: 2}}},
	}
}

// goldenRecord has a sample of every kind and quality, and every event.
func goldenRecord() []byte {
	var b Builder
	boiler := DeviceRef{UID: "01JD0A", Assignment: 2}
	for _, v := range []models.Value{models.Null, models.Bool(true), models.Int(-5), models.Uint(math.MaxUint64), models.Float(71.5), models.String("on"), models.Bytes([]byte{0xff}), mustJSON(`{"a":[1]}`)} {
		b.AddSample(boiler, "mixed", models.Sample{Value: v, Time: noon})
		b.AddSample(DeviceRef{UID: "01JD0B"}, "one", models.Sample{Value: models.Float(1), Quality: models.Quality(b.Samples() % 3), Reason: models.ReasonStale, Time: noon})
	}
	b.AddWrite(WriteEvent{Device: boiler, Property: "setpoint", ID: "01JDW", State: "failed", Error: "refused", Time: noon, Late: true, Refused: true})
	b.AddLocal(LocalDesired{Device: boiler, Property: "setpoint", ID: "01JDX", Value: models.Float(45.5), Base: 3, Time: noon, By: "panel"})
	b.AddState(StateEvent{Device: boiler, State: models.StateOffline, Reason: "timeout", Message: "no answer", Time: noon})
	b.AddGap(Gap{Reason: GapOutboxFull, Epoch: "01JDE1", FirstSeq: 1, LastSeq: 2, Samples: 3, From: noon, To: noon})
	return b.Bytes()
}

// goldenLedger has what records say of writes for the ledger.
func goldenLedger() []byte {
	var b Builder
	boiler := DeviceRef{UID: "01JD0A", Assignment: 2}
	local := LocalDesired{Device: boiler, Property: "setpoint", ID: "01JDX", Value: models.Float(45.5), Base: 3, Time: noon, By: "panel", After: "01JDV",
		Reason: "cold night", Origin: "mqtt", Before: &models.Sample{Value: models.Float(40), Quality: models.Uncertain, Reason: models.ReasonStale, Time: noon}}
	b.AddWrite(WriteEvent{Device: boiler, Property: "setpoint", ID: "01JDX", State: "pending", Time: noon, Asked: &local})
	b.AddWrite(WriteEvent{Device: boiler, Property: "setpoint", ID: "01JDX", State: "applied", Time: noon, Sent: noon})
	b.AddLocal(local)
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	if *add {
		addGolden(t)
	}
	files, err := filepath.Glob("testdata/capability-*/*.bin")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			message, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			meaning, err := os.ReadFile(strings.TrimSuffix(file, ".bin") + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var got, want proto.Message
			if strings.HasPrefix(filepath.Base(file), "record") {
				if _, err := DecodeRecord(message); err != nil {
					t.Fatal(err)
				}
				r := new(pb.Record)
				if err := r.UnmarshalVT(message); err != nil {
					t.Fatal(err)
				}
				got, want = r, new(pb.Record)
			} else {
				f, err := DecodeFrame(message)
				if err != nil {
					t.Fatal(err)
				}
				got, want = f, new(pb.Frame)
				seen[string(f.ProtoReflect().WhichOneof(f.ProtoReflect().Descriptor().Oneofs().Get(0)).Name())] = true
			}
			if err := protojson.Unmarshal(meaning, want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, want) {
				t.Errorf("it decodes to\n%s\nand means\n%s", protojson.Format(got), protojson.Format(want))
			}
		})
	}
	bodies := new(pb.Frame).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range bodies.Len() {
		if name := string(bodies.Get(i).Name()); !seen[name] {
			t.Errorf("no golden file has a %s: run with -add", name)
		}
	}
}

func addGolden(t *testing.T) {
	put := func(name string, message []byte, meaning proto.Message) {
		path := filepath.Join(golden, name)
		if _, err := os.Stat(path + ".bin"); err == nil {
			return
		}
		text, err := protojson.MarshalOptions{Multiline: true}.Marshal(meaning)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(golden, 0o755); err != nil {
			t.Fatal(err)
		}
		for suffix, data := range map[string][]byte{".bin": message, ".json": append(text, '\n')} {
			if err := os.WriteFile(path+suffix, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range goldenFrames() {
		message, err := AppendFrame(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		put(name, message, f)
	}
	for name, text := range map[string][]byte{"record": goldenRecord(), "record-ledger": goldenLedger()} {
		r := new(pb.Record)
		if err := r.UnmarshalVT(text); err != nil {
			t.Fatal(err)
		}
		put(name, text, r)
	}
}

// TestGoldenFramesAreWhole keeps the corpus honest: a field that goldenFrames
// leaves out would never be checked.
func TestGoldenFramesAreWhole(t *testing.T) {
	optional := map[string]bool{"trace": true, "id": true, "re": true, "device": true, "backfill": true, "seq": true, "record": true}
	for name, f := range goldenFrames() {
		body := f.ProtoReflect()
		field := body.WhichOneof(body.Descriptor().Oneofs().Get(0))
		m := body.Get(field).Message()
		for i := range m.Descriptor().Fields().Len() {
			if fd := m.Descriptor().Fields().Get(i); !m.Has(fd) && !optional[string(fd.Name())] {
				t.Errorf("%s leaves %s out", name, fd.Name())
			}
		}
	}
}
