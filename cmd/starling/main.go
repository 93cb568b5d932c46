// Command starling is a clustered IMAP server on object storage.
//
// Each subcommand has a file: serve.go runs a node, dev.go a whole cluster on one
// machine, migrate.go brings the database's schema up to date, tenant.go,
// domain.go and account.go manage who there is, import.go brings mail in, gc.go
// runs the collector, undelete.go brings mail back, hold.go and epoch.go keep the
// collector from it, check.go looks for damage, rebuild.go brings back what the
// database has forgotten, config.go has every setting.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs the program and returns its exit status: 0, 1 for a failure, 2 for a
// command line or a configuration that is wrong.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	began := false
	whenRun(root, func() { began = true })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "starling:", err)
	var wrong usageError
	if errors.As(err, &wrong) || !began {
		return 2
	}
	return 1
}

// whenRun has do called before a command runs, which is once its arguments and
// flags were found to be right.
func whenRun(cmd *cobra.Command, do func()) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			do()
			return inner(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		whenRun(c, do)
	}
}

// usageError is an error in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// newRoot is the tree of subcommands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "starling",
		Short:         "A clustered IMAP server on object storage",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(os.Stdout) // cobra prints to standard error otherwise
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringP("config", "c", "", "configuration file (YAML); settings may also stand in the environment: see starling config")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newServe(), newDev(), newMigrate(), newHealth(), newConfigCmd(), newVersion(),
		newTenant(), newDomain(), newAccount(), newImport(), newGC(), newUndelete(), newEpoch(), newCheck(), newRebuild(),
	)
	for _, c := range root.Commands() {
		group(c)
	}
	return root
}

// group has a command that is nothing but a name for others refuse what none of them is called: cobra
// would print its help, and call that a success.
func group(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args, cmd.DisableFlagsInUseLine = cobra.NoArgs, true
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		group(c)
	}
}
