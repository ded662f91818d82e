package link

import (
	"context"
	"encoding/json"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// tellMappers tells the hub of the edge's drivers, and later of each that is new
// or has changed.
func (s *session) tellMappers(ctx context.Context) error {
	told := map[string]string{}
	for {
		if s.l.cfg.Mappers != nil {
			for _, info := range s.l.cfg.Mappers() {
				text := describe(info)
				if told[info.Name] == text || len(told) >= edgelink.MaxMappers {
					continue
				}
				if max(len(info.Connection), len(info.Address), len(info.Property)) > edgelink.MaxMapperSchema {
					s.l.log.Warn("a driver's schemas are too large for the hub; it is not announced", "driver", info.Name)
				} else if err := s.conn.Send(ctx, &pb.Frame{Body: &pb.Frame_MapperInfo{MapperInfo: &pb.MapperInfo{Name: info.Name, Version: info.Version,
					Description: info.Description, Connection: info.Connection, Address: info.Address, Property: info.Property}}}); err != nil {
					return err
				}
				told[info.Name] = text
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.l.mappers:
		}
	}
}

// describe is equal for what says the same.
func describe(i mappers.Info) string {
	text, err := json.Marshal(i)
	if err != nil { // a schema that is no JSON: the hub says so
		return i.Version
	}
	return string(text)
}
