package metadata

import "github.com/jackc/pgx/v5/pgxpool"

// Pool lets tests look at what has no API.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// LoadSQL is the statement of Load.
const LoadSQL = loadSQL

// SQL is the statement that a commit is sent as.
func (c *Commit) SQL() (string, error) {
	p, err := c.plan()
	if err != nil {
		return "", err
	}
	return p.sql, nil
}
