package migrations

import "embed"

//go:embed hub/postgres/*.sql
var hubPostgres embed.FS

//go:embed hub/sqlite/*.sql
var hubSQLite embed.FS

// The schemas of a hub's database. The two hold the same in each engine's own
// way; devicehub/store says what.
var (
	HubPostgres = Set{FS: hubPostgres, Dir: "hub/postgres", Dialect: Postgres}
	HubSQLite   = Set{FS: hubSQLite, Dir: "hub/sqlite", Dialect: SQLite}
)
