package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"sallyport/bench/backend"
	"sallyport/bench/process"
)

func backendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backend",
		Short: "Run the backend that answers the measurements' calls",
		Long: `Run the backend that answers the measurements' calls over HTTP/1.1: under any path prefix, /1k,
/64k and /1m have bodies of that size, and /slow?ms=N has 1 KiB after N milliseconds. It ends
with SIGINT or SIGTERM and prints how many calls it has answered.`,
		Args: noArgs,
	}
	address := cmd.Flags().String("address", "127.0.0.1:9000", "`HOST:PORT` to listen on")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := process.RaiseFiles(openFiles); err != nil {
			return err
		}
		listener, err := net.Listen("tcp", *address)
		if err != nil {
			return usage(fmt.Errorf("--address: %w", err))
		}
		server := backend.New()
		fmt.Fprintln(cmd.ErrOrStderr(), "answering on", listener.Addr())
		err = server.Run(cmd.Context(), listener)
		fmt.Fprintln(cmd.ErrOrStderr(), "answered", server.Calls(), "calls")
		return err
	}
	return cmd
}
