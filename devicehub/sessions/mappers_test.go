package sessions_test

import (
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

func TestAnnouncedMappers(t *testing.T) {
	h := start(t)
	status := func(name string) *models.MapperStatus {
		o, err := h.registry.Get(t.Context(), models.Key{Kind: "Mapper", Name: name})
		if err != nil {
			return &models.MapperStatus{}
		}
		return h.sessions.MapperStatus(o.(*models.Mapper))
	}
	announce := func(l interface{ Say(*pb.Frame) }, name, version, address string) {
		l.Say(&pb.Frame{Body: &pb.Frame_MapperInfo{MapperInfo: &pb.MapperInfo{Name: name, Version: version, Connection: []byte("true"), Address: []byte(address)}}})
	}
	one, two := h.edge("n1"), h.edge("n2")
	l1, l2 := one.Connect(t, one.Hello("E1")), two.Connect(t, two.Hello("E2"))
	announce(l1, "scpi", "1.0.0", `{"required":["query"]}`)
	h.until("the object", func() bool { return len(status("scpi").Nodes) == 1 })
	announce(l2, "../etc", "1.0.0", `true`)
	announce(l2, "scpi", "1.0.0", `{"required":["other"]}`)
	h.until("the conflict", func() bool { return len(status("scpi").Nodes) == 2 })
	s := status("scpi")
	if n := s.Nodes[1]; n.Name != "n2" || n.Version != "1.0.0" || n.Problem == "" || s.Nodes[0].Problem != "" {
		t.Errorf("nodes %+v", s.Nodes)
	}
	if c := s.Conditions[0]; c.Type != "Agreed" || c.Status != "False" || c.Reason != "AnnouncementRefused" {
		t.Errorf("condition %+v", c)
	}
	h.until("the node's condition", func() bool { return h.condition("n2", "MappersTaken") == "False MapperRefused" })
	announce(l2, "scpi", "1.1.0", `{"required":["query"]}`)
	h.until("they agree", func() bool {
		return h.condition("n2", "MappersTaken") == "True Taken" && status("scpi").Conditions[0].Status == "True"
	})
	if got := h.condition("n1", "MappersTaken"); got != "" {
		t.Errorf("n1: %s", got)
	}
}
