package metadata

// CollectSQL is the statement of the collector.
func CollectSQL() (string, error) {
	c := &Commit{
		Account:    1,
		Changes:    []Change{{Mailbox: 1, Seen: Version{ModSeq: 1}, ModSeq: 2}},
		collecting: &collection{},
	}
	return c.SQL()
}
