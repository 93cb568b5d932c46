package metadata

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// SchemaSupported is the schema that this release knows.
const SchemaSupported = schemaSupported

// MigrateTo makes the schema as an older release did.
func MigrateTo(ctx context.Context, dsn string, schema int64) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	return migrateSchema(ctx, db, schema)
}

// Pool lets tests look at what has no API.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// The statements of Load, Pulses and MailboxesByName.
const (
	LoadSQL            = loadSQL
	PulsesSQL          = pulsesSQL
	MailboxesByNameSQL = mailboxesByNameSQL
)

// SQL is the statement that a commit is sent as.
func (c *Commit) SQL() (string, error) {
	p, err := c.plan()
	if err != nil {
		return "", err
	}
	return p.sql, nil
}

// ShortSQL is the statement that is sent before that, "" if none is.
func (c *Commit) ShortSQL() (string, error) {
	p, err := c.plan()
	if err != nil {
		return "", err
	}
	return p.short, nil
}

// OtherStatement is what statements without a name are counted as.
const OtherStatement = otherStatement

// Statements is the table of names.
func Statements() []string { return statements[:] }

// Measure does what is done for a statement beside sending it.
func (db *DB) Measure(ctx context.Context, what string) {
	db.metrics.begin(ctx, what).end(nil)
}
