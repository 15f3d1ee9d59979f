package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/cmd/sallyport/internal/quickstart"
	"sallyport/internal/contain"
)

func quickstartCommand() *cobra.Command {
	var opts quickstart.Options
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "Make and run a complete demonstration",
		Long: `Make a folder with everything a gateway needs (certificates, keystores, tokens, APIs), and
run the gateway with a demo backend and a demo token issuer, all on 127.0.0.1. A second
run uses the folder again. It prints curl commands to try.`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&opts.Dir, "dir", quickstart.DefaultDir, "the `FOLDER` to make or to use again")
	cmd.Flags().IntVar(&opts.PortOffset, "port-offset", 0, "`N` to add to every port")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runQuickstart(cmd.Context(), opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

func runQuickstart(ctx context.Context, opts quickstart.Options, stdout, stderr io.Writer) error {
	demo, err := quickstart.Make(ctx, opts, registerDemo)
	switch {
	case errors.Is(err, quickstart.ErrUsage):
		return usage(err)
	case err != nil:
		return err
	}
	defer demo.Close()
	cfg, err := config.LoadToServe(demo.ConfigFile)
	if err != nil {
		return usage(err)
	}

	helpers, stopHelpers := context.WithCancel(ctx)
	defer stopHelpers()
	var g errgroup.Group
	for _, h := range []struct {
		name    string
		port    int
		handler http.Handler
	}{
		{"demo backend", demo.Ports.Backend, demo.Backend()},
		{"demo token issuer", demo.Ports.Issuer, demo.Issuer()},
	} {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err != nil {
			stopHelpers()
			return errors.Join(freePort(fmt.Errorf("%s: %w", h.name, err), opts.PortOffset), g.Wait())
		}
		server := &http.Server{Handler: h.handler, ReadHeaderTimeout: 5 * time.Second}
		g.Go(func() error {
			return contain.Do(h.name, func() error { return serveUntil(helpers, server, listener) })
		})
	}

	err = serve(ctx, cfg, stdout, stderr, func() {
		demo.Guide(stdout)
		fmt.Fprintln(stdout, "sallyport: ready")
	})
	stopHelpers()
	return errors.Join(freePort(err, opts.PortOffset), g.Wait())
}

// freePort tells what to do when a port of the demonstration at offset is taken.
func freePort(err error, offset int) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	var address *net.OpError
	if errors.As(err, &address) { // without the advice that it may have already
		err = address
	}
	advice := "stop it, or try other ports with --port-offset"
	if free, ok := quickstart.Free(offset); ok {
		advice += fmt.Sprintf(" %d", free)
	}
	return usage(fmt.Errorf("%w: something else has this port: %s", err, advice))
}

// registerDemo fills a new store with the demonstration's clients.
func registerDemo(ctx context.Context, url string, clients []certstore.Client) (err error) {
	// The store refuses what has expired; one of these was registered while it was good.
	whenGood := func() time.Time { return time.Unix(0, 0) }
	store, err := certstore.Open(ctx, url, certstore.Options{Now: whenGood})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, c := range clients {
		if err := store.Add(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
