package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// checkOptions are the flags of starling check.
type checkOptions struct {
	mailstore.CheckOptions
	address, tenant string
	json            bool
}

func newCheck() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use: "check [ADDRESS]", Short: "Look for damage in accounts: rows, flags, counters, quota, objects; and mend it",
		Long: "Compare what the database says of an account, or of all, with itself and with the\n" +
			"objects of its messages, while nodes serve it: each message's row with its flags,\n" +
			"the counters of mailboxes with both, the quota with those, the number of owners of\n" +
			"each object, and all objects that messages name with a listing of those that are\n" +
			"there. What changes meanwhile is looked at again and is no damage.\n\n" +
			"--scrub reads every object too and verifies its checksums, and what the database has\n" +
			"of each message's header.\n\n" +
			"--repair mends counters, quota, owners and numbers that were used before they were\n" +
			"given out, and says what it did. Messages without flags come back as new ones, those\n" +
			"too whose flags cannot be read. What the database has of where a message's bytes are,\n" +
			"and of its header, is made anew from the object, if that is well. Of messages of which only the flags are left it\n" +
			"removes these, if no object in the bucket could be theirs: else starling rebuild\n" +
			"comes first. Messages whose bytes are lost or damaged it cannot mend: they are told\n" +
			"with account, mailbox and UID, and stay, so that the object can be brought back.\n\n" +
			"In an epoch that nobody accepted (starling epoch), which is after a restore, objects\n" +
			"that no message names may be mail that the database has forgotten: each account that\n" +
			"has some is told, and starling rebuild names them.\n\n" +
			"Each finding is a line, or with --json an object on a line of its own, and the last\n" +
			"one the summary. The status is 0 if all is well or mended, 1 if damage is left or\n" +
			"something could not be checked.",
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&o.tenant, "tenant", "", "only accounts of this tenant")
	f.BoolVar(&o.Repair, "repair", false, "mend what can be mended")
	f.BoolVar(&o.Scrub, "scrub", false, "read every object and verify its checksums")
	rate := f.String("rate", "32M", "octets that --scrub reads in a second, an object 64K at least")
	f.Int64Var(&o.RowRate, "rows", 100_000, "rows and names of objects that are read in a second")
	f.BoolVar(&o.json, "json", false, "write findings and summary as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if o.ScrubRate, err = parseSize(*rate); err == nil && o.ScrubRate == 0 {
			err = errors.New("is 0")
		}
		switch {
		case err != nil:
			return usageError{fmt.Errorf("--rate: %w", err)}
		case o.RowRate <= 0:
			return usageError{errors.New("--rows: want a number above 0")}
		case len(args) > 0 && o.tenant != "":
			return usageError{errors.New("an account or --tenant, not both")}
		case len(args) > 0:
			o.address = args[0]
		}
		return withStores(cmd, func(ctx context.Context, n *node) error { return o.run(ctx, n, cmd.OutOrStdout()) })
	}
	return cmd
}

// checkSummary is what came of all accounts.
type checkSummary struct {
	Accounts int `json:"accounts"` // that were checked, to the end
	Failed   int `json:"failed"`   // that could not be
	Skipped  int `json:"skipped"`  // that are being deleted
	mailstore.CheckReport
	Forgotten   int64 `json:"forgotten"`   // objects that may be mail which a restored database has forgotten
	Interrupted bool  `json:"interrupted"` // there may be further accounts
}

func (s *checkSummary) add(r *mailstore.CheckReport) {
	s.Mailboxes += r.Mailboxes
	s.Unchecked += r.Unchecked
	s.Messages += r.Messages
	s.Objects += r.Objects
	s.Scrubbed += r.Scrubbed
	s.Octets += r.Octets
	s.Orphans += r.Orphans
	s.Doomed += r.Doomed
	s.Young += r.Young
	s.NoQuota += r.NoQuota
	s.NoOwners += r.NoOwners
	s.Mended += r.Mended
	s.Left += r.Left
	for damage, n := range r.Found {
		s.Found[damage] += n
	}
}

// err is why the status is not 0.
func (s *checkSummary) err(ended error) error {
	var why []string
	for _, w := range []struct {
		what string
		n    int64
	}{
		{"damage left", s.Left},
		{"accounts that could not be checked", int64(s.Failed)},
		{"mailboxes that changed too fast to be checked", int64(s.Unchecked)},
		{"objects that no message names, in an epoch that nobody accepted", s.Forgotten},
	} {
		if w.n > 0 {
			why = append(why, fmt.Sprintf("%s: %d", w.what, w.n))
		}
	}
	var err error
	if len(why) > 0 {
		err = errors.New(strings.Join(why, "; "))
	}
	if s.Interrupted {
		err = errors.Join(fmt.Errorf("check broken off: %w", ended), err)
	} else {
		err = errors.Join(ended, err)
	}
	return err
}

