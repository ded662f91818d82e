package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/hubd"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/mapperseed"
	"github.com/whimbrel-edge/whimbrel/internal/cli"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
)

// hubGC is how much garbage a hub lets come together, in percent of what it holds,
// unless the environment has GOGC. It holds little and much passes through it: the
// usual 100 costs a third of the CPU of ingest.
const hubGC = 250

// newHub is `whimbrel hub`.
func newHub(s *settings) *cobra.Command {
	var cfg hubd.Config
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run the cloud device hub",
		Long: `Run the cloud device hub: the REST API, the link that edges connect to, and the
store behind them. Migrations are applied at start.

At its first start the hub makes an admin and writes how to reach it, with the
admin's token, into DATA/context.json.`,
		Example: `  whimbrel hub --database postgres://whimbrel@db/whimbrel --public-url https://hub.example.com:8080
  whimbrel hub --data /var/lib/whimbrel --listen :8080 --link :8443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := s.logger(cmd)
			if err != nil {
				return err
			}
			cfg.Log, cfg.Mappers = log, mapperseed.Objects(builtin.Drivers())
			if err := cfg.Check(); err != nil {
				return cli.Usagef("%w", err)
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(hubGC)
			}
			d, err := hubd.Open(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			go func() { // ends when the hub is ready or stopped
				select {
				case <-d.Ready():
					log.Info("hub is ready", "api", d.APIURL(), "link", d.LinkURL(), "context", d.ContextPath())
				case <-cmd.Context().Done():
				}
			}()
			return stopped(d.Run(cmd.Context()))
		},
	}
	hubFlags(cmd, &cfg)
	cmd.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:8080", "address of the REST API")
	cmd.Flags().StringVar(&cfg.Link, "link", ":8443", "address of the link that edges connect to")
	cmd.Flags().StringVar(&cfg.PublicURL, "public-url", "", "how the REST API is reached from elsewhere, such as https://hub.example.com:8080")
	cmd.Flags().StringVar(&cfg.TLSCert, "tls-cert", "", "PEM file of the REST API's certificate (default: one of the hub's own authority)")
	cmd.Flags().StringVar(&cfg.TLSKey, "tls-key", "", "PEM file of the REST API's key")
	cmd.Flags().BoolVar(&cfg.InsecureHTTP, "insecure-http", false, "serve the REST API in plain HTTP; on loopback only")
	cmd.Flags().StringVar(&cfg.Images, "images", "", "directory for container images (default DATA/images); hubs that share a database share it, too")
	cmd.Flags().StringVar(&cfg.ImageSpace, "image-space", "50Gi", "how much container images may take there")
	routeFlag(cmd, &cfg.RouteAllow)
	cmd.AddCommand(newResetAdmin(s))
	return cmd
}

// hubFlags are the flags that say where a hub keeps things.
func hubFlags(cmd *cobra.Command, cfg *hubd.Config) {
	cmd.Flags().StringVar(&cfg.Data, "data", "./whimbrel-data", "directory for what the hub keeps in files")
	cmd.Flags().StringVar(&cfg.Database, "database", "", "postgres://… or sqlite://PATH (default sqlite://DATA/hub.db)")
	cmd.Flags().StringVar(&cfg.KeyFile, "key-file", "", "file with the key that seals secrets in the database (default DATA/hub.key, made when absent)")
}

func routeFlag(cmd *cobra.Command, allow *[]string) {
	cmd.Flags().StringSliceVar(allow, "route-allow", nil, "loopback or link-local addresses and prefixes, such as 127.0.0.0/8, that routes may reach from the hub")
}

func newResetAdmin(s *settings) *cobra.Command {
	var cfg hubd.Config
	cmd := &cobra.Command{
		Use:   "reset-admin",
		Short: "Make a new admin token while the hub is stopped",
		Long: `Make a new admin token while the hub is stopped. The user "admin" is made when
there is none; all of its former tokens become void. The token is printed once
and written into DATA/context.json when that is there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := s.logger(cmd)
			if err != nil {
				return err
			}
			cfg.Log = log
			token, err := hubd.ResetAdmin(cmd.Context(), cfg)
			if token != "" {
				fmt.Fprintln(cmd.OutOrStdout(), token)
			}
			return err
		},
	}
	hubFlags(cmd, &cfg)
	return cmd
}

// stopped makes a stop that was asked for no error.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
