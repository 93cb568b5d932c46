package metadata

import "github.com/jackc/pgx/v5/pgxpool"

// Pool lets tests look at what has no API.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }
