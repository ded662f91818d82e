package migrations

import "embed"

//go:embed edge/outbox/*.sql
var edgeOutbox embed.FS

// EdgeOutbox is the schema of an edge's outbox.
var EdgeOutbox = Set{FS: edgeOutbox, Dir: "edge/outbox", Dialect: SQLite}
