package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"starling/events"
	"starling/events/nats"
	"starling/metadata"
)

func newTenantDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a tenant that has no domains, or with all that it has", Args: cobra.ExactArgs(1),
		Long: "Delete a tenant that has no domains. With --with-accounts all its accounts are\n" +
			"deleted (starling account delete); run it again when the collector has removed them:\n" +
			"when none is left its domains and the tenant itself go. Accounts on hold stay, and\n" +
			"the tenant with them. It says how far it is each time.",
	}
	all := cmd.Flags().Bool("with-accounts", false, "delete all its accounts, with their mail, and its domains")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *all && !*yes {
			return usageError{fmt.Errorf("all mail of all accounts of %s would be deleted; say so with --yes", args[0])}
		}
		return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
			if *all {
				if left, err := deleteAccounts(ctx, cmd, db, args[0]); err != nil || left > 0 {
					return err
				}
			}
			err := db.DeleteTenant(ctx, args[0])
			switch {
			case errors.Is(err, metadata.ErrHasChildren):
				return fmt.Errorf("tenant %s has domains: delete them first, or all that it has by --with-accounts", args[0])
			case err == nil:
				cmd.Printf("tenant %s deleted\n", args[0])
			}
			return err
		})
	}
	return cmd
}

// deleteAccounts has all accounts of a tenant deleted, and its domains when none is left.
// It returns how many are.
func deleteAccounts(ctx context.Context, cmd *cobra.Command, db *metadata.DB, tenant string) (left int, err error) {
	if tenant == "" { // which would mean all
		return 0, usageError{errors.New("the tenant's name is empty")}
	}
	tell, done, err := tellLogins(cmd)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, done()) }()
	domains, err := db.Domains(ctx, tenant)
	if err != nil {
		return 0, err
	}
	held := 0
	for _, d := range domains {
		err := eachAccount(ctx, db, d.Name, func(ctx context.Context, a metadata.Account) error {
			left++
			if a.Hold {
				held++
			}
			if a.State == metadata.Deleting {
				return nil
			}
			if err := deleteAccount(ctx, cmd, db, a.Name); err != nil {
				return err
			}
			return tell(ctx, db, a.Name)
		})
		if err != nil {
			return left, err
		}
	}
	if left > 0 {
		cmd.Printf("accounts of %s still to be removed by the collector: %d, of which on hold: %d\n", tenant, left, held)
		return left, nil
	}
	for _, d := range domains {
		if err := db.DeleteDomain(ctx, d.Name); err != nil {
			return 0, err
		}
		cmd.Printf("domain %s deleted\n", d.Name)
	}
	return 0, nil
}

// tellLogins returns what tells the nodes that an account's login changed, if NATS is
// configured, and what ends it.
func tellLogins(cmd *cobra.Command) (tell func(context.Context, *metadata.DB, string) error, done func() error, err error) {
	cfg, err := configOf(cmd)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.NATS.URLs) == 0 {
		return func(context.Context, *metadata.DB, string) error { return nil }, func() error { return nil }, nil
	}
	bus, err := nats.Open(cfg.NATS.config(zap.NewNop()))
	if err != nil {
		return nil, nil, fmt.Errorf("nats: %w", err)
	}
	return func(ctx context.Context, db *metadata.DB, name string) error {
		login, err := db.Login(ctx, name)
		if err != nil {
			return err
		}
		return bus.Publish(events.Event{Account: int64(login.ID), Kind: events.Auth, ModSeq: login.AuthVersion})
	}, bus.Close, nil
}
