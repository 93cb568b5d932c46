package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"starling/metadata"
)

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run a node: IMAP and LMTP over PostgreSQL, S3 and NATS",
		Long: "Run a node: IMAP and LMTP over PostgreSQL, S3 and NATS. Any number of nodes can\n" +
			"serve the same accounts. SIGTERM stops it cleanly: no new connections, BYE to\n" +
			"those that wait, running commands finish; a second one ends it at once. Until PostgreSQL is there, with the\n" +
			"schema that starling migrate makes, the node waits, and says so on the admin\n" +
			"listener. SIGHUP has it look at its certificates at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configOf(cmd)
			if err != nil {
				return err
			}
			log, err := newLogger(cfg.Log)
			if err != nil {
				return err
			}
			limitMemory(log)
			// From the start, and without certificates too: else the signal would end the node.
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			defer endAtSecondSignal(log)()
			n, err := newNode(cmd.Context(), cfg, log)
			switch {
			case errors.Is(err, context.Canceled) && cmd.Context().Err() != nil:
				log.Info("stopped before it served")
				return nil //nolint:nilerr // it was told to end, and did
			case err != nil:
				return err
			}
			n.reloadOn(hangups)
			n.watchDurability(cmd.Context())
			return n.run(cmd.Context())
		},
	}
}

// endAtSecondSignal ends the program at the second signal to stop: who sends it does not
// want to wait for the drain any more. The function that it returns takes that back.
func endAtSecondSignal(log *zap.Logger) (stop func()) {
	signals, stopped := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-stopped:
				return
			}
		}
		log.Warn("second signal: ended at once, connections and commands are cut off")
		os.Exit(1)
	}()
	return func() {
		signal.Stop(signals)
		close(stopped)
	}
}

// configOf loads the configuration that the command line names.
func configOf(cmd *cobra.Command) (Config, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return Config{}, usageError{err}
	}
	return loadConfig(path, os.Environ())
}

func newMigrate() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of the database up to date",
		Long: "Bring the schema of the database up to date. Nodes of the release before go on\n" +
			"serving meanwhile. postgres.dsn must lead to PostgreSQL itself, not to a pooler.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configOf(cmd)
			if err != nil {
				return err
			}
			dsn, err := cfg.Postgres.dsn()
			if err != nil {
				return usageError{err}
			}
			if err := metadata.Migrate(cmd.Context(), dsn); err != nil {
				return err
			}
			db, err := openDB(cmd.Context(), cfg.Postgres)
			if err != nil {
				return err // that of a later release, with which this one cannot work
			}
			db.Close()
			cmd.Println("The schema is up to date.")
			return nil
		},
	}
}

// withDB runs do on the configured database.
func withDB(cmd *cobra.Command, do func(context.Context, *metadata.DB) error) error {
	cfg, err := configOf(cmd)
	if err != nil {
		return err
	}
	db, err := openDB(cmd.Context(), cfg.Postgres)
	if err != nil {
		return err
	}
	defer db.Close()
	return do(cmd.Context(), db)
}
