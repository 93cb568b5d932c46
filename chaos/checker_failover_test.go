package chaos

import (
	"slices"
	"testing"
)

// setBack is a run in which PostgreSQL loses a part of what clients of a mailbox were told: that 4 came, that 2 was expunged, and that 3 was
// read. Client 1 was told of it by a command that was never answered, and comes back with the modseq before; client 3 knows it, and
// comes back with the modseq that was lost. All is as it should be. Tests spoil it.
func setBack() Run {
	const next = 1 << 28
	kept := Kept{UIDNext: 4, ModSeq: 10, Flags: map[uint32][]string{1: {}, 2: {}, 3: {}}}
	gap := Told{Kind: Vanished, Earlier: true, UIDs: []uint32{4, 5, 6}} // and so on
	all := func() []Told {
		return []Told{exists(3), fetched(1, 1, 8, "a", noFlags...), fetched(2, 2, 9, "b", noFlags...), fetched(3, 3, 10, "c", noFlags...)}
	}
	lost := func() []Told {
		return []Told{vanished(2), exists(3), fetched(2, 3, 13, "c", `\seen`), fetched(3, 4, 12, "d", noFlags...)}
	}
	mailbox := func() Box {
		return Box{UIDValidity: 7, UIDNext: 4 + uidJump, HighestModSeq: next, Messages: 3, Unseen: 3, Size: 30, Mails: []Mail{
			{UID: 1, ModSeq: 8, ID: "a", Flags: noFlags, Size: 10}, {UID: 2, ModSeq: 9, ID: "b", Flags: noFlags, Size: 10}, {UID: 3, ModSeq: 10, ID: "c", Flags: noFlags, Size: 10},
		}}
	}
	before := func(client int) Op {
		return Op{Client: client, Conn: client, Node: 1, Name: "SELECT", Mailbox: "INBOX", Start: 6 * ms, End: 7 * ms, Result: OK, UIDValidity: 7, UIDNext: 4, HighestModSeq: 10, Told: all()}
	}
	after := Op{Node: 2, Name: "SELECT", Mailbox: "INBOX", Start: 40 * ms, End: 41 * ms, Result: OK, UIDValidity: 7, UIDNext: 4 + uidJump, HighestModSeq: next, Takes: true, Whole: true}
	one, three := after, after
	one.Client, one.Conn, one.Resumes, one.Since, one.Told = 1, 11, 1, 10, []Told{exists(3), gap}
	three.Client, three.Conn, three.Resumes, three.Since, three.Told = 3, 13, 3, 13, append(all(), gap)
	quiet := func(client int) Op {
		return Op{Client: client, Conn: 10 + client, Node: 2, Name: "NOOP", Mailbox: "INBOX", Quiet: true, Start: 42 * ms, End: 43 * ms, Result: OK}
	}
	return Run{
		Ops: []Op{
			{Client: 2, Conn: 2, Node: 1, Name: "APPEND", Mailbox: "", To: "INBOX", ID: "a", Start: 0, End: 1 * ms, Result: OK, UIDValidity: 7, Made: []uint32{1}},
			{Client: 2, Conn: 2, Node: 1, Name: "APPEND", Mailbox: "", To: "INBOX", ID: "b", Start: 1 * ms, End: 2 * ms, Result: OK, UIDValidity: 7, Made: []uint32{2}},
			{Client: 2, Conn: 2, Node: 1, Name: "APPEND", Mailbox: "", To: "INBOX", ID: "c", Start: 2 * ms, End: 3 * ms, Result: OK, UIDValidity: 7, Made: []uint32{3}},
			before(1),
			before(2),
			before(3),
			{Client: 2, Conn: 2, Node: 1, Name: "UID STORE", Mailbox: "INBOX", UIDs: []uint32{2}, Flag: `\deleted`, Add: true, Start: 11 * ms, End: 12 * ms, Result: OK},
			{Client: 2, Conn: 2, Node: 1, Name: "UID EXPUNGE", Mailbox: "INBOX", UIDs: []uint32{2}, Start: 13 * ms, End: 14 * ms, Result: OK, Told: []Told{vanished(2)}, Known: 11},
			{Client: 2, Conn: 2, Node: 1, Name: "APPEND", Mailbox: "INBOX", ID: "d", Start: 15 * ms, End: 16 * ms, Result: OK, UIDValidity: 7, Made: []uint32{4}, Told: []Told{exists(3)}},
			{Client: 2, Conn: 2, Node: 1, Name: "UID STORE", Mailbox: "INBOX", UIDs: []uint32{3}, Flag: `\seen`, Add: true, Start: 17 * ms, End: 18 * ms, Result: OK, Told: []Told{fetched(2, 3, 13, "", `\seen`)}},
			{Client: 1, Conn: 1, Node: 1, Name: "NOOP", Mailbox: "INBOX", Start: 20 * ms, End: 30 * ms, Result: InDoubt, Told: lost()},
			{Client: 3, Conn: 3, Node: 1, Name: "NOOP", Mailbox: "INBOX", Start: 20 * ms, End: 21 * ms, Result: OK, Told: lost(), Known: 13},
			one, three, quiet(1), quiet(3),
		},
		Failovers: []Failover{{Lossy: true, Since: 10 * ms, Until: 30 * ms, Boxes: map[string]Kept{"INBOX": kept}}},
		States:    []State{{1, map[string]Box{"INBOX": mailbox()}}, {2, map[string]Box{"INBOX": mailbox()}}},
		Bytes:     30, Messages: 3,
	}
}

