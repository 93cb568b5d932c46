package metadata_test

import (
	"fmt"
	"strings"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	for _, test := range []struct {
		sql  string
		want error
		text string
	}{
		{"update cluster set schema = 0", metadata.ErrSchemaOld, "starling migrate"},
		{"update cluster set schema = 9, oldest_reader = 9", metadata.ErrSchemaNew, "newer release"},
		{"update cluster set schema = 9, oldest_reader = 1", nil, ""}, // a later one that this release can still work with
		{"drop table cluster cascade", metadata.ErrSchemaOld, "starling migrate"},
	} {
		_, err := db.Pool().Exec(t.Context(), test.sql)
		check(t, err)
		err = db.CheckSchema(t.Context())
		wantErr(t, err, test.want)
		if err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want to read %q", test.sql, err, test.text)
		}
	}
}

// A schema made by an older release is refused until it is migrated; with the schema of
// this release the older ones go on: they are not told to stop, every column that they
// know is as it was, and what they insert lacks nothing.
func TestSchemasOfTwoReleases(t *testing.T) {
	t.Parallel()
	dsn := emptyDSN(t)
	check(t, metadata.MigrateTo(t.Context(), dsn, 1))
	db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
	check(t, err)
	defer db.Close()
	for older := int64(1); older < metadata.SchemaSupported; older++ {
		err := db.CheckSchema(t.Context())
		wantErr(t, err, metadata.ErrSchemaOld)
		if want := fmt.Sprintf("has schema %d, this release needs %d: run starling migrate", older, metadata.SchemaSupported); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want to read %q", err, want)
		}
		before := columns(t, db)
		check(t, metadata.MigrateTo(t.Context(), dsn, older+1))
		after := columns(t, db)
		for name, column := range before {
			if after[name] != column {
				t.Errorf("schema %d: %s was %q and is %q", older+1, name, column, after[name])
			}
		}
		for name, column := range after {
			if _, known := before[name]; !known && strings.Contains(column, "not null") && !strings.Contains(column, "default") {
				t.Errorf("schema %d: older releases do not fill %s", older+1, name)
			}
		}
		if readers := pairs[int, int64](t, db, "select oldest_reader, schema from cluster"); readers[1] != older+1 {
			t.Errorf("schema %d asks for other readers: %v", older+1, readers)
		}
	}
	check(t, db.CheckSchema(t.Context()))
	for _, sql := range schema1 {
		_, err := db.Pool().Exec(t.Context(), sql)
		check(t, err)
	}
	login, err := db.Login(t.Context(), "old@example.org")
	check(t, err)
	if login.ID != 7 || !login.TraceUntil.IsZero() {
		t.Errorf("the account of an older release reads %+v", login.Account)
	}
}

// columns describes all columns, by table and name.
func columns(t *testing.T, db *metadata.DB) map[string]string {
	t.Helper()
	return pairs[string, string](t, db, `
select table_name || '.' || column_name,
  data_type || case is_nullable when 'NO' then ' not null' else '' end || coalesce(' default ' || column_default, '')
from information_schema.columns
where table_schema = 'public' and table_name <> 'migration'`)
}

// schema1 is what the release of schema 1 says to tables that were changed since.
var schema1 = []string{
	`insert into account (account_id, tenant_id, name, domain, next_mailbox, last_uidvalidity) values (7, 1, 'old@example.org', 'example.org', 1, 1)`,
	`select a.account_id, a.tenant_id, a.name, a.state, a.auth_version, a.hold from account a where a.name = 'old@example.org'`,
	`update account set state = 1, state_since = now(), auth_version = auth_version + 1 where name = 'old@example.org' and state <> 3`,
}
