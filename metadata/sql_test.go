package metadata_test

import (
	"testing"

	"starling/metadata"
)

// refs are the shares of an account's objects.
func refs(t *testing.T, db *metadata.DB, account metadata.AccountID) map[metadata.ObjectID]int {
	t.Helper()
	return pairs[metadata.ObjectID, int](t, db, `select object, refs from blob_share where account_id = $1::bigint`, account)
}

// work is what the collector has to do of an account.
func work(t *testing.T, db *metadata.DB, account metadata.AccountID) map[metadata.MailboxID]int64 {
	t.Helper()
	return pairs[metadata.MailboxID, int64](t, db, `select mailbox_id, max(modseq) from expunged where account_id = $1::bigint group by 1`, account)
}

func pairs[K comparable, V any](t *testing.T, db *metadata.DB, sql string, args ...any) map[K]V {
	t.Helper()
	rows, err := db.Pool().Query(t.Context(), sql, args...)
	check(t, err)
	all := map[K]V{}
	for rows.Next() {
		var k K
		var v V
		check(t, rows.Scan(&k, &v))
		all[k] = v
	}
	check(t, rows.Err())
	return all
}
