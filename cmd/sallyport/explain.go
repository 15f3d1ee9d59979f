package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/gateway/observe"
	"sallyport/internal/printable"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

func explainCommand() *cobra.Command {
	var api, certFile, tokenFile, method, path, listener, address string
	cmd := &cobra.Command{
		Use:   "explain --api NAME:VERSION",
		Short: "Print the decision about a call, and how it comes about",
		Long: `Print what the gateway would decide about a call, and each step that leads to it. The call
is not made: nothing is sent to the backend, and no running gateway's allowance is
touched. That the caller holds the certificate's key is taken for granted. Where
revocations are looked up, lists and responders are asked as for a call. The exit code
is 0 if the call would be let in, and 1 if it would be refused.`,
		Args: noArgs,
	}
	load := lenientFlag(cmd)
	asJSON := outputFlag(cmd)
	cmd.Flags().StringVar(&api, "api", "", "the API, `NAME:VERSION`")
	cmd.Flags().StringVar(&certFile, "cert", "", "PEM or DER `FILE` of the caller's certificate, its chain behind it")
	cmd.Flags().StringVar(&tokenFile, "token", "", "`FILE` that holds the caller's access token")
	cmd.Flags().StringVar(&method, "method", "GET", "the call's `METHOD`")
	cmd.Flags().StringVar(&path, "path", "/", "the call's `PATH`, below the API's context and version")
	cmd.Flags().StringVar(&address, "address", "", "the client's `ADDRESS`, for rules (default: not known)")
	cmd.Flags().StringVar(&listener, "listener", "", "the `NAME` of the listener that it comes in at (default the API's first)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		a, err := control.BuildSound(cmd.Context(), &cfg.Spec)
		if err != nil {
			return usage(err)
		}
		defer a.Close()
		tellFenced(cmd.ErrOrStderr(), a.Spec.Units)
		question, err := ask(cfg, a, api, listener)
		if err != nil {
			return err
		}
		if question.Address, err = clientAddress(address); err != nil {
			return err
		}
		question.Method = method
		question.Target += "/" + strings.TrimPrefix(path, "/")
		if certFile != "" {
			if question.Chain, err = readChain(certFile); err != nil {
				return err
			}
		}
		if tokenFile != "" {
			data, err := readArgument(tokenFile)
			if err != nil {
				return err
			}
			text := strings.TrimSpace(string(data))
			if text == "" {
				return usage(fmt.Errorf("%s: the file is empty: it is to hold an access token", tokenFile))
			}
			question.Authorization = "Bearer " + text
		}
		g := gateway.New(gateway.Options{})
		if err := g.Set(gateway.Parts{Routes: a.Routes, Clients: a.Clients, Denied: a.Denied()}); err != nil {
			return err
		}
		stop := a.LookUp(cmd.Context())
		e := g.Explain(cmd.Context(), question)
		stop()
		tellLimits(cmd.Context(), &e, a.Spec.RateLimit.Value)
		if wantJSON {
			err = printExplanationJSON(cmd.OutOrStdout(), question, e)
		} else {
			printExplanation(cmd.OutOrStdout(), question, e)
		}
		if err == nil && !e.Allowed {
			err = errQuiet // the exit code is the decision, for scripts
		}
		return err
	}
	return cmd
}

func clientAddress(text string) (a netip.Addr, err error) {
	if text == "" {
		return a, nil
	}
	if a, err = netip.ParseAddr(text); err != nil {
		return a, usage(fmt.Errorf("--address %s is no address: give one as 192.0.2.7 or 2001:db8::7", printable.Quote(text)))
	}
	return a.Unmap(), nil
}

// tellLimits adds where the limit that applies is counted now.
func tellLimits(ctx context.Context, e *decision.Explanation, of control.RateLimit) {
	at := slices.IndexFunc(e.Steps, func(s decision.Step) bool { return s.Stage == "limit" })
	if len(of.Redis.Addresses) == 0 || at < 0 {
		return
	}
	finding := ""
	if limits, err := ratelimit.New(ratelimit.Options{Redis: of.Redis, OnFailure: of.OnFailure, Timeout: of.Timeout}); err != nil {
		finding = err.Error()
	} else {
		finding = observe.DescribeLimits(limits.Look(ctx))
	}
	e.Steps = slices.Insert(e.Steps, at+1, decision.Step{Stage: "limit", Finding: finding})
}

