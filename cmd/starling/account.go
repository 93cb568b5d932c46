package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"starling/frontend/auth"
	"starling/metadata"
)

func newAccount() *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Manage accounts: who has mailboxes and logs in"}
	cmd.AddCommand(newAccountAdd(), newAccountList(), newAccountShow(), newAccountPasswd(), newAccountQuota(), newAccountAlias(),
		newAccountState("suspend", "Refuse logins, from now on and of those that are open; mail still comes in", metadata.Suspended),
		newAccountState("resume", "Allow logins again", metadata.Active),
		newAccountHold(), newAccountRelease(), newAccountDelete())
	return cmd
}

func newAccountAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ADDRESS", Short: "Add an account, with the usual mailboxes", Args: cobra.ExactArgs(1),
		Long: "Add an account, with the usual mailboxes. The password is read from standard\n" +
			"input, or asked for on a terminal. --hash takes one that is hashed already, as\n" +
			"other servers store it: {SHA512-CRYPT}…, {SSHA}…, {BLF-CRYPT}…, {ARGON2ID}….",
	}
	quota := quotaFlags(cmd)
	hash := hashFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		limits, err := quota()
		if err != nil {
			return err
		}
		hashed, err := hash()
		if err != nil {
			return err
		}
		return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
			a, err := db.CreateAccount(ctx, metadata.NewAccount{
				Name: args[0], PasswordHash: hashed, Limits: limits, Mailboxes: metadata.DefaultMailboxes(),
			})
			if err != nil {
				return err
			}
			cmd.Printf("account %s added\n", a.Name)
			return nil
		})
	}
	return cmd
}

// hashFlag adds --hash, and returns what gives the hash of the password.
func hashFlag(cmd *cobra.Command) func() (string, error) {
	given := cmd.Flags().String("hash", "", "hashed password, in place of a password")
	return func() (string, error) {
		if *given != "" {
			if _, err := auth.Verify(*given, "x"); err != nil {
				return "", usageError{fmt.Errorf("--hash: %w", err)}
			}
			return *given, nil
		}
		password, err := readPassword(cmd.ErrOrStderr())
		if err != nil {
			return "", err
		}
		if password == "" {
			return "", usageError{errors.New("no password was given; write it to standard input, or use --hash")}
		}
		return auth.Hash(password)
	}
}

// readPassword takes the first line of standard input, or asks on a terminal.
func readPassword(prompt io.Writer) (string, error) {
	stdin := int(os.Stdin.Fd()) //nolint:gosec // a descriptor
	if term.IsTerminal(stdin) {
		fmt.Fprint(prompt, "Password: ")
		b, err := term.ReadPassword(stdin)
		fmt.Fprintln(prompt)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(b), nil
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 2*auth.MaxPassword)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// quotaFlags adds --quota-bytes and --quota-messages, and returns what reads them.
func quotaFlags(cmd *cobra.Command) func() (metadata.Quota, error) {
	size := cmd.Flags().String("quota-bytes", "0", "limit of all mail, such as 500M or 10G; 0: none")
	messages := cmd.Flags().Int64("quota-messages", 0, "limit of the number of messages; 0: none")
	return func() (metadata.Quota, error) {
		n, err := parseSize(*size)
		if err == nil && *messages < 0 {
			err = errors.New("--quota-messages: is negative")
		}
		if err != nil {
			return metadata.Quota{}, usageError{err}
		}
		return metadata.Quota{Bytes: n, Messages: *messages}, nil
	}
}

// parseSize reads a number of bytes with an optional K, M, G or T (of 1024).
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if i := strings.IndexByte("KMGT", lastUpper(s)); i >= 0 && s != "" {
		digits, shift = s[:len(s)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size; write it as 1048576, 500M or 10G", s)
	}
	return n << shift, nil
}

func lastUpper(s string) byte {
	if s == "" {
		return 0
	}
	return strings.ToUpper(s[len(s)-1:])[0]
}

// listPage is how many accounts are read at a time.
const listPage = 500

func newAccountList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List accounts: name, state, use and limits", Args: cobra.NoArgs,
	}
	domain := cmd.Flags().String("domain", "", "only those of this domain")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
			return eachAccount(ctx, db, *domain, func(ctx context.Context, a metadata.Account) error {
				used, err := db.Usage(ctx, a.ID)
				if err != nil {
					return err
				}
				state := stateName(a.State)
				if a.Hold {
					state += ", on hold"
				}
				cmd.Printf("%s\t%s\t%s bytes\t%s messages\n", a.Name, state,
					useText(used.Bytes, a.Limits.Bytes), useText(used.Messages, a.Limits.Messages))
				return nil
			})
		})
	}
	return cmd
}

// useText is how much is used of a limit, if there is one.
func useText(used, limit int64) string {
	if limit == 0 {
		return strconv.FormatInt(used, 10)
	}
	return fmt.Sprintf("%d/%d", used, limit)
}

