package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"starling/metadata"
)

func newTenant() *cobra.Command {
	cmd := &cobra.Command{Use: "tenant", Short: "Manage tenants: customers with domains of their own"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "add NAME", Short: "Add a tenant", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
					t, err := db.CreateTenant(ctx, args[0])
					if err != nil {
						return err
					}
					cmd.Printf("tenant %s added\n", t.Name)
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "list", Short: "List all tenants", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
					tenants, err := db.Tenants(ctx)
					for _, t := range tenants {
						cmd.Println(t.Name)
					}
					return err
				})
			},
		},
		newTenantDelete(),
	)
	return cmd
}

func newDomain() *cobra.Command {
	cmd := &cobra.Command{Use: "domain", Short: "Manage mail domains"}
	add := &cobra.Command{
		Use: "add DOMAIN", Short: "Add a domain to a tenant", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
				d, err := db.CreateDomain(ctx, mustString(cmd, "tenant"), args[0])
				if err != nil {
					return err
				}
				cmd.Printf("domain %s of tenant %s added\n", d.Name, d.Tenant)
				return nil
			})
		},
	}
	add.Flags().String("tenant", "", "the tenant that owns it")
	required(add, "tenant")
	list := &cobra.Command{
		Use: "list", Short: "List domains", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
				domains, err := db.Domains(ctx, mustString(cmd, "tenant"))
				for _, d := range domains {
					cmd.Printf("%s\t%s\n", d.Name, d.Tenant)
				}
				return err
			})
		},
	}
	list.Flags().String("tenant", "", "only those of this tenant")
	cmd.AddCommand(add, list, &cobra.Command{
		Use: "delete DOMAIN", Short: "Delete a domain that has no accounts", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
				err := db.DeleteDomain(ctx, args[0])
				if errors.Is(err, metadata.ErrHasChildren) {
					return fmt.Errorf("domain %s has accounts, or accounts have aliases in it", args[0])
				}
				return err
			})
		},
	})
	return cmd
}

// mustString is the value of a flag that the command has.
func mustString(cmd *cobra.Command, name string) string {
	v, err := cmd.Flags().GetString(name)
	if err != nil {
		panic(fmt.Sprintf("flag %s: %v", name, err))
	}
	return v
}

// required marks a flag of the command as one that must be given.
func required(cmd *cobra.Command, name string) {
	if err := cmd.MarkFlagRequired(name); err != nil {
		panic(fmt.Sprintf("flag %s: %v", name, err))
	}
}
