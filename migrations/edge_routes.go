package migrations

import "embed"

//go:embed edge/routes/*.sql
var edgeRoutes embed.FS

// EdgeRoutes is the schema of an edge's queue of routed messages.
var EdgeRoutes = Set{FS: edgeRoutes, Dir: "edge/routes", Dialect: SQLite}
