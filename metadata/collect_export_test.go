package metadata

// CollectSQL is the statement of the collector.
func CollectSQL() (string, error) {
	return CollectOf(&Mailbox{Account: 1, ID: 1, Version: Version{ModSeq: 1}}, nil).SQL()
}

// CollectOf is a commit of the collector that deletes messages, which own their objects.
func CollectOf(box *Mailbox, messages map[uint32]ObjectID) *Commit {
	what := &collection{through: box.ModSeq}
	for uid, object := range messages {
		what.rows = append(what.rows, row{uid, object})
	}
	what.owned = what.rows
	return &Commit{
		Account:    box.Account,
		Changes:    []Change{{Mailbox: box.ID, Seen: box.Version, ModSeq: box.ModSeq + 1}},
		collecting: what,
	}
}
