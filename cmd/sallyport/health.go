package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/internal/config"
)

// healthTimeout bounds the whole question; a container's health check is to give the program more.
const healthTimeout = 3 * time.Second

func healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the running gateway whether it is ready",
		Long: `Ask the gateway that runs here for /readyz, at the address under status in its
configuration. Nothing else is read from that file, and nothing that it names is opened.
The exit code is 0 if the gateway is ready, 1 if it isn't or doesn't answer within 3s,
and 2 if the file names no such address: fit for the health check of a container.`,
		Args: noArgs,
	}
	find := configFileFlag(cmd)
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		file, err := find()
		if err != nil {
			return err
		}
		address, err := config.StatusAddress(file)
		if err != nil {
			return usage(err)
		}
		if address == "" {
			return usage(fmt.Errorf("%s: there is no address under status to ask: add one, as in "+
				"status: {address: 127.0.0.1:9091}, and start the gateway again", file))
		}
		h := askHealth(cmd.Context(), address)
		if wantJSON {
			err = printJSON(cmd.OutOrStdout(), h)
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", h.URL, h.Says[0])
		}
		if err == nil && !h.Ready {
			err = errQuiet
		}
		return err
	}
	return cmd
}

// A health is a gateway's answer; its fields are the JSON form.
type health struct {
	URL   string   `json:"url"`
	Ready bool     `json:"ready"`
	Says  []string `json:"says"` // the lines of the answer, or why there is none; at least one
}

// askHealth asks the gateway whose status listener is at address. Whatever isn't a gateway's word that it is ready is a no.
func askHealth(ctx context.Context, address string) health {
	h := health{URL: "http://" + address + "/readyz"}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	status, text, err := fetch(ctx, h.URL)
	if err != nil {
		h.Says = []string{"no answer: " + err.Error()}
		return h
	}
	h.Says = strings.Split(strings.TrimSpace(text), "\n")
	switch said := h.Says[0]; {
	case status == http.StatusOK && said == "ready":
		h.Ready = true
	case status != http.StatusServiceUnavailable || said != "not ready":
		h.Says = []string{fmt.Sprintf("%d %s: this is not the answer of a gateway", status, http.StatusText(status))}
	}
	return h
}

// fetch gets a page of at most 1 MiB, by no proxy and following no redirection.
func fetch(ctx context.Context, url string) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, "", plainly(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, string(body), plainly(err)
}

// plainly is err in a person's words, where it is one that people meet.
func plainly(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not within %s", healthTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nothing listens there: the gateway doesn't run, or was started with another address")
	}
	return err
}
