package metadata_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// planNode is a node of what EXPLAIN says.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Cond     string     `json:"Index Cond"`
	Plans    []planNode `json:"Plans"`
}

func (n *planNode) walk(visit func(*planNode)) {
	visit(n)
	for i := range n.Plans {
		n.Plans[i].walk(visit)
	}
}

// TestPlans holds the generic plans of the hot statements to their indexes, in
// a database where reading a whole mailbox or account would cost.
func TestPlans(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 1 << 40} })
	n = do(t, db, n, n.appending(3))
	to := create(t, db, n, "Archive")
	t.Run("nearly empty", func(t *testing.T) { plans(t, db, n, to) })
	fill(t, db, n)
	t.Run("full", func(t *testing.T) { plans(t, db, n, to) })
}

func plans(t *testing.T, db *metadata.DB, n, to *node) {
	t.Helper()
	replace := n.appending(1)
	replace.Changes[0].Expunged = 1
	reply := n.appending(1)
	reply.Changes[0].Insert[0].References = []int64{3, 2, 1}
	delivered := deliveryOf("x")(n)
	answer := deliveryOf("y")(n)
	answer.Changes[0].Insert[0].References = []int64{3, 2, 1}
	short := func(c *metadata.Commit, limited bool) string {
		c.Limited = limited
		sql, err := c.ShortSQL()
		if check(t, err); sql == "" {
			t.Error("there is no short statement for it")
		}
		return sql
	}
	for name, test := range map[string]struct {
		commit *metadata.Commit
		sql    string
		keys   map[string]string // what the condition on the index must name, by table
	}{
		"store":          {commit: n.storing(metadata.Seen, 1), keys: byKey},
		"append":         {commit: n.appending(1), keys: byKey},
		"appends":        {commit: n.appending(2), keys: byKey},
		"reply":          {commit: reply, keys: byKey},
		"deliver":        {commit: delivered, keys: byKey},
		"answer":         {commit: answer, keys: byKey},
		"append, short":  {sql: short(n.appending(1), false), keys: byKey},
		"append, quota":  {sql: short(n.appending(1), true), keys: byKey},
		"reply, short":   {sql: short(reply, false), keys: byKey},
		"deliver, short": {sql: short(delivered, false), keys: byKey},
		"answer, quota":  {sql: short(answer, true), keys: byKey},
		"expunge":        {commit: n.expunging(1), keys: byKey},
		"replace":        {commit: replace, keys: byKey},
		"within":         {commit: n.within(true, 1), keys: byKey},
		"move":           {commit: n.transferring(to, true, 1), keys: byKey},
		"copy":           {commit: n.transferring(to, false, 1), keys: byKey},
		"pulses":         {sql: metadata.PulsesSQL, keys: map[string]string{"mailbox": "(id ="}},
		"by name":        {sql: metadata.MailboxesByNameSQL, keys: map[string]string{"mailbox": "(name ="}},
		"load":           {sql: metadata.LoadSQL, keys: map[string]string{"mailbox": "(id =", "flags": "(mailbox_id ="}},
	} {
		t.Run(name, func(t *testing.T) {
			sql := test.sql
			if test.commit != nil {
				var err error
				sql, err = test.commit.SQL()
				check(t, err)
			}
			seen := map[string]bool{}
			plan := explain(t, db, sql)
			plan.walk(func(p *planNode) {
				key, watched := test.keys[p.Relation]
				if !watched || p.Type == "ModifyTable" {
					return
				}
				seen[p.Relation] = true
				if p.Type == "Bitmap Heap Scan" {
					p = &p.Plans[0] // many rows by the same condition
				}
				if !strings.Contains(p.Type, "Index") || !strings.Contains(p.Cond, key) || !strings.Contains(p.Cond, "(account_id =") {
					t.Errorf("%s reads %s by %q, want an index with %s", p.Type, p.Relation, p.Cond, key)
				}
			})
			if !seen["mailbox"] {
				t.Error("the plan does not read the mailbox: is this the right one?")
			}
		})
	}
}

var byKey = map[string]string{
	"mailbox": "(id =", "flags": "(chunk =", "message": "(uid =", "quota": "(account_id =",
	"delivery": "(digest =", "thread_ref": "(msgid_hash =", "blob_share": "(object =",
}

// explain plans a statement once for all values.
func explain(t *testing.T, db *metadata.DB, sql string) *planNode {
	t.Helper()
	conn, err := db.Pool().Acquire(t.Context())
	check(t, err)
	defer conn.Release()
	count := 0
	for strings.Contains(sql, fmt.Sprintf("$%d::", count+1)) {
		count++
	}
	pg := conn.Conn().PgConn()
	for _, statement := range []string{"set plan_cache_mode = force_generic_plan", "prepare planned as " + sql} {
		check(t, pg.Exec(t.Context(), statement).Close())
	}
	results, err := pg.Exec(t.Context(), "explain (format json) execute planned ("+strings.TrimSuffix(strings.Repeat("null, ", count), ", ")+")").ReadAll()
	check(t, err)
	check(t, pg.Exec(t.Context(), "deallocate planned").Close())
	var plans []struct{ Plan planNode }
	check(t, json.Unmarshal(results[0].Rows[0][0], &plans))
	return &plans[0].Plan
}

