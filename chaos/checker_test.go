package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

func exists(n uint32) Told  { return Told{Kind: Exists, Num: n} }
func expunge(n uint32) Told { return Told{Kind: Expunge, Num: n} }
func vanished(uids ...uint32) Told {
	return Told{Kind: Vanished, UIDs: uids}
}

func fetched(n, uid uint32, modseq uint64, id string, flags ...string) Told {
	return Told{Kind: Fetched, Num: n, UID: uid, ModSeq: modseq, ID: id, Flags: flags}
}

// good is a run in which two clients on two nodes append, copy, move, mark and expunge, one APPEND and one MOVE are in
// doubt, and all is as it should be. Tests spoil it.
func good() Run {
	return Run{
		Ops: []Op{
			{Client: 1, Conn: 1, Node: 1, Name: "SELECT", Mailbox: "A", Start: 0, End: 1 * ms, Result: OK, UIDValidity: 7, UIDNext: 1, HighestModSeq: 1, Told: []Told{exists(0)}},
			{Client: 1, Conn: 1, Node: 1, Name: "APPEND", Mailbox: "A", ID: "a", Start: 2 * ms, End: 3 * ms, Result: OK, UIDValidity: 7, Made: []uint32{1}, Told: []Told{exists(1)}},
			{Client: 1, Conn: 1, Node: 1, Name: "APPEND", Mailbox: "A", To: "A", ID: "b", Start: 4 * ms, End: 5 * ms, Result: OK, UIDValidity: 7, Made: []uint32{2}, Told: []Told{exists(2)}},
			{Client: 1, Conn: 1, Node: 1, Name: "FETCH", Mailbox: "A", Start: 6 * ms, End: 7 * ms, Result: OK, Told: []Told{fetched(1, 1, 2, "a"), fetched(2, 2, 3, "b")}},
			{Client: 1, Conn: 1, Node: 1, Name: "UID STORE", Mailbox: "A", UIDs: []uint32{1}, Flag: "client1", Add: true, Start: 8 * ms, End: 9 * ms, Result: OK, Told: []Told{fetched(1, 1, 4, "")}},
			{Client: 1, Conn: 1, Node: 1, Name: "UID COPY", Mailbox: "A", To: "B", UIDs: []uint32{1, 2}, Start: 10 * ms, End: 11 * ms, Result: OK, UIDValidity: 8, From: []uint32{1, 2}, Made: []uint32{1, 2}},
			{Client: 1, Conn: 1, Node: 1, Name: "APPEND", Mailbox: "A", ID: "c", Start: 12 * ms, End: 13 * ms, Result: InDoubt},
			{Client: 2, Conn: 2, Node: 2, Name: "SELECT", Mailbox: "A", Start: 20 * ms, End: 21 * ms, Result: OK, UIDValidity: 7, UIDNext: 4, HighestModSeq: 5, Told: []Told{exists(3)}},
			{Client: 2, Conn: 2, Node: 2, Name: "FETCH", Mailbox: "A", Start: 22 * ms, End: 23 * ms, Result: OK, Told: []Told{fetched(1, 1, 4, "a", "client1"), fetched(2, 2, 3, "b"), fetched(3, 3, 5, "c")}},
			{Client: 2, Conn: 2, Node: 2, Name: "UID STORE", Mailbox: "A", UIDs: []uint32{2}, Flag: `\deleted`, Add: true, Start: 24 * ms, End: 25 * ms, Result: OK, Told: []Told{fetched(2, 2, 6, "")}},
			{Client: 2, Conn: 2, Node: 2, Name: "UID EXPUNGE", Mailbox: "A", UIDs: []uint32{2}, Start: 26 * ms, End: 27 * ms, Result: OK, Told: []Told{vanished(2)}},
			{Client: 2, Conn: 2, Node: 2, Name: "UID MOVE", Mailbox: "A", To: "B", UIDs: []uint32{3}, Start: 28 * ms, End: 29 * ms, Result: InDoubt},
			{Client: 3, Conn: 3, Node: 1, Name: "SELECT", Mailbox: "A", Start: 40 * ms, End: 41 * ms, Result: OK, UIDValidity: 7, UIDNext: 4, HighestModSeq: 8, Told: []Told{exists(1)}},
			{Client: 3, Conn: 3, Node: 1, Name: "FETCH", Mailbox: "A", Start: 42 * ms, End: 43 * ms, Result: OK, Told: []Told{fetched(1, 1, 4, "a")}},
			{Client: 3, Conn: 3, Node: 1, Name: "NOOP", Mailbox: "A", Quiet: true, Start: 44 * ms, End: 45 * ms, Result: OK},
		},
		States: []State{goodState(1), goodState(2)}, Bytes: 70, Messages: 4,
	}
}

