package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// rebuildOptions are the flags of starling rebuild.
type rebuildOptions struct {
	mailstore.RebuildOptions
	address, from       string
	renamed, list, json bool
}

func newRebuild() *cobra.Command {
	var o rebuildOptions
	cmd := &cobra.Command{
		Use: "rebuild ADDRESS | --list", Short: "Bring mail back from the bucket that a lost or restored database has forgotten",
		Long: "Give each object in the bucket that no message of the account names a message again:\n" +
			"in the mailbox that it was delivered to, with the flags and the internal date of\n" +
			"then, and a new UID. Run it after the database was restored to an older point, and\n" +
			"before starling epoch accept lets the collector delete what no message names.\n\n" +
			"What the database knows stays as it is. What was not in it is nowhere else: later\n" +
			"flags, copies and moves do not come back, and mail that was expunged does, if its\n" +
			"object is still there; so may mail that was refused after its object was stored.\n" +
			"The quota is counted anew, and keeps nothing out. Run again, after an interruption\n" +
			"too, it brings nothing twice. Meanwhile the account is on hold, and it stays so while\n" +
			"objects are left that are damaged or too young; nodes may serve it.\n\n" +
			"If the database was lost wholly, add the tenant and the domain first, find the\n" +
			"account's id with --list, and give it with --from: the account is made with it, with\n" +
			"its mailboxes under new UIDVALIDITYs, but without a password and limits (starling\n" +
			"account passwd, starling account quota).\n\n" +
			"The status is 0 if nothing is left, 1 if something is or went wrong.",
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "id of a lost account, 16 hex digits, which ADDRESS is given")
	f.BoolVar(&o.renamed, "renamed", false, "with --from: ADDRESS is not the one that the account had")
	f.BoolVar(&o.list, "list", false, "list the accounts that have objects in the bucket, by listing all of it")
	f.BoolVar(&o.DryRun, "dry-run", false, "only say what would be brought back; it reads all of it")
	f.DurationVar(&o.Age, "age", 10*time.Minute, "leave younger objects: a node may be about to commit their messages; 0 if none can")
	f.BoolVar(&o.json, "json", false, "write findings and summary as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.list && (len(args) > 0 || o.from != "" || o.DryRun):
			return usageError{errors.New("--list goes with --json only")}
		case !o.list && len(args) == 0:
			return usageError{errors.New("an account's address, or --list")}
		case o.renamed && o.from == "":
			return usageError{errors.New("--renamed goes with --from only")}
		case o.Age < 0:
			return usageError{errors.New("--age: is negative")}
		case len(args) > 0:
			o.address = strings.ToLower(args[0])
		}
		return withStores(cmd, func(ctx context.Context, n *node) error {
			out := cmd.OutOrStdout()
			if o.list {
				return o.stored(ctx, n.store, out)
			}
			return o.run(ctx, n, out)
		})
	}
	return cmd
}

// stored lists what accounts the bucket has.
func (o *rebuildOptions) stored(ctx context.Context, store *mailstore.Store, out io.Writer) error {
	return store.StoredAccounts(ctx, func(a mailstore.StoredAccount) error {
		id := accountHex(a.ID)
		if o.json {
			return json.NewEncoder(out).Encode(struct {
				ID string `json:"id"`
				mailstore.StoredAccount
			}{id, a})
		}
		state := "not in the database"
		switch {
		case a.Account != "":
			state = a.Account
		case a.Name != "":
			state += ", was " + a.Name
		}
		_, err := fmt.Fprintf(out, "%s  %s  %d objects, %d octets  %q\n", id, state, a.Objects, a.Octets, a.Mailboxes)
		return err
	})
}

// accountHex is an account's id as in the keys of its objects.
func accountHex(id metadata.AccountID) string {
	return strings.TrimSuffix(blobstore.AccountPrefix(int64(id)), "/")
}

func (o *rebuildOptions) run(ctx context.Context, n *node, out io.Writer) error {
	account, err := o.account(ctx, n, out)
	if err != nil {
		return err
	}
	if account.State == metadata.Deleting {
		return fmt.Errorf("%s is being deleted", account.Name)
	}
	progress := newCheckProgress(out, 1, o.json)
	progress.begin(account.Name)
	lines := progress.lines()
	o.Progress = progress.part
	o.Found = func(f mailstore.Finding) {
		if o.json {
			o.object(n, lines, f)
			return
		}
		fmt.Fprintf(lines, "object %s is damaged and left as it is: %s\n", f.Object, f.Detail)
	}
	report, err := n.store.Rebuild(ctx, account, o.RebuildOptions)
	if err == nil {
		progress.done()
	}
	progress.finish(err == nil)
	o.summary(n, out, account, &report, err == nil)
	if err != nil {
		return err
	}
	switch {
	case report.Damaged+report.Young == 0 || o.DryRun:
		return nil
	case report.Young == 0:
		return fmt.Errorf("damaged objects: %d", report.Damaged)
	default:
		return fmt.Errorf("objects left: %d damaged, %d too young: run it again in %s", report.Damaged, report.Young, o.Age)
	}
}