// fill gives the account many mailboxes and a large one, and others theirs.
func fill(t *testing.T, db *metadata.DB, n *node) {
	t.Helper()
	for _, fill := range []struct {
		sql  string
		args []any
	}{
		{`insert into mailbox (account_id, id, uidvalidity, stamp, epoch, listseq, name)
select a, 1000 + i, i, 1, epoch(), 1, 'box ' || i
from (values ($1::bigint), (1), (2)) v(a), generate_series(1, 400) i`, []any{n.box.Account}},
		{`insert into message (account_id, mailbox_id, uid, internal_date, save_date, size, email_id, thread_id, object, extent, summary)
select a, $2::bigint, 1000 + i, now(), now(), 1, i, i, gen_random_uuid(), '', ''
from (values ($1::bigint), (1), (2)) v(a), generate_series(1, 10000) i`, []any{n.box.Account, n.box.ID}},
		{`insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
select a, $2::bigint, 100 + i, decode(repeat('00', 1665), 'hex'), 1
from (select $1::bigint as a union all select generate_series(1, 40)) v, generate_series(1, 100) i`, []any{n.box.Account, n.box.ID}},
		{`insert into quota (account_id, bytes, messages, max_bytes, max_messages)
select i, 0, 0, 0, 0
from generate_series(1, 2000) i`, nil},
		{`insert into delivery (account_id, digest, mailbox_id, uid)
select $1::bigint, sha256(i::text::bytea), 1, i
from generate_series(1, 2000) i`, []any{n.box.Account}},
		{`insert into thread_ref (account_id, msgid_hash, thread_id)
select $1::bigint, i, i
from generate_series(1, 2000) i`, []any{n.box.Account}},
	} {
		_, err := db.Pool().Exec(t.Context(), fill.sql, fill.args...)
		check(t, err)
	}
	_, err := db.Pool().Exec(t.Context(), "analyze")
	check(t, err)
}

// TestHOT: changes of flags and of the mailbox's row leave the indexes alone.
// A chunk that grows may have to move once in a while. It does not run beside
// other tests: a transaction that writes anywhere in the server, in another
// database too, keeps old versions alive, and then there is no room for new ones.
func TestHOT(t *testing.T) {
	const changes = 300
	for name, test := range map[string]struct {
		change func(n *node, i int) *metadata.Commit
		want   map[string]int64 // updates, by table
		cold   map[string]int64 // of them, how many may not be HOT
	}{
		"store": {
			change: func(n *node, i int) *metadata.Commit {
				uid := uint32(1 + i*7%1000)
				return n.storing(n.slot(uid).Flags^metadata.Flagged, uid)
			},
			want: map[string]int64{"mailbox": changes, "flags": changes},
			cold: map[string]int64{"mailbox": changes / 50, "flags": changes / 50}, // the server's own transactions
		},
		"append": {
			change: func(n *node, _ int) *metadata.Commit { return n.appending(1) },
			want:   map[string]int64{"mailbox": changes, "flags": changes - 4, "quota": changes},
			cold:   map[string]int64{"flags": changes / 10},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := metadatatest.DSN(t)
			db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
			check(t, err)
			n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 1 << 40} })
			n = do(t, db, n, n.appending(1000))
			for i := range changes {
				check(t, errOf(db.Commit(t.Context(), test.change(n, i))))
				l, err := db.Load(t.Context(), n.box.Account, n.box.ID, n.box.Version)
				check(t, err)
				n = apply(n, l)
			}
			db.Close() // the sessions report what they did when they end
			look := metadatatest.Open(t, func(c *metadata.Config) { c.DSN = dsn })
			updates(t, look, test.want)
			cold := pairs[string, int64](t, look, `select relname::text, n_tup_upd - n_tup_hot_upd from pg_stat_user_tables`)
			for table := range test.want {
				if cold[table] > test.cold[table] {
					t.Errorf("%d updates of %s were not HOT, allowed are %d", cold[table], table, test.cold[table])
				}
				t.Logf("%d updates of %s were not HOT", cold[table], table)
			}
		})
	}
}

// updates waits until the server has counted as many.
func updates(t *testing.T, db *metadata.DB, want map[string]int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		got := pairs[string, int64](t, db, `select relname::text, n_tup_upd from pg_stat_user_tables`)
		all := true
		for table, count := range want {
			all = all && got[table] >= count
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server counted %v updates, want at least %v", got, want)
		}
	}
}