func goodState(node int) State {
	return State{node, map[string]Box{
		"A": {UIDValidity: 7, UIDNext: 4, HighestModSeq: 8, Messages: 1, Unseen: 1, Size: 10, Mails: []Mail{{UID: 1, ModSeq: 4, ID: "a", Flags: []string{"client1"}, Size: 10}}},
		"B": {UIDValidity: 8, UIDNext: 4, HighestModSeq: 9, Messages: 3, Unseen: 2, Deleted: 1, Size: 60, Mails: []Mail{
			{UID: 1, ModSeq: 5, ID: "a", Size: 10},
			{UID: 2, ModSeq: 5, ID: "b", Size: 20, Flags: []string{`\deleted`, `\seen`}},
			{UID: 3, ModSeq: 9, ID: "c", Size: 30},
		}},
	}}
}

// Every rule finds what breaks it, and nothing is found in a good run.
func TestCheck(t *testing.T) {
	t.Parallel()
	both := func(r *Run, change func(boxes map[string]Box)) {
		for i := range r.States {
			change(r.States[i].Boxes)
		}
	}
	mails := func(b Box, mails ...Mail) Box {
		b.Mails, b.Messages, b.Size, b.Unseen, b.Deleted = mails, uint32(len(mails)), 0, 0, 0
		for _, m := range mails {
			b.Size += m.Size
			if !slices.Contains(m.Flags, `\seen`) {
				b.Unseen++
			}
			if slices.Contains(m.Flags, `\deleted`) {
				b.Deleted++
			}
		}
		return b
	}
	for _, c := range []struct {
		name  string
		rule  Rule // "": good
		spoil func(r *Run)
	}{
		{"as it is", "", func(*Run) {}},
		{"APPEND in doubt did not happen", "", func(r *Run) {
			r.Ops = slices.Delete(r.Ops, 7, len(r.Ops))
			both(r, func(b map[string]Box) {
				b["A"] = mails(b["A"], b["A"].Mails[0], Mail{UID: 2, ModSeq: 3, ID: "b", Size: 20})
				b["B"] = mails(b["B"], b["B"].Mails[:2]...)
			})
			r.Bytes, r.Messages = 60, 4
		}},
		{"VANISHED of what was counted and not seen", "", func(r *Run) { r.Ops[12].Told = []Told{exists(2), vanished(3)} }},
		{"VANISHED of what stands between", "", func(r *Run) {
			r.Ops[12].Told = []Told{exists(3), fetched(2, 3, 5, "c"), vanished(4), vanished(3)}
		}},
		{"VANISHED of what cannot stand there", Sequence, func(r *Run) {
			r.Ops[12].Told = []Told{exists(2), fetched(2, 3, 5, "c"), vanished(4)}
		}},

		{"EXISTS shrinks", Sequence, func(r *Run) { r.Ops[2].Told = []Told{exists(2), exists(1), exists(2)} }},
		{"EXPUNGE beyond the end", Sequence, func(r *Run) { r.Ops[10].Told = []Told{expunge(4)} }},
		{"EXPUNGE of number 0", Sequence, func(r *Run) { r.Ops[10].Told = []Told{expunge(0)} }},
		{"EXPUNGE in FETCH", Sequence, func(r *Run) { r.Ops[8].Told = append(r.Ops[8].Told, expunge(2)) }},
		{"VANISHED twice", Sequence, func(r *Run) { r.Ops[10].Told = []Told{vanished(2), vanished(2)} }},
		{"VANISHED of a stranger", Sequence, func(r *Run) { r.Ops[10].Told = []Told{vanished(9)} }},
		{"FETCH beyond the end", Sequence, func(r *Run) { r.Ops[4].Told = []Told{fetched(3, 3, 4, "")} }},
		{"a number is another UID", Sequence, func(r *Run) { r.Ops[4].Told = []Told{fetched(2, 1, 4, "")} }},
		{"UIDs fall with the number", Sequence, func(r *Run) { r.Ops[3].Told = []Told{fetched(1, 2, 3, "b"), fetched(2, 1, 2, "a")} }},
		{"FETCH of what is gone", Sequence, func(r *Run) { r.Ops[10].Told = append(r.Ops[10].Told, exists(3), fetched(3, 2, 6, "")) }},
		{"a VANISHED is not told", Sequence, func(r *Run) {
			r.Ops[10].Told = nil
			r.Ops = slices.Insert(r.Ops, 11, Op{Client: 2, Conn: 2, Node: 2, Name: "FETCH", Mailbox: "A", Start: 27 * ms, End: 28 * ms, Result: OK, Told: []Told{fetched(2, 3, 5, "c")}})
		}},

		{"a UID is two messages", UIDOnce, func(r *Run) { r.Ops[8].Told[1].ID = "z" }},
		{"a UID is made twice", UIDOnce, func(r *Run) { r.Ops[2].Made = []uint32{1} }},
		{"UIDVALIDITY changes", UIDOnce, func(r *Run) { r.Ops[7].UIDValidity = 9 }},
		{"a UID below one that was told", UIDRising, func(r *Run) { r.Ops[1].Made, r.Ops[2].Made = []uint32{2}, []uint32{1} }},
		{"UIDNEXT goes back", UIDRising, func(r *Run) { r.Ops[7].UIDNext = 2 }},
		{"COPY makes UIDs that fall", UIDRising, func(r *Run) { r.Ops[5].Made = []uint32{2, 1} }},
		{"UID beyond UIDNEXT", UIDRising, func(r *Run) { both(r, func(b map[string]Box) { a := b["A"]; a.UIDNext = 1; b["A"] = a }) }},
		{"HIGHESTMODSEQ goes back", ModSeqOnce, func(r *Run) { r.Ops[7].HighestModSeq = 3 }},
		{"a message's modseq goes back", ModSeqOnce, func(r *Run) { r.Ops[4].Told[0].ModSeq = 1 }},
		{"a modseq beyond the highest", ModSeqOnce, func(r *Run) { both(r, func(b map[string]Box) { b["A"].Mails[0].ModSeq = 99 }) }},

		{"SELECT does not see an APPEND", ReadsOK, func(r *Run) { r.Ops[12].Told, r.Ops[13].Told = []Told{exists(0)}, nil }},
		{"SELECT sees what was expunged", ReadsOK, func(r *Run) {
			r.Ops[12].Told, r.Ops[13].Told = []Told{exists(2)}, []Told{fetched(1, 1, 4, "a"), fetched(2, 2, 3, "b")}
		}},

		{"an APPEND is lost", NothingLost, func(r *Run) {
			both(r, func(b map[string]Box) { b["A"] = mails(b["A"]) })
			r.Bytes, r.Messages = 60, 3
		}},
		{"a copy is lost", NothingLost, func(r *Run) {
			both(r, func(b map[string]Box) { b["B"] = mails(b["B"], b["B"].Mails[0], b["B"].Mails[2]) })
			r.Bytes, r.Messages = 50, 3
		}},
		{"a flag is lost", NothingLost, func(r *Run) { both(r, func(b map[string]Box) { b["A"].Mails[0].Flags = nil }) }},
		{"an expunged message is back", NothingBack, func(r *Run) {
			both(r, func(b map[string]Box) {
				b["A"] = mails(b["A"], b["A"].Mails[0], Mail{UID: 2, ModSeq: 6, ID: "b", Size: 20})
			})
			r.Bytes, r.Messages = 90, 5
		}},
		{"an APPEND in doubt happened twice", Whole, func(r *Run) {
			both(r, func(b map[string]Box) {
				b["A"] = mails(b["A"], b["A"].Mails[0], Mail{UID: 3, ModSeq: 8, ID: "c", Size: 30})
			})
			r.Ops[11].Name = "NOOP"
			r.Bytes, r.Messages = 100, 5
		}},
		{"a MOVE in doubt took and did not bring", Whole, func(r *Run) {
			both(r, func(b map[string]Box) { b["B"] = mails(b["B"], b["B"].Mails[:2]...) })
			r.Bytes, r.Messages = 40, 3
		}},
		{"a COPY in doubt made a half", Whole, func(r *Run) {
			r.Ops[5].Result, r.Ops[5].From, r.Ops[5].Made, r.Ops[5].UIDs = InDoubt, nil, nil, []uint32{1, 2}
			r.Ops = slices.Delete(r.Ops, 9, 11) // nobody else touches 2
			both(r, func(b map[string]Box) {
				b["A"] = mails(b["A"], b["A"].Mails[0], Mail{UID: 2, ModSeq: 3, ID: "b", Size: 20})
				b["B"] = mails(b["B"], b["B"].Mails[0], b["B"].Mails[2])
			})
		}},
		{"a body is another", Bytes, func(r *Run) { r.Ops[8].Told[0].Corrupt = true }},
		{"a body is another in the end", Bytes, func(r *Run) { both(r, func(b map[string]Box) { b["B"].Mails[2].Corrupt = true }) }},
		{"the nodes differ in a flag", SameForAll, func(r *Run) { r.States[1].Boxes["B"].Mails[2].Flags = []string{"x"} }},
		{"a client was not told", SameForAll, func(r *Run) { r.Ops[14].Told = []Told{exists(2), fetched(2, 3, 9, "c")} }},
		{"a client in IDLE was not told", SameForAll, func(r *Run) {
			r.Ops[14].Name = "IDLE"
			r.Ops[13].Told = append([]Told{exists(2)}, r.Ops[13].Told...)
		}},
		{"STATUS miscounts", Counters, func(r *Run) { both(r, func(b map[string]Box) { a := b["A"]; a.Unseen = 0; b["A"] = a }) }},
		{"the quota miscounts", Counters, func(r *Run) { r.Bytes-- }},
		{"a modseq is two states", OneState, func(r *Run) { r.Ops[8].Told[0].Flags = []string{"x"} }},
		{"a modseq is two counts", OneState, func(r *Run) {
			one := Count{Mailbox: "A", ID: "F1", Messages: 1, Next: 9, ModSeq: 9}
			other := one
			other.Messages = 2
			r.Ops[1].Counts, r.Ops[2].Counts = []Count{one}, []Count{other}
		}},
		{"a search that finds all", "", func(r *Run) {
			r.Ops = append(r.Ops, Op{Client: 3, Conn: 3, Node: 1, Name: "UID SEARCH", Mailbox: "A", Start: 46 * ms, End: 47 * ms, Result: OK, Found: &Found{UIDs: []uint32{1}, Min: 1, Max: 1, Count: 1}})
		}},
		{"a search finds too little", Searches, func(r *Run) {
			r.Ops = append(r.Ops, Op{Client: 3, Conn: 3, Node: 1, Name: "UID SEARCH", Mailbox: "A", Start: 46 * ms, End: 47 * ms, Result: OK, Found: &Found{Subject: "a"}})
		}},
		{"a search finds a stranger", Searches, func(r *Run) {
			r.Ops = append(r.Ops, Op{Client: 3, Conn: 3, Node: 1, Name: "UID SEARCH", Mailbox: "A", Start: 46 * ms, End: 47 * ms, Result: OK, Found: &Found{UIDs: []uint32{1, 9}, Min: 1, Max: 9, Count: 2}})
		}},
		{"a client comes back", "", func(r *Run) { r.Ops = append(r.Ops, back2(vanished(2, 3))...) }},
		{"a client comes back and is not told of what vanished", Sequence, func(r *Run) { r.Ops = append(r.Ops, back2(vanished(2))...) }},
		{"a client comes back and is not told of a message", SameForAll, func(r *Run) {
			ops := back2(vanished(2, 3))
			ops[1].Told[0] = exists(2)
			r.Ops = append(r.Ops, ops...)
		}},
		{"a client comes back and is not told of a flag", SameForAll, func(r *Run) {
			ops := back2(vanished(2, 3))
			ops[0].Told[1].Flags = []string{"client2"}
			r.Ops = append(r.Ops, ops...)
		}},
		{"a mail is delivered", "", delivered(1)},
		{"a mail that was taken is not there", NothingLost, delivered(0)},
		{"a mail is delivered twice", Once, delivered(2)},
		{"a mailbox is made, renamed and listed", "", listed(nil)},
		{"a mailbox is still there under its old name", Lists, listed(func(ops []Op) { ops[2].Counts[0].Mailbox = "names1.a" })},
		{"a mailbox is another", Lists, listed(func(ops []Op) { ops[2].Counts[0].ID = "F9" })},
		{"a mailbox that is there can be made", Lists, listed(func(ops []Op) { ops[3].Result = OK })},
		{"a mailbox lost its mail", NothingLost, listed(func(ops []Op) { ops[2].Counts[0].Messages = 0 })},
		{"an object is left", Leftovers, func(r *Run) { r.Left = []string{"key"} }},
		{"starling check finds something", Sound, func(r *Run) { r.Unsound = "counters" }},
		{"an object is missing", Objects, func(r *Run) { r.Missing = []string{"A 1"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := good()
			c.spoil(&r)
			found := Check(&r)
			switch {
			case c.rule == "" && len(found) > 0:
				t.Errorf("found %v", found)
			case c.rule != "" && !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == c.rule }):
				t.Errorf("found %v, and not that %q is broken", found, c.rule)
			}
		})
	}
}

