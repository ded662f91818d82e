// Command scpi-edge is an edge for SCPI instruments, and for everything that
// Whimbrel ships drivers for: edgeruntime with one driver more.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/whimbrel-edge/whimbrel/edgeruntime"
	"github.com/whimbrel-edge/whimbrel/examples/mapper-go/scpi"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg := edgeruntime.Config{Drivers: builtin.Drivers(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "1.0.0"}
	cfg.Drivers[scpi.Name] = scpi.Driver{}
	flag.StringVar(&cfg.HubURL, "hub", "", "the hub's link URL, https://host:8443")
	flag.StringVar(&cfg.Token, "token", "", "one-time join token, at the first start")
	flag.StringVar(&cfg.Node, "name", "", "name of this node")
	flag.StringVar(&cfg.DataDir, "data", "./scpi-edge-data", "directory for everything the edge keeps")
	flag.StringVar(&cfg.MQTTAddr, "mqtt", "", "address of the MQTT broker")
	flag.StringVar(&cfg.APIAddr, "api", "", "address of the local REST API")
	flag.Parse()
	edge, err := edgeruntime.New(cfg)
	if err != nil {
		return err
	}
	return edge.Run(ctx)
}