// checkFailures is how many accounts in a row may fail until the run is given up:
// something is away then.
const checkFailures = 3

// checkRun is a run of starling check.
type checkRun struct {
	*checkOptions
	node     *node
	progress *checkProgress
	out      io.Writer // for lines; above the bar, if there is one
	failing  int       // how many accounts failed since one did not
	accepted bool      // the epoch is: what no message names is no mail that the database has forgotten
	sum      checkSummary
}

func (o *checkOptions) run(ctx context.Context, n *node, out io.Writer) error {
	r := checkRun{checkOptions: o, node: n}
	r.sum.Found = make(map[mailstore.Damage]int64)
	var err error
	if r.accepted, err = n.db.EpochAccepted(ctx); err != nil {
		return err
	}
	accounts := 1
	if o.address == "" {
		if accounts, err = o.count(ctx, n.db, out); err != nil {
			return err
		}
	}
	r.progress = newCheckProgress(out, accounts, o.json)
	r.out = r.progress.lines()
	err = r.accounts(ctx, r.one)
	r.sum.Interrupted = ctx.Err() != nil
	r.progress.finish(err == nil)
	r.summary(out, err == nil)
	return r.sum.err(err)
}

// count is how many accounts there are, if anybody wants to see how many are left.
func (o *checkOptions) count(ctx context.Context, db *metadata.DB, out io.Writer) (n int, err error) {
	if o.json || !isTerminal(out) {
		return 0, nil
	}
	r := checkRun{checkOptions: o, node: &node{db: db}}
	err = r.accounts(ctx, func(context.Context, metadata.Account) error { n++; return nil })
	return n, err
}

// tenants are those to be checked, by name.
func (o *checkOptions) tenants(ctx context.Context, db *metadata.DB) ([]metadata.Tenant, error) {
	all, err := db.Tenants(ctx)
	if err != nil || o.tenant == "" {
		return all, err
	}
	for _, t := range all {
		if t.Name == o.tenant {
			return []metadata.Tenant{t}, nil
		}
	}
	return nil, fmt.Errorf("tenant %q: %w", o.tenant, metadata.ErrNotFound)
}

// accounts calls each with all accounts to be checked: by tenant, domain and name.
func (r *checkRun) accounts(ctx context.Context, each func(context.Context, metadata.Account) error) error {
	db := r.node.db
	if r.address != "" {
		a, err := db.Recipient(ctx, r.address)
		if err != nil {
			return err
		}
		return each(ctx, a)
	}
	tenants, err := r.tenants(ctx, db)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		domains, err := db.Domains(ctx, tenant.Name)
		if err != nil {
			return err
		}
		for _, domain := range domains {
			if err := eachAccount(ctx, db, domain.Name, each); err != nil {
				return err
			}
		}
	}
	return nil
}

func eachAccount(ctx context.Context, db *metadata.DB, domain string, each func(context.Context, metadata.Account) error) error {
	for after := ""; ; {
		page, err := db.Accounts(ctx, domain, after, listPage)
		if err != nil {
			return err
		}
		for _, a := range page {
			if err := each(ctx, a); err != nil {
				return err
			}
			after = a.Name
		}
		if len(page) < listPage {
			return nil
		}
	}
}

// one checks an account. The error is one that ends the run.
func (r *checkRun) one(ctx context.Context, a metadata.Account) error {
	opts := r.CheckOptions
	opts.Found = func(f mailstore.Finding) { r.found(a.Name, f) }
	opts.Progress = r.progress.part
	r.progress.begin(a.Name)
	report, err := r.node.store.Check(ctx, a, opts)
	r.sum.add(&report)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.progress.done()
	switch {
	case err != nil:
		r.sum.Failed++
		r.failed(a.Name, err)
		if r.failing++; r.failing == checkFailures {
			return fmt.Errorf("given up after %d accounts in a row that could not be checked", checkFailures)
		}
		return nil
	case report.Deleted:
		r.sum.Skipped++
	default:
		r.sum.Accounts++
		r.forgotten(a.Name, report.Orphans-report.Doomed+report.Young)
	}
	r.failing = 0
	return nil
}

func (r *checkRun) found(account string, f mailstore.Finding) {
	if r.json {
		r.object(struct {
			Account string `json:"account"`
			mailstore.Finding
		}{account, f})
		return
	}
	fmt.Fprintf(r.out, "%s: %s\n", account, findingText(&f))
}

// forgotten tells of objects of an account that no message names, if that may be damage.
func (r *checkRun) forgotten(account string, objects int64) {
	if r.accepted || objects == 0 {
		return
	}
	r.sum.Forgotten += objects
	if r.json {
		r.object(struct {
			Account   string `json:"account"`
			Forgotten int64  `json:"forgotten"`
		}{account, objects})
		return
	}
	fmt.Fprintf(r.out, "%s: %d objects that no message names, maybe mail that the database has forgotten: see starling rebuild %s --dry-run\n",
		account, objects, account)
}

