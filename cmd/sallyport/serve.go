package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sallyport/cmd/sallyport/internal/assembly"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/observe"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT, which lets calls under way finish; a second
one stops at once. SIGHUP reloads everything; a change that is not good is logged, and
the last good state serves on.`,
		Args: noArgs,
	}
	load := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return serve(cmd.Context(), cfg, cmd.OutOrStdout(), cmd.ErrOrStderr(), nil)
	}
	return cmd
}

// gcPercent is how much garbage there may be for what lives, in percent, unless GOGC says something else: twice what Go
// lets be by itself. It is little memory here, and collecting takes a tenth of a call's CPU where heads are large.
const gcPercent = 200

// serve runs the gateway until it is told to stop. Ready is called once when it serves.
func serve(ctx context.Context, cfg *config.Config, stdout, stderr io.Writer, ready func()) error {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	stop, force, release := stopSignals(ctx)
	defer release()
	hangups := make(chan os.Signal, 1) // taken from the first moment to the last: unheard, one would end the program
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	log := newLogger(cfg.Log, stderr)
	slog.SetDefault(log) // for what libraries say by themselves, as net/http of backends that talk unasked
	metrics := observe.NewMetrics()
	accessLog, err := openAccessLog(cfg.Log, stdout, metrics)
	if err != nil {
		return err
	}
	if accessLog != nil {
		accessLog.log.Log = log
	}
	c := newController(cfg, log, metrics, accessLog)
	if err := c.start(stop); err != nil {
		return errors.Join(err, c.close())
	}

	// The access log and the status listener outlive the gateway, so that its last calls and its draining are seen.
	after, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	var outer errgroup.Group
	if cfg.Status != nil {
		listener, err := net.Listen("tcp", cfg.Status.Address)
		if err != nil {
			return errors.Join(fmt.Errorf("status listener: %w", err), c.close())
		}
		server := &http.Server{Handler: observe.StatusHandler(metrics, c.gateway.Ready), ReadHeaderTimeout: 5 * time.Second}
		outer.Go(func() error { return serveUntil(after, server, listener) })
	}
	if accessLog != nil {
		outer.Go(func() error { return accessLog.log.Run(after) })
	}

	inner, innerCtx := errgroup.WithContext(stop)
	inner.Go(func() error { return c.run(innerCtx, hangups) })
	inner.Go(func() error {
		select {
		case <-force:
			log.Warn("stopping at once")
			c.gateway.Abort()
		case <-after.Done():
		}
		return nil
	})
	if ready != nil {
		ready()
	}
	log.Info("serving", "config", cfg.File)
	inner.Go(func() error {
		defer done()
		return c.gateway.Run(innerCtx)
	})
	err = inner.Wait()
	done()
	err = errors.Join(err, outer.Wait(), c.close())
	log.Info("stopped")
	return err
}

// stopSignals returns a context that ends with the first SIGTERM or SIGINT, and a channel that closes with the second.
func stopSignals(ctx context.Context) (stop context.Context, force <-chan struct{}, release func()) {
	stop, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	second := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		for n := 0; n < 2; n++ {
			select {
			case <-signals:
			case <-ended:
				return
			}
			if n == 0 {
				cancel()
			} else {
				close(second)
			}
		}
	}()
	return stop, second, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	var g errgroup.Group
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return g.Wait()
}

func newLogger(c config.Log, out io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(c.Level)) == nil {
		opts.Level = level
	}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(out, opts))
	}
	return slog.New(slog.NewJSONHandler(out, opts))
}

// An accessLog is the log and, if it goes to a file, its name: SIGHUP opens it anew, as log rotation expects.
type accessLog struct {
	log  *observe.AccessLog
	file string
}

func openAccessLog(c config.Log, stdout io.Writer, metrics *observe.Metrics) (*accessLog, error) {
	text := c.Format == "text"
	switch c.Access {
	case "off":
		return nil, nil
	case "stdout":
		return &accessLog{log: observe.NewAccessLog(stdout, text, metrics)}, nil
	}
	f, err := openLogFile(c.Access)
	if err != nil {
		return nil, err
	}
	return &accessLog{log: observe.NewAccessLog(f, text, metrics), file: c.Access}, nil
}

func openLogFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return f, nil
}

// reopen begins a new file of the same name. The old one is closed when the lines under way are written.
func (a *accessLog) reopen() error {
	if a == nil || a.file == "" {
		return nil
	}
	f, err := openLogFile(a.file)
	if err != nil {
		return err
	}
	if old, ok := a.log.SetOutput(f).(io.Closer); ok {
		a.log.Retire(old)
	}
	return nil
}

// loadAll is what serve and validate do first: everything that cfg names, opened and checked.
func loadAll(ctx context.Context, cfg *config.Config, opts assembly.Options) (*assembly.Assembly, assembly.ClientReport, error) {
	a, err := assembly.Load(ctx, cfg, opts)
	if err != nil {
		return nil, assembly.ClientReport{}, usage(err)
	}
	report, err := a.Clients(ctx)
	if err = errors.Join(append(report.Conflicts, err)...); err != nil {
		if opts.Last == nil || opts.Last.Store != a.Store {
			err = errors.Join(err, a.Close())
		}
		return nil, assembly.ClientReport{}, usage(err)
	}
	return a, report, nil
}