func stateName(s metadata.AccountState) string {
	switch s {
	case metadata.Active:
		return "active"
	case metadata.Suspended:
		return "suspended"
	case metadata.Deleting:
		return "deleting"
	}
	return fmt.Sprintf("state %d", s)
}

func newAccountPasswd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "passwd ADDRESS", Short: "Set a new password; open sessions with the old one end", Args: cobra.ExactArgs(1),
	}
	hash := hashFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		hashed, err := hash()
		if err != nil {
			return err
		}
		return changeLogin(cmd, args[0], func(ctx context.Context, db *metadata.DB) error {
			return db.SetPassword(ctx, args[0], hashed)
		})
	}
	return cmd
}

func newAccountQuota() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quota ADDRESS", Short: "Set the limits of an account; mail above them stays", Args: cobra.ExactArgs(1),
		Long: "Set the limits of an account; mail above them stays. A limit that is not given stays as\n" +
			"it is, 0 takes it away. starling account list shows limits.",
	}
	quota := quotaFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		limits, err := quota()
		if err != nil {
			return err
		}
		octets, messages := cmd.Flags().Changed("quota-bytes"), cmd.Flags().Changed("quota-messages")
		if !octets && !messages {
			return usageError{errors.New("--quota-bytes, --quota-messages or both must be given")}
		}
		return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
			before, err := db.Login(ctx, args[0])
			if err != nil {
				return err
			}
			if !octets {
				limits.Bytes = before.Limits.Bytes
			}
			if !messages {
				limits.Messages = before.Limits.Messages
			}
			return db.SetLimits(ctx, args[0], limits)
		})
	}
	return cmd
}

func newAccountAlias() *cobra.Command {
	cmd := &cobra.Command{Use: "alias", Short: "Manage further addresses of an account"}
	change := func(use, short string, do func(*metadata.DB, context.Context, string, string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return withDB(cmd, func(ctx context.Context, db *metadata.DB) error { return do(db, ctx, args[0], args[1]) })
			},
		}
	}
	cmd.AddCommand(
		change("add ADDRESS ALIAS", "Deliver mail for ALIAS to the account too", (*metadata.DB).AddAlias),
		change("remove ADDRESS ALIAS", "No longer do so", (*metadata.DB).RemoveAlias),
		&cobra.Command{
			Use: "list ADDRESS", Short: "List the account's aliases", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
					if _, err := db.Login(ctx, args[0]); err != nil {
						return err
					}
					aliases, err := db.Aliases(ctx, args[0])
					for _, a := range aliases {
						cmd.Println(a)
					}
					return err
				})
			},
		},
	)
	return cmd
}

func newAccountState(use, short string, state metadata.AccountState) *cobra.Command {
	return &cobra.Command{
		Use: use + " ADDRESS", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeLogin(cmd, args[0], func(ctx context.Context, db *metadata.DB) error {
				return db.SetState(ctx, args[0], state)
			})
		},
	}
}

func newAccountDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ADDRESS", Short: "Delete an account and all its mail", Args: cobra.ExactArgs(1),
		Long: "Delete an account and all its mail. Logins and mail are refused at once; the\n" +
			"collector removes the rest in the background, unless the account is on hold: after\n" +
			"half of mail.orphan_grace all rows and objects, and when nothing came after them for\n" +
			"an hour the account. It cannot be undone. starling account show with its id, which\n" +
			"this prints, says what is left.",
	}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			return usageError{fmt.Errorf("all mail of %s would be deleted; say so with --yes", args[0])}
		}
		return changeLogin(cmd, args[0], func(ctx context.Context, db *metadata.DB) error {
			return deleteAccount(ctx, cmd, db, args[0])
		})
	}
	return cmd
}

// deleteAccount marks an account as being deleted, and says by what it is known from now on.
func deleteAccount(ctx context.Context, cmd *cobra.Command, db *metadata.DB, name string) error {
	deleting := db.DeleteAccount(ctx, name)
	a, err := db.Login(ctx, name)
	if errors.Is(err, metadata.ErrNotFound) && deleting != nil {
		return deleting
	}
	if err != nil {
		return errors.Join(deleting, err)
	}
	already := ""
	switch {
	case errors.Is(deleting, metadata.ErrNotFound) && a.State == metadata.Deleting:
		already = " already"
	case deleting != nil:
		return deleting
	}
	held := ""
	if a.Hold {
		held = "; it is on hold, and stays until that is released"
	}
	cmd.Printf("account %s, id %016x, is being deleted%s%s\n", a.Name, int64(a.ID), already, held)
	return nil
}

// changeLogin runs change, after which logins of the account are no longer what
// they were, and has the nodes end its open sessions: at once where NATS is
// configured, else with their next sweep.
func changeLogin(cmd *cobra.Command, name string, change func(context.Context, *metadata.DB) error) error {
	return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
		if err := change(ctx, db); err != nil {
			return err
		}
		tell, done, err := tellLogins(cmd)
		if err != nil {
			return err
		}
		return errors.Join(tell(ctx, db, name), done())
	})
}