func (r *checkRun) failed(account string, err error) {
	if r.json {
		r.object(struct {
			Account string `json:"account"`
			Error   string `json:"error"`
		}{account, err.Error()})
		return
	}
	fmt.Fprintf(r.out, "%s: could not be checked: %v\n", account, err)
}

// object writes a line of JSON. What is written are numbers and strings, which can be.
func (r *checkRun) object(v any) {
	if err := json.NewEncoder(r.out).Encode(v); err != nil {
		r.node.log.Error(err.Error())
	}
}

// damageTexts say what each kind of damage is, to an operator.
var damageTexts = map[mailstore.Damage]string{
	mailstore.WrongCounters: "the counters are wrong",
	mailstore.WrongQuota:    "the use of the quota is wrong",
	mailstore.WrongOwners:   "the number of owners of an object is wrong",
	mailstore.LostRow:       "only the flags are left of the message: its row is lost",
	mailstore.StrayRow:      "the message has no flags, and no client sees it",
	mailstore.AheadOfBox:    "UIDs or modseqs are in use that the mailbox has not given out",
	mailstore.BadFlags:      "flags cannot be read",
	mailstore.BadExtent:     "where the message's bytes are cannot be read",
	mailstore.BadSummary:    "the message's envelope and structure cannot be read",
	mailstore.MissingObject: "the message's bytes are lost: its object is not there",
	mailstore.ShortObject:   "the message's bytes are not all there: its object is too short",
	mailstore.CorruptObject: "the message's bytes are damaged",
	mailstore.CorruptHeader: "the message is well, but the header of its object is damaged",
}

// findingText is a finding in words.
func findingText(f *mailstore.Finding) string {
	var b strings.Builder
	if f.Mailbox != "" {
		fmt.Fprintf(&b, "%q: ", f.Mailbox)
	}
	switch {
	case f.UID != 0 && f.Expunged:
		fmt.Fprintf(&b, "UID %d (expunged): ", f.UID)
	case f.UID != 0:
		fmt.Fprintf(&b, "UID %d: ", f.UID)
	case f.Count > 0:
		fmt.Fprintf(&b, "%d further messages: ", f.Count)
	}
	b.WriteString(damageTexts[f.Damage])
	if f.Object != "" {
		fmt.Fprintf(&b, " (object %s)", f.Object)
	}
	if f.Detail != "" && f.Count == 0 {
		b.WriteString(": " + f.Detail)
	}
	if f.Mended {
		b.WriteString("; mended")
	}
	return b.String()
}

// summary says what came of the run; whole, that it came to its end.
func (r *checkRun) summary(out io.Writer, whole bool) {
	s := &r.sum
	if r.json {
		r.object(struct {
			Summary *checkSummary `json:"summary"`
		}{s})
		return
	}
	for _, line := range []struct {
		what  string
		count int64
	}{
		{"accounts checked", int64(s.Accounts)},
		{"accounts that are being deleted, left out", int64(s.Skipped)},
		{"accounts that could not be checked", int64(s.Failed)},
		{"mailboxes", int64(s.Mailboxes)},
		{"mailboxes that changed too fast to be checked", int64(s.Unchecked)},
		{"messages, those included that wait for the collector", s.Messages},
		{"objects", s.Objects},
		{"objects read whole", s.Scrubbed},
		{"octets of those", s.Octets},
		{"objects that no message names, the collector's business", s.Orphans},
		{"objects that no message names so far, younger than mail.orphan_grace", s.Young},
		{"accounts whose quota was not compared, because counters are wrong", int64(s.NoQuota)},
		{"accounts whose objects' owners were not compared, because flags cannot be read", int64(s.NoOwners)},
	} {
		if line.count > 0 {
			fmt.Fprintf(out, "%8d %s\n", line.count, line.what)
		}
	}
	kinds := make([]string, 0, len(s.Found))
	for damage := range s.Found {
		kinds = append(kinds, string(damage))
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		damage := mailstore.Damage(kind)
		fmt.Fprintf(out, "%8d times: %s\n", s.Found[damage], damageTexts[damage])
	}
	switch {
	case s.Left+s.Mended > 0:
		fmt.Fprintf(out, "Mended: %d, left: %d.\n", s.Mended, s.Left)
	case whole && s.Accounts > 0 && s.Failed+s.Unchecked == 0 && s.Forgotten == 0:
		fmt.Fprintln(out, "Nothing is wrong.")
	case whole && s.Accounts+s.Failed+s.Skipped == 0:
		fmt.Fprintln(out, "There is no account to check.")
	}
}