// ask returns the question for an API's root, received on the named listener or the API's first.
func ask(cfg *config.Config, a *control.Assembly, name, listener string) (decision.Question, error) {
	var q decision.Question
	if name == "" {
		return q, usage(errors.New("--api NAME:VERSION is needed"))
	}
	api, err := certstore.ParseAPI(name)
	if err != nil {
		return q, usage(fmt.Errorf("--api: %w", err))
	}
	for _, r := range a.Routes.Routes() {
		if r.API != api {
			continue
		}
		q.Host = "localhost"
		q.Target = r.Context + "/" + api.Version
		if len(r.Hosts) > 0 {
			q.Host = r.Hosts[0]
		}
		if listener == "" {
			listener = r.Listeners[0]
		}
	}
	if other := elsewhere(cfg, api); q.Target == "" && other != nil {
		return q, fmt.Errorf("%s is not served here, and its calls are answered 404: its labels (%s, at %s) are none of gateway.labels (%s)",
			api, strings.Join(other.Labels, ", "), other.Place, strings.Join(cfg.Labels, ", "))
	}
	if q.Target == "" {
		return q, cmp.Or(checkAPI(cfg, api), fmt.Errorf("%s is of an API file that is not good, so that it isn't served", api))
	}
	for _, l := range a.Listeners() {
		if l.Name == listener {
			q.Listener = &l
			if at, err := netip.ParseAddrPort(l.Address); err == nil {
				q.Local = at.Addr()
			}
			return q, nil
		}
	}
	var names []string
	for _, l := range cfg.Listeners {
		names = append(names, l.Name)
	}
	return q, usage(fmt.Errorf("no listener %s in %s; there are: %s", listener, cfg.Place.File, strings.Join(names, ", ")))
}

// readChain reads the caller's certificate and, from a PEM file, the rest of its chain.
func readChain(file string) ([]*x509.Certificate, error) {
	data, err := readArgument(file)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, usage(fmt.Errorf("%s: a %s stands in it, and only certificates are wanted", file, block.Type))
		}
		c, err := certstore.ParseCertificate(pem.EncodeToMemory(block))
		if err != nil {
			return nil, usage(fmt.Errorf("%s: %w", file, err))
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		c, err := parseCertificate(file, data)
		return []*x509.Certificate{c}, err
	}
	return chain, nil
}

func printExplanationJSON(out io.Writer, q decision.Question, e decision.Explanation) error {
	type step struct {
		Stage   string `json:"stage"`
		Finding string `json:"finding"`
	}
	steps := make([]step, len(e.Steps))
	for i, s := range e.Steps {
		steps[i] = step(s)
	}
	return printJSON(out, struct {
		Method  string `json:"method"`
		Target  string `json:"target"`
		Allowed bool   `json:"allowed"`
		By      string `json:"by,omitempty"`     // whose identity an allowed call has
		Status  int    `json:"status,omitempty"` // of a refusal, as the following two
		Code    string `json:"code,omitempty"`
		Reason  string `json:"reason,omitempty"`
		Steps   []step `json:"steps"`
	}{q.Method, q.Target, e.Allowed, by(e), e.Status, e.Code, e.Reason, steps})
}

// by is whose identity an allowed call has.
func by(e decision.Explanation) string {
	if !e.Allowed {
		return ""
	}
	return e.By
}

func printExplanation(out io.Writer, q decision.Question, e decision.Explanation) {
	fmt.Fprintf(out, "%s %s\n\n", printable.Text(q.Method), printable.Text(q.Target))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		stage := s.Stage
		for line := range strings.Lines(s.Finding) { // several causes stand one below the other
			fmt.Fprintf(w, "  %s\t%s\n", stage, printable.Text(strings.TrimSpace(line)))
			stage = ""
		}
	}
	w.Flush()
	switch {
	case e.Allowed && e.By == policy.Nothing.String():
		fmt.Fprintln(out, "\nallowed: no credential is needed")
		return
	case e.Allowed:
		fmt.Fprintf(out, "\nallowed, as the %s\n", e.By)
		return
	}
	fmt.Fprintf(out, "\nrefused: %d, code %s (%s)\n", e.Status, e.Code, e.Reason)
}
