package sessions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// takeMappers registers what the edge announces, one mapper after the other.
func (s *session) takeMappers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m := <-s.mappers:
			s.takeMapper(ctx, m)
		}
	}
}

func (s *session) takeMapper(ctx context.Context, info *pb.MapperInfo) {
	if models.CheckLabelName(info.Name) != "" {
		s.m.log.Warn("a node announces a mapper without a proper name", "node", s.id.Name, "name", cut(info.Name))
		return
	}
	spec := models.MapperSpec{Description: cut(info.Description), Version: cut(info.Version), Connection: info.Connection, Address: info.Address, Property: info.Property}
	err := s.m.Registry.Announce(ctx, s.id.Name, info.Name, spec)
	if ctx.Err() != nil {
		return
	}
	now := models.MapperNode{Name: s.id.Name, Version: spec.Version}
	if err != nil {
		now.Problem = err.Error()
		s.m.log.Warn("a node's mapper is not taken", "node", s.id.Name, "mapper", info.Name, "version", spec.Version, "error", err)
	}
	s.m.mu.Lock()
	n := s.m.nodeLocked(s.id.Name)
	if n.mappers == nil {
		n.mappers = map[string]models.MapperNode{}
	}
	before, known := n.mappers[info.Name]
	if known || len(n.mappers) < edgelink.MaxMappers {
		n.mappers[info.Name] = now
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(n.mappers)) {
		if p := n.mappers[name].Problem; p != "" {
			problems = append(problems, fmt.Sprintf("%s: %s", name, p))
		}
	}
	s.m.mu.Unlock()
	if known && before == now {
		return
	}
	s.m.Registry.StatusChanged(models.Key{Kind: "Mapper", Name: info.Name})
	if before.Problem != now.Problem {
		c := models.Condition{Type: mappersTaken, Status: "True", Reason: "Taken", LastTransitionTime: s.m.now().UTC()}
		if len(problems) > 0 {
			c.Status, c.Reason, c.Message = "False", "MapperRefused", strings.Join(problems, "; ")
		}
		s.m.setCondition(s.id.Name, c)
	}
}

// mappersTaken is the condition of a Node whose announcements were taken or not.
const mappersTaken = "MappersTaken"

// MapperStatus returns which nodes have a mapper.
func (m *Manager) MapperStatus(o *models.Mapper) *models.MapperStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &models.MapperStatus{}
	var refused []string
	for _, node := range slices.Sorted(maps.Keys(m.nodes)) {
		n, ok := m.nodes[node].mappers[o.Metadata.Name]
		if !ok {
			continue
		}
		s.Nodes = append(s.Nodes, n)
		if n.Problem != "" {
			refused = append(refused, n.Name+": "+n.Problem)
		}
	}
	if len(s.Nodes) > 0 {
		c := models.Condition{Type: "Agreed", Status: "True", Reason: "NodesAgree", LastTransitionTime: *o.Metadata.CreationTimestamp}
		if len(refused) > 0 {
			c.Status, c.Reason, c.Message = "False", "AnnouncementRefused", strings.Join(refused, "; ")
		}
		s.Conditions = []models.Condition{c}
	}
	if len(s.Nodes) > maxMapperNodes {
		s.Nodes = s.Nodes[:maxMapperNodes]
	}
	return s
}

// maxMapperNodes bounds the nodes that a Mapper's status names.
const maxMapperNodes = 100