var noFlags = []string{}

// What PostgreSQL lost is forgiven, and nothing else; and that a number which it lost names something again is found by its own rule.
func TestCheckFailover(t *testing.T) {
	t.Parallel()
	const doubt, one, three, quiet1 = 10, 12, 13, 14
	add := func(r *Run, m Mail) {
		for i := range r.States {
			box := r.States[i].Boxes["INBOX"]
			box.Mails = append(box.Mails, m)
			box.Messages, box.Unseen, box.Size = box.Messages+1, box.Unseen+1, box.Size+m.Size
			r.States[i].Boxes["INBOX"] = box
		}
		r.Bytes, r.Messages = r.Bytes+m.Size, r.Messages+1
	}
	mails := func(r *Run, change func(*Box)) {
		for i := range r.States {
			box := r.States[i].Boxes["INBOX"]
			change(&box)
			r.States[i].Boxes["INBOX"] = box
		}
	}
	for _, c := range []struct {
		name  string
		rules []Rule // exactly these are broken
		spoil func(r *Run)
	}{
		{"as it is", nil, func(*Run) {}},
		{"who comes back is told at once of what came since", nil, func(r *Run) {
			r.Ops = slices.Insert(r.Ops, one, Op{Client: 2, Conn: 5, Node: 2, Name: "APPEND", To: "INBOX", ID: "e", Start: 35 * ms, End: 36 * ms, Result: OK, UIDValidity: 7, Made: []uint32{4 + uidJump}})
			for _, i := range []int{one + 1, three + 1} {
				told := &r.Ops[i].Told
				r.Ops[i].UIDNext++
				r.Ops[i].HighestModSeq++
				*told = append([]Told{exists(4), fetched(4, 4+uidJump, 1<<28+1, "e", noFlags...)}, (*told)[1:]...)
			}
			mails(r, func(b *Box) { b.UIDNext, b.HighestModSeq = b.UIDNext+1, b.HighestModSeq+1 })
			add(r, Mail{UID: 4 + uidJump, ModSeq: 1<<28 + 1, ID: "e", Flags: noFlags, Size: 10})
		}},
		{"so over two failovers, of which the second found the mailbox as the first had left it", nil, func(r *Run) {
			r.Ops[three].Whole = false
			r.Ops[three].Told = []Told{exists(3), fetched(3, 3, 10, "c", noFlags...), {Kind: Vanished, Earlier: true, UIDs: []uint32{4}}}
			r.Ops[quiet1+1].Quiet = false
			search := r.Ops[quiet1+1]
			search.Name, search.Found, search.Start, search.End = "UID SEARCH", &Found{UIDs: []uint32{1, 2, 3}, Min: 1, Max: 3, Count: 3}, 44*ms, 45*ms
			r.Ops = append(r.Ops, search)
			second := r.Failovers[0]
			second.Sync, second.Lossy, second.Since, second.Until = true, false, 0, 35*ms
			kept := second.Boxes["INBOX"]
			kept.Epochs = 2
			second.Boxes = map[string]Kept{"INBOX": kept}
			r.Failovers = append(r.Failovers, second)
			for _, i := range []int{one, three} {
				r.Ops[i].UIDNext, r.Ops[i].HighestModSeq = 4+2*uidJump, 2<<28
			}
			mails(r, func(b *Box) { b.UIDNext, b.HighestModSeq = 4+2*uidJump, 2<<28 })
		}},
		{"so does who was told only by half that it was gone", nil, func(r *Run) {
			r.Ops[one].Whole = false
			r.Ops[one].Told = []Told{exists(3), {Kind: Vanished, Earlier: true, UIDs: []uint32{4}}}
			r.Ops[quiet1].Quiet = false
			search := r.Ops[quiet1]
			search.Name, search.Found, search.Start, search.End = "UID SEARCH", &Found{UIDs: []uint32{1, 2, 3}, Min: 1, Max: 3, Count: 3}, 44*ms, 45*ms
			r.Ops = append(r.Ops, search)
		}},
		{"it was expunged again, which is not told to who knew it as gone", nil, func(r *Run) {
			const again = 1<<28 + 1
			r.Ops = slices.Insert(r.Ops, one,
				Op{Client: 2, Conn: 5, Node: 2, Name: "UID EXPUNGE", Mailbox: "INBOX", UIDs: []uint32{2}, Start: 35 * ms, End: 36 * ms, Result: OK})
			one, three := &r.Ops[one+1], &r.Ops[three+1]
			one.Whole, one.Told = false, []Told{exists(2), {Kind: Vanished, Earlier: true, UIDs: []uint32{4}}}
			three.Told = append([]Told{exists(2), three.Told[1], fetched(2, 3, 10, "c", noFlags...)}, Told{Kind: Vanished, Earlier: true, UIDs: []uint32{2, 4}})
			one.HighestModSeq, three.HighestModSeq = again, again
			mails(r, func(b *Box) {
				b.Mails, b.Messages, b.Unseen, b.Size, b.HighestModSeq = []Mail{b.Mails[0], b.Mails[2]}, 2, 2, 20, again
			})
			r.Bytes, r.Messages = 20, 2
		}},
		{"it is expunged by who had begun that before", nil, func(r *Run) {
			const again = 1<<28 + 1
			r.Ops = slices.Insert(r.Ops, one,
				Op{Client: 2, Conn: 5, Node: 2, Name: "UID EXPUNGE", Mailbox: "INBOX", UIDs: []uint32{2}, Start: 20 * ms, End: 36 * ms, Result: OK})
			one, three := &r.Ops[one+1], &r.Ops[three+1]
			one.Whole, one.Told = false, []Told{exists(2), {Kind: Vanished, Earlier: true, UIDs: []uint32{4}}}
			three.Told = append([]Told{exists(2), three.Told[1], fetched(2, 3, 10, "c", noFlags...)}, Told{Kind: Vanished, Earlier: true, UIDs: []uint32{2, 4}})
			one.HighestModSeq, three.HighestModSeq = again, again
			mails(r, func(b *Box) {
				b.Mails, b.Messages, b.Unseen, b.Size, b.HighestModSeq = []Mail{b.Mails[0], b.Mails[2]}, 2, 2, 20, again
			})
			r.Bytes, r.Messages = 20, 2
		}},
		{"a STATUS tells what the mailbox will have", nil, func(r *Run) {
			r.Ops = append(r.Ops, Op{Client: 4, Conn: 4, Node: 1, Name: "STATUS", Start: 35 * ms, End: 36 * ms, Result: OK, Counts: []Count{
				{Mailbox: "INBOX", ID: "F1", Messages: 3, Unseen: 3, Size: 30, UIDValidity: 7, Next: 4 + uidJump, ModSeq: 1 << 28},
			}})
		}},
		{"a STATUS tells of the mailbox as it was left", []Rule{UIDRising, ModSeqOnce}, func(r *Run) {
			r.Ops = append(r.Ops, Op{Client: 4, Conn: 4, Node: 1, Name: "STATUS", Start: 35 * ms, End: 36 * ms, Result: OK, Counts: []Count{
				{Mailbox: "INBOX", ID: "F1", Messages: 3, Unseen: 3, Size: 30, UIDValidity: 7, Next: 4, ModSeq: 10},
			}})
		}},
		{"a search does not find what was lost", nil, func(r *Run) {
			r.Ops = slices.Insert(r.Ops, one, Op{Client: 3, Conn: 3, Node: 1, Name: "UID SEARCH", Mailbox: "INBOX", Start: 29 * ms, End: 31 * ms, Result: OK, Found: &Found{Subject: "d"}})
		}},
		{"a search does not find what will be lost", []Rule{Searches}, func(r *Run) {
			r.Ops = slices.Insert(r.Ops, one, Op{Client: 3, Conn: 3, Node: 1, Name: "UID SEARCH", Mailbox: "INBOX", Start: 28 * ms, End: 29 * ms, Result: OK, Found: &Found{Subject: "d"}})
		}},
		{"who asks only about what it knew learns later what is there again", nil, func(r *Run) {
			r.Ops[three].Whole = false
			r.Ops[three].Told = []Told{exists(3), fetched(3, 3, 10, "c", noFlags...), {Kind: Vanished, Earlier: true, UIDs: []uint32{4}}}
			r.Ops[quiet1+1].Quiet = false
			search := r.Ops[quiet1+1]
			search.Name, search.Found, search.Start, search.End = "UID SEARCH", &Found{UIDs: []uint32{1, 2, 3}, Min: 1, Max: 3, Count: 3}, 44*ms, 45*ms
			r.Ops = append(r.Ops, search)
		}},
		{"the answer to who comes back breaks off, and it comes back again", nil, func(r *Run) {
			half := r.Ops[one]
			half.Result, half.Told = InDoubt, half.Told[:1]
			r.Ops[one].Conn, r.Ops[one].Resumes = 21, half.Conn
			r.Ops[quiet1].Conn = 21
			r.Ops = slices.Insert(r.Ops, one, half)
		}},
		{"who comes back is not told that a message is there again", []Rule{Sequence, SameForAll, ReadsOK}, func(r *Run) {
			r.Ops[three].Told = slices.Delete(r.Ops[three].Told, 2, 3)
		}},
		{"who comes back is not told that flags are as before", []Rule{SameForAll}, func(r *Run) {
			r.Ops[three].Told = slices.Delete(r.Ops[three].Told, 3, 4)
		}},
		{"who comes back is not told that a message of the lost future is gone", []Rule{Sequence, LostFuture}, func(r *Run) {
			r.Ops[three].Told = slices.Delete(r.Ops[three].Told, 4, 5)
			r.Ops = slices.Delete(r.Ops, quiet1+1, quiet1+2)
		}},
		{"nor is who was told of it only by half", []Rule{Sequence, LostFuture}, func(r *Run) {
			r.Ops[one].Told = r.Ops[one].Told[:1]
			r.Ops = slices.Delete(r.Ops, quiet1, quiet1+1)
		}},
		{"an expunge is undone that was not lost", []Rule{Sequence, NothingBack, ReadsOK, SameForAll}, func(r *Run) {
			delete(r.Failovers[0].Boxes["INBOX"].Flags, 2)
		}},
		{"what a synchronous standby has to have is lost", []Rule{NothingLost, NothingBack, ReadsOK}, func(r *Run) { r.Failovers[0].Sync = true }},
		{"what came before is lost", []Rule{NothingLost, ReadsOK}, func(r *Run) {
			mails(r, func(b *Box) { b.Mails, b.Messages, b.Unseen, b.Size = b.Mails[1:], 2, 2, 20 })
			r.Bytes, r.Messages = 20, 2
			r.Ops[one].Told = []Told{exists(2), {Kind: Vanished, Earlier: true, UIDs: []uint32{1, 4}}}
			r.Ops = slices.Delete(r.Ops, quiet1+1, quiet1+2)
			r.Ops = slices.Delete(r.Ops, three, three+1)
		}},

		{"a client goes on with a message that was lost", []Rule{LostFuture}, func(r *Run) {
			r.Ops = append(r.Ops[:one:one], Op{
				Client: 3, Conn: 13, Node: 1, Name: "SELECT", Mailbox: "INBOX", Start: 40 * ms, End: 41 * ms, Result: OK,
				UIDValidity: 7, UIDNext: 4 + uidJump, HighestModSeq: 1 << 28, Told: r.Ops[three].Told,
			})
			told := &r.Ops[one].Told
			*told = append((*told)[:4:4], exists(4), fetched(4, 4, 1<<28, "d", noFlags...))
		}},
		{"a message that was lost is there", []Rule{LostFuture}, func(r *Run) {
			r.Ops = r.Ops[:one]
			add(r, Mail{UID: 4, ModSeq: 1 << 28, ID: "d", Flags: noFlags, Size: 10})
		}},
		{"a modseq that was lost stands for something", []Rule{LostFuture}, func(r *Run) {
			r.Ops = slices.DeleteFunc(r.Ops[:one], func(o Op) bool { return o.Name == "UID STORE" && o.Flag == `\seen` })
			for i := range r.Ops { // nobody was told of it
				r.Ops[i].Told = slices.DeleteFunc(r.Ops[i].Told, func(t Told) bool { return t.ModSeq == 13 })
			}
			mails(r, func(b *Box) {
				b.Mails = slices.Clone(b.Mails)
				b.Mails[2].ModSeq = 13
			})
		}},
		{"a mailbox goes on where it was", []Rule{LostFuture}, func(r *Run) {
			r.Ops = r.Ops[:one]
			mails(r, func(b *Box) { b.UIDNext = 5 })
		}},
		{"a UID that was lost is given out again", []Rule{LostFuture, UIDOnce, UIDRising}, func(r *Run) {
			r.Ops = append(r.Ops[:one:one], Op{Client: 2, Conn: 5, Node: 2, Name: "APPEND", To: "INBOX", ID: "e", Start: 35 * ms, End: 36 * ms, Result: OK, UIDValidity: 7, Made: []uint32{4}})
			add(r, Mail{UID: 4, ModSeq: 1 << 28, ID: "e", Flags: noFlags, Size: 10})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := setBack()
			c.spoil(&r)
			broken := make(map[Rule]bool)
			found := Check(&r)
			for _, v := range found {
				broken[v.Rule] = true
			}
			for _, rule := range c.rules {
				if !broken[rule] {
					t.Errorf("not found: %s", rule)
				}
				delete(broken, rule)
			}
			if len(broken) > 0 || t.Failed() {
				t.Errorf("found %v", found)
			}
		})
	}
	if r := setBack(); r.Ops[doubt].Result != InDoubt || r.Ops[three].Since != 13 {
		t.Error("the numbers of the operations are wrong")
	}
}
