package migrations

import "embed"

//go:embed edge/store/*.sql
var edgeStore embed.FS

// EdgeStore is the schema of what an edge must know to work without its hub.
var EdgeStore = Set{FS: edgeStore, Dir: "edge/store", Dialect: SQLite}