// account is the one to be rebuilt, made under its old id if that is asked for.
func (o *rebuildOptions) account(ctx context.Context, n *node, out io.Writer) (metadata.Account, error) {
	if o.from == "" {
		return n.db.Recipient(ctx, o.address)
	}
	id, ok := blobstore.Key(strings.ToLower(strings.TrimSuffix(o.from, "/")) + "/x").Account()
	if !ok || id <= 0 {
		return metadata.Account{}, usageError{errors.New("--from: want 16 hex digits, as --list writes them")}
	}
	a, err := n.db.AccountByID(ctx, metadata.AccountID(id))
	switch {
	case err == nil && a.Name != o.address:
		return metadata.Account{}, fmt.Errorf("the account %s is that of %s", o.from, a.Name)
	case err == nil || !errors.Is(err, metadata.ErrNotFound):
		return a, err
	}
	was, err := n.store.StoredName(ctx, metadata.AccountID(id))
	if err != nil {
		return metadata.Account{}, err
	}
	if was != "" && was != o.address && !o.renamed {
		return metadata.Account{}, fmt.Errorf("by the bucket the account %s was that of %s; if its mail is to be that of %s, say so with --renamed", o.from, was, o.address)
	}
	other, err := n.db.Recipient(ctx, o.address)
	switch {
	case err == nil:
		return metadata.Account{}, fmt.Errorf("%s is an address of the account %s, which has the id %s: give one that no account has",
			o.address, other.Name, accountHex(other.ID))
	case !errors.Is(err, metadata.ErrNotFound):
		return metadata.Account{}, err
	}
	if was == "" {
		if err := anyObject(ctx, n.blobs, metadata.AccountID(id)); err != nil {
			return metadata.Account{}, err
		}
	}
	if o.DryRun {
		return metadata.Account{ID: metadata.AccountID(id), Name: o.address}, nil
	}
	a, err = n.store.MakeAccount(ctx, metadata.AccountID(id), o.address)
	if err == nil && !o.json {
		fmt.Fprintf(out, "account %s made with the id %s and without a password: see starling account passwd\n", a.Name, accountHex(a.ID))
	}
	return a, err
}

// anyObject is nil if the account has an object in the bucket: by a wrong id an account would be made that
// keeps the address from the right one.
func anyObject(ctx context.Context, blobs blobstore.Store, id metadata.AccountID) error {
	for _, err := range blobs.List(ctx, blobstore.AccountPrefix(int64(id)), "") {
		if err != nil {
			return fmt.Errorf("look for objects of the account %s: %w", accountHex(id), err)
		}
		return nil
	}
	return fmt.Errorf("the bucket has no object of an account %s: --list shows those that it has", accountHex(id))
}

// object writes a line of JSON. What is written are numbers and strings, which can be.
func (o *rebuildOptions) object(n *node, out io.Writer, v any) {
	if err := json.NewEncoder(out).Encode(v); err != nil {
		n.log.Error(err.Error())
	}
}

// summary says what came of it; whole, that it came to its end.
func (o *rebuildOptions) summary(n *node, out io.Writer, account metadata.Account, r *mailstore.RebuildReport, whole bool) {
	if o.json {
		o.object(n, out, struct {
			Account string                   `json:"account"`
			DryRun  bool                     `json:"dry_run"`
			Summary *mailstore.RebuildReport `json:"summary"`
		}{account.Name, o.DryRun, r})
		return
	}
	what := "messages brought back to"
	if o.DryRun {
		what = "messages would be brought back to"
	}
	for _, name := range slices.Sorted(maps.Keys(r.Mailboxes)) {
		fmt.Fprintf(out, "%8d %s %q\n", r.Mailboxes[name], what, name)
	}
	for _, line := range []struct {
		what  string
		count int64
	}{
		{"octets of those", r.Octets},
		{"objects", r.Objects},
		{"objects that messages name, left as they are", r.Named},
		{"objects of expunged mail, to be deleted, left so", r.Doomed},
		{"objects of messages that are there from another object", r.Again},
		{"objects younger than " + o.Age.String() + " (--age), left for another run", r.Young},
		{"objects that are damaged, left", r.Damaged},
	} {
		if line.count > 0 {
			fmt.Fprintf(out, "%8d %s\n", line.count, line.what)
		}
	}
	if len(r.Created) > 0 {
		fmt.Fprintf(out, "Mailboxes that were made: %q.\n", r.Created)
	}
	if r.Messages > 0 {
		fmt.Fprintln(out, "Flags, copies, moves and expunges since their delivery are not known.")
	} else if whole && r.Young == 0 {
		fmt.Fprintln(out, "There is nothing to be brought back.")
	}
	if r.Held {
		fmt.Fprintf(out, "The account stays on hold, so that nothing of it is deleted, until a rebuild leaves nothing\nor starling account release %s.\n", account.Name)
	}
}