// back2 is a client that comes back with three messages of which one is left, and what it is told vanished.
func back2(gone Told) []Op {
	gone.Earlier = true
	knew := []Told{exists(3), fetched(1, 1, 4, "a", "client1"), fetched(2, 2, 3, "b"), fetched(3, 3, 5, "c")}
	return []Op{
		{Client: 4, Conn: 4, Node: 1, Name: "SELECT", Mailbox: "A", Start: 22 * ms, End: 23 * ms, Result: OK, UIDValidity: 7, UIDNext: 4, HighestModSeq: 5, Told: knew},
		{Client: 4, Conn: 5, Node: 2, Name: "SELECT", Mailbox: "A", Start: 50 * ms, End: 51 * ms, Result: OK, UIDValidity: 7, UIDNext: 4, HighestModSeq: 8, Resumes: 4, Takes: true, Whole: true, Told: []Told{exists(1), gone}},
		{Client: 4, Conn: 5, Node: 2, Name: "NOOP", Mailbox: "A", Quiet: true, Start: 52 * ms, End: 53 * ms, Result: OK},
	}
}

// delivered has a mail taken by LMTP that arrives so often.
func delivered(times int) func(r *Run) {
	return func(r *Run) {
		r.Ops = append(r.Ops, Op{Client: 9, Conn: -9, Node: 1, Name: "LMTP", To: "B", ID: "d9-1.", Start: 30 * ms, End: 31 * ms, Result: OK})
		for i := range r.States {
			b := r.States[i].Boxes["B"]
			for range times {
				b.Mails = append(b.Mails, Mail{UID: b.UIDNext, ModSeq: 9, ID: "d9-1.", Size: 5})
				b.UIDNext++
				b.Messages, b.Unseen, b.Size = b.Messages+1, b.Unseen+1, b.Size+5
			}
			r.States[i].Boxes["B"] = b
		}
		r.Messages, r.Bytes = r.Messages+int64(times), r.Bytes+int64(5*times)
	}
}

