package edgeruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/bridge"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// settingMapper begins the names of the settings that hold what mappers in
// processes of their own have announced: after a restart their devices wait
// for them, instead of having no driver.
const settingMapper = "mapper."

// storedMapper is such a setting.
type storedMapper struct {
	Version     string          `json:"version"`
	Description string          `json:"description,omitempty"`
	Connection  json.RawMessage `json:"connection"`
	Address     json.RawMessage `json:"address"`
	Property    json.RawMessage `json:"property,omitempty"`
}

// bridgeMappers makes the bridge, with the mappers that there were before. Their
// drivers are added to the edge's own.
func (e *Edge) bridgeMappers(before map[string]string, newID func() string) (map[string]mappers.Driver, error) {
	e.bridge = bridge.New(bridge.Config{Node: e.cfg.Node, NewID: newID, Log: e.cfg.Log, Announced: e.mapperAnnounced,
		Publish:    func(topic string, payload []byte) error { return e.broker.Publish(topic, payload, false) },
		Disconnect: func(conn uint64) { e.broker.Disconnect(conn) }})
	drivers := maps.Clone(e.cfg.Drivers)
	if drivers == nil {
		drivers = map[string]mappers.Driver{}
	}
	for setting, text := range before {
		name, ok := strings.CutPrefix(setting, settingMapper)
		if !ok || drivers[name] != nil { // a driver that is built in by now
			continue
		}
		var s storedMapper
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return nil, fmt.Errorf("stored mapper %s: %w", name, err)
		}
		drivers[name] = e.bridge.Add(mappers.Info{Name: name, Version: s.Version, Description: s.Description, Connection: s.Connection, Address: s.Address, Property: s.Property})
	}
	return drivers, nil
}

// mapperAnnounced keeps what a mapper announced, and makes it the driver of its
// devices.
func (e *Edge) mapperAnnounced(info mappers.Info) error {
	if e.cfg.Drivers[info.Name] != nil {
		return models.Errorf(models.KindConflict, "%s is built into this edge", info.Name)
	}
	text, err := json.Marshal(storedMapper{info.Version, info.Description, info.Connection, info.Address, info.Property})
	if err != nil {
		return err
	}
	if err := e.store.SetSettings(context.Background(), map[string]string{settingMapper + info.Name: string(text)}); err != nil {
		return err
	}
	e.devices.SetDriver(info.Name, e.bridge.Add(info))
	return nil
}

// mapperInfos is what the hub is told of the edge's drivers, by name.
func (e *Edge) mapperInfos() []mappers.Info {
	var infos []mappers.Info
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Drivers)) {
		infos = append(infos, e.cfg.Drivers[name].Info())
	}
	for _, m := range e.bridge.Mappers() {
		infos = append(infos, m.Info())
	}
	return infos
}

// speech is the bridge as the broker sees it.
type speech struct{ e *Edge }

var _ broker.Mappers = speech{}

// Message implements broker.Mappers.
func (s speech) Message(m broker.MapperMessage) {
	s.e.bridge.Message(bridge.Message(m))
	if m.Kind == mqtt.MapperAnnounce {
		s.e.link.MappersChanged()
	}
}

// Gone implements broker.Mappers.
func (s speech) Gone(conn uint64) { s.e.bridge.Gone(conn) }

// MayRead implements broker.Mappers.
func (s speech) MayRead(conn uint64, mapper string, kind mqtt.MapperTopicKind) bool {
	return s.e.bridge.MayRead(conn, mapper, kind)
}
