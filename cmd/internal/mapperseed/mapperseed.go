// Package mapperseed makes the hub's Mapper objects from the drivers that the
// binary ships: the hub itself knows mappers only as objects.
package mapperseed

import (
	"maps"
	"slices"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Objects returns a Mapper object for each driver, in the order of their names.
func Objects(drivers map[string]mappers.Driver) []*models.Mapper {
	var out []*models.Mapper
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		info := drivers[name].Info()
		out = append(out, &models.Mapper{
			TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "Mapper"},
			Metadata: models.ObjectMeta{Name: info.Name},
			Spec: models.MapperSpec{Description: "ships with whimbrel", Version: info.Version,
				Connection: info.Connection, Address: info.Address, Property: info.Property},
		})
	}
	return out
}