// listed has a mailbox made, filled, renamed and listed, and its name taken then.
func listed(spoil func(ops []Op)) func(r *Run) {
	return func(r *Run) {
		op := func(i int, o Op) Op {
			o.Client, o.Conn, o.Node, o.Space = 8, 8, 1, "names1."
			o.Start, o.End = time.Duration(30+2*i)*ms, time.Duration(31+2*i)*ms
			return o
		}
		ops := []Op{
			op(0, Op{Name: "CREATE", To: "names1.a", Result: OK, MailboxID: "F3"}),
			op(2, Op{Name: "RENAME", To: "names1.a", Renamed: "names1.b", Result: OK}),
			op(3, Op{Name: "LIST", Result: OK, Counts: []Count{{Mailbox: "names1.b", ID: "F3", Messages: 1, UIDValidity: 77, Next: 2, ModSeq: 2}}}),
			op(4, Op{Name: "CREATE", To: "names1.b", Result: NO}),
		}
		if spoil != nil {
			spoil(ops)
		}
		put := op(1, Op{Name: "PUT", To: "names1.a", ID: "8-1.", Result: OK, UIDValidity: 77, Made: []uint32{1}})
		r.Ops = append(r.Ops, slices.Insert(ops, 1, put)...)
	}
}

// The excerpt shows the operations that a violation is about, in the order of time.
func TestExcerpt(t *testing.T) {
	t.Parallel()
	r := good()
	r.States[0].Boxes["A"], r.States[1].Boxes["A"] = Box{UIDValidity: 7, UIDNext: 4, HighestModSeq: 8}, Box{UIDValidity: 7, UIDNext: 4, HighestModSeq: 8}
	found := Check(&r)
	i := slices.IndexFunc(found, func(v Violation) bool { return v.Rule == NothingLost })
	if i < 0 {
		t.Fatalf("found %v", found)
	}
	text := r.Excerpt(found[i])
	made, marked := strings.Index(text, "APPEND A a"), strings.Index(text, "UID STORE A [1] +client1")
	if made < 0 || marked < made || strings.Contains(text, "APPEND A b") {
		t.Errorf("the excerpt is\n%s", text)
	}
}
