package metadata

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// AccountByID reads an account, in any state. The error is ErrNotFound if there is none.
func (db *DB) AccountByID(ctx context.Context, id AccountID) (Account, error) {
	var a Account
	err := db.row(ctx, "read the account", `
select a.account_id, a.tenant_id, a.name, a.state, a.auth_version, a.hold,
  coalesce(q.max_bytes, 0), coalesce(q.max_messages, 0), a.trace_until
from account a
left join quota q on q.account_id = a.account_id
where a.account_id = $1::bigint`,
		[]any{id}, a.into()...)
	return a, notFound(err, "account %x", int64(id))
}

// KnownObject is an object that the database knows of.
type KnownObject struct {
	Object  ObjectID
	EmailID int64 // of the message that names it; 0: none does
	Doomed  bool  // it is to be deleted
}

// KnownObjects calls each with all objects of an account that a message names, be it an
// expunged or moved one, or that are to be deleted, as of one moment, in no order. One may
// come several times. What has owners by its count alone (blob_share) has lost their rows, and is not known.
func (db *DB) KnownObjects(ctx context.Context, account AccountID, each func(KnownObject)) error {
	return db.scan(ctx, "read what is known of objects", `
select object, email_id, false
from message
where account_id = $1::bigint
union all
select object, 0, true
from doomed
where account_id = $1::bigint`, []any{account}, func(rows pgx.Rows) error {
		var o pgtype.UUID
		var k KnownObject
		if err := rows.Scan(&o, &k.EmailID, &k.Doomed); err != nil {
			return err
		}
		k.Object = o.Bytes
		each(k)
		return nil
	})
}
