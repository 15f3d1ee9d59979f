package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/gateway/observe"
	"sallyport/internal/contain"
	"sallyport/internal/printable"
	"sallyport/internal/regularfile"
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
	find := configFileFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.ErrOrStderr()
		cfg, err := loadToServe(cmd.Context(), find, out)
		if err != nil {
			return fatal(err, config.Log{}, out)
		}
		return fatal(serve(cmd.Context(), cfg, cmd.OutOrStdout(), out, nil), cfg.Log, out)
	}
	return cmd
}

// loadToServe loads the configuration after the files that come from the store have been written to this node. A version
// that has never been in force here, and can't be, gives way to the last one that was.
func loadToServe(ctx context.Context, find func() (string, error), stderr io.Writer) (*config.Config, error) {
	file, err := find()
	if err != nil {
		return nil, err
	}
	node, err := config.LoadNode(file)
	if err != nil {
		_, all := loadConfig(file) // what else is wrong is to be told with it
		return nil, cmp.Or(all, usage(err))
	}
	if node.Cluster.Folder == "" {
		return loadLenient(file)
	}
	log := newLogger(config.Log{}, stderr) // how it is to be logged is not known yet
	if err := node.Cluster.Prepare(ctx, node.Place, node.Store, log); err != nil {
		return nil, err
	}
	if node.Cluster.Proven() {
		return loadLenient(file)
	}
	cfg, problem := loadConfig(file) // one that has never been in force is to be good in all its files
	if problem == nil {
		problem = builds(ctx, cfg)
	}
	if problem != nil && exitCode(problem) == exitUsage {
		_ = node.Cluster.GoBack(problem, log) // else there is none to go back to
	}
	return loadLenient(file)
}

// loadLenient is loadConfig for a gateway that serves: an API file that is not good keeps no other from being served.
func loadLenient(file string) (*config.Config, error) {
	cfg, err := config.LoadToServe(file)
	return cfg, usage(err)
}

// builds reports what is wrong with all that cfg names.
func builds(ctx context.Context, cfg *config.Config) error {
	a, err := control.Build(ctx, &cfg.Spec)
	if err != nil {
		return usage(err)
	}
	return a.Close()
}

// serve runs the gateway until it is told to stop. Ready is called once when it serves.
func serve(ctx context.Context, cfg *config.Config, stdout, stderr io.Writer, ready func()) error {
	stop, force, release := stopSignals(ctx)
	defer release()
	hangups := make(chan os.Signal, 1) // taken from the first moment to the last: unheard, one would end the program
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	log := newLogger(cfg.Log, stderr)
	slog.SetDefault(log) // for what libraries say by themselves, as net/http of backends that talk unasked
	version, _ := buildVersion()
	metrics := observe.NewMetrics(version)
	faults := &contain.Faults{Log: log, Count: metrics.Panicked}
	accessLog, err := openAccessLog(cfg.Log, stdout, metrics, log)
	if err != nil { // of the file that it goes to
		return control.Problems{{Place: cfg.AccessPlace(), Message: err.Error() + ": " + writableAdvice}}
	}
	g := newGateway(cfg, log, metrics, accessLog)
	loop, err := openLoop(stop, cfg, g, metrics, log)
	if err != nil {
		return err
	}

	// The control side, the access log and the status listener outlive the gateway: its last calls need keys, and they
	// and its draining are to be seen.
	after, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	var outer errgroup.Group
	if cfg.Status != "" {
		listener, err := net.Listen("tcp", cfg.Status)
		if err != nil {
			return errors.Join(fmt.Errorf("status listener: %w", gateway.Advise(err)), loop.Close())
		}
		status := observe.StatusHandler(metrics, observe.Status{
			Ready: g.Ready, Broken: func() map[string]error { return broken(loop) }, Limits: loop.Limits,
			Sources: func() []string { return sourceLines(loop.Revocation()) },
			Servers: func() []string {
				return slices.Concat(serverLines(loop.InForce(), time.Now()), uselessLines(loop.InForce(), time.Now()))
			},
		})
		server := &http.Server{Handler: status, ReadHeaderTimeout: 5 * time.Second}
		outer.Go(func() error {
			return faults.Do("the status listener", func() error { return serveUntil(after, server, listener) })
		})
	}
	if accessLog != nil {
		outer.Go(func() error {
			return faults.Do("the access log", func() error { return accessLog.log.Run(after) })
		})
	}
	outer.Go(func() error {
		return faults.Do("the control side", func() error { return loop.Run(after) })
	})

	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(mostGarbage))
		outer.Go(func() error {
			return faults.Again("the collector's pace", after.Done(), func() error { return paceCollector(after, collectorInterval) })
		})
	}
	inner, innerCtx := errgroup.WithContext(stop)
	inner.Go(func() error {
		return faults.Again("the handling of SIGHUP", innerCtx.Done(), func() error {
			return reloadWhenAsked(innerCtx, hangups, loop, accessLog, log, faults)
		})
	})
	inner.Go(func() error {
		return faults.Again("stopping at once", after.Done(), func() error { return abortWhenForced(after, force, g, log) })
	})
	if ready != nil {
		ready()
	}
	log.Info("serving", "config", cfg.Place.File)
	inner.Go(func() error {
		return faults.Do("the gateway", func() error {
			defer done()
			return g.Run(innerCtx)
		})
	})
	err = inner.Wait()
	done()
	err = errors.Join(err, outer.Wait())
	log.Info("stopped")
	return err
}

func newGateway(cfg *config.Config, log *slog.Logger, metrics *observe.Metrics, access *accessLog) *gateway.Gateway {
	limits := cfg.Limits
	limits.Connections = affordable(limits.Connections, descriptorLimit())
	if limits.Connections < cfg.Limits.Connections {
		level := slog.LevelWarn
		if cfg.Limits.Connections == config.DefaultConnections {
			level = slog.LevelInfo // nobody asked for more
		}
		log.Log(context.Background(), level, "fewer connections than limits.connections are accepted, "+
			"since the system allows too few open files (ulimit -n)", "allowed", cfg.Limits.Connections, "accepted",
			limits.Connections)
	}
	g := gateway.New(gateway.Options{
		Log: log, LameDuck: cfg.LameDuckTimeout, DrainTimeout: max(cfg.DrainTimeout, time.Nanosecond), // its zero would be the default
		Observe: func(x *decision.Exchange) {
			metrics.Observe(x, x.Took)
			if access != nil {
				access.log.Observe(x, x.Took)
			}
		},
		Panicked:    metrics.Panicked,
		Connections: metrics.ConnectionRefused,
		Handshakes:  metrics.HandshakeRefused,
		Evictions:   metrics.ConnectionEvicted,
		Limits:      limits,
	})
	metrics.WatchConnections(g.OpenConnections, g.Handshakes)
	metrics.WatchUse(g.Upstreams, g.Uses)
	return g
}

func openLoop(
	ctx context.Context, cfg *config.Config, g *gateway.Gateway, metrics *observe.Metrics, log *slog.Logger,
) (*control.Loop, error) {
	loop, err := control.Open(ctx, control.Options{
		Load: specs(cfg), Set: g.Set, Recheck: g.Recheck, Told: metrics.Reloaded, Panicked: metrics.Panicked, Log: log, Shown: cfg.Limits.Shown(),
		Cluster: cfg.Cluster,
	})
	if taken := (*net.OpError)(nil); errors.As(err, &taken) {
		return nil, err // of a listener: another start may find its port free
	}
	if err != nil {
		return nil, usage(err)
	}
	metrics.WatchExpiry(
		func() int { return len(loop.InForce().Clients.All()) },
		func() []observe.CertificateEnd { return clientEnds(loop.InForce()) },
		func() []observe.CertificateEnd { return serverEnds(loop.InForce()) },
		func() []observe.CertificateEnd { return allEnds(loop.InForce()) })
	metrics.WatchRenewals(func() []observe.Renewal { return renewals(loop.InForce()) })
	metrics.WatchLimits(loop.Limits)
	metrics.WatchStoreAge(loop.StoreAge)
	metrics.WatchRevocations(func() []observe.Revocation { return revocations(loop.Revocation()) })
	metrics.WatchDenials(func() int { return loop.InForce().Denied().Len() })
	metrics.WatchStores(func() map[string]int {
		counts := map[string]int{}
		for location, n := range loop.InForce().SkippedEntries() {
			counts[printable.Text(location)] = n
		}
		return counts
	})
	return loop, nil
}

// specs returns a function that loads cfg anew, and costs little while nothing has changed.
func specs(cfg *config.Config) func() (*control.Spec, error) {
	return func() (*control.Spec, error) {
		next, err := cfg.Reload()
		if err != nil {
			return nil, err
		}
		cfg = next
		return &cfg.Spec, nil
	}
}

// reloadWhenAsked reloads everything with each SIGHUP until ctx ends.
func reloadWhenAsked(
	ctx context.Context, hangups <-chan os.Signal, loop *control.Loop, access *accessLog, log *slog.Logger,
	faults *contain.Faults,
) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		log.Info("reloading, as SIGHUP asks")
		_ = faults.Do("a reload", func() error { return loop.Reload(ctx) }) // it was told
		if err := faults.Do("reopening the access log", access.reopen); err != nil {
			log.Error("the access log goes on in the old file", "error", err)
		}
	}
}

// abortWhenForced ends all calls at once when force closes, unless ctx ends before.
func abortWhenForced(ctx context.Context, force <-chan struct{}, g *gateway.Gateway, log *slog.Logger) error {
	select {
	case <-force:
		log.Warn("stopping at once")
		g.Abort()
	case <-ctx.Done():
	}
	return nil
}

// broken returns why sources could not be reloaded, by name.
func broken(loop *control.Loop) map[string]error {
	list := map[string]error{}
	for _, s := range loop.State() {
		if s.Broken != nil {
			list[s.Name] = s.Broken
		}
	}
	return list
}

// clientEnds tells when registered certificates end.
func clientEnds(a *control.Assembly) (ends []observe.CertificateEnd) {
	clients := a.Clients.ByEnd()
	for _, r := range clients[:min(len(clients), observe.MaxEnds)] {
		labels := []string{r.API.String(), printable.Text(r.Alias), string(r.KeyType)}
		ends = append(ends, observe.CertificateEnd{Labels: labels, NotAfter: r.Certificate.NotAfter})
	}
	return ends
}

// serverEnds tells when each server certificate ends.
func serverEnds(a *control.Assembly) (ends []observe.CertificateEnd) {
	for _, l := range a.Listeners() {
		if l.Profiles == nil {
			continue
		}
		for _, p := range l.Profiles.Profiles() {
			for _, leaf := range p.Leafs {
				labels := []string{l.Name, p.Name, leaf.PublicKeyAlgorithm.String()}
				ends = append(ends, observe.CertificateEnd{Labels: labels, NotAfter: leaf.NotAfter})
			}
		}
	}
	return ends
}

// serverLines tell what each profile serves, those that end first at first.
func serverLines(a *control.Assembly, now time.Time) (lines []string) {
	servers := a.Servers(now)
	slices.SortStableFunc(servers, func(x, y control.Server) int { return x.End().Compare(y.End()) })
	for _, s := range servers {
		lines = append(lines, s.Lines(now)...)
	}
	return lines
}

// uselessLines tell what of trust stores and of other stores is of no use: entries that have expired, and those that
// can't be read.
func uselessLines(a *control.Assembly, now time.Time) (lines []string) {
	for _, c := range a.Certificates(now, 0) {
		trusted := c.Kind == control.KindTrustStore || c.Kind == control.KindBalancer
		if trusted && c.NotAfter.Before(now) {
			lines = append(lines, fmt.Sprintf("certificate of a trust store: %s: expired on %s, and vouches for nobody",
				printable.Text(c.Name()), c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	skipped := a.SkippedEntries()
	for _, location := range slices.Sorted(maps.Keys(skipped)) {
		if n := skipped[location]; n > 0 {
			lines = append(lines, fmt.Sprintf("certificate of a store: %s: entries that can't be used are skipped, and the log names them: %d",
				printable.Text(location), n))
		}
	}
	return lines
}

// renewals tell how it stands with the server certificates that are renewed by themselves.
func renewals(a *control.Assembly) (list []observe.Renewal) {
	for _, s := range a.Servers(time.Now()) {
		if s.Managed() {
			list = append(list, observe.Renewal{Listener: s.Listener, Profile: s.Profile, Due: s.Renews, Trouble: s.Trouble != ""})
		}
	}
	return list
}

// allEnds tells when certificates end, of whatever kind.
func allEnds(a *control.Assembly) (ends []observe.CertificateEnd) {
	for _, c := range a.Certificates(time.Now(), observe.MaxEnds) {
		ends = append(ends, observe.CertificateEnd{Labels: []string{c.Kind, c.Name()}, NotAfter: c.NotAfter})
	}
	return ends
}

// stopSignals returns a context that ends with the first SIGTERM or SIGINT, and a channel that closes with the second.
func stopSignals(ctx context.Context) (stop context.Context, force <-chan struct{}, release func()) {
	stop, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	second := make(chan struct{})
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		defer (*contain.Faults)(nil).Catch("the handling of signals", nil)
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
		<-gone
	}
}

func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	var g errgroup.Group
	g.Go(func() error {
		return contain.Do("closing a server", func() error {
			<-ctx.Done()
			return server.Close()
		})
	})
	g.Go(func() error {
		return contain.Do("a server", func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	})
	return g.Wait()
}

// An accessLog is the log and, if it goes to a file, its name: SIGHUP opens it anew, as log rotation expects.
type accessLog struct {
	log  *observe.AccessLog
	file string
}

// openAccessLog returns nil if there is to be none. Problems with it go to log.
func openAccessLog(c config.Log, stdout io.Writer, metrics *observe.Metrics, log *slog.Logger) (*accessLog, error) {
	a, text := &accessLog{}, asText(c, stdout)
	switch c.Access {
	case "off":
		return nil, nil
	case "stdout":
		stdout = printable.Under(stdout) // observe escapes, and counts lines that were not written whole
	default:
		f, err := openLogFile(c.Access)
		if err != nil {
			return nil, err
		}
		stdout, a.file, text = f, c.Access, c.Format == "text"
	}
	a.log = observe.NewAccessLog(stdout, text, metrics, c.Fields...)
	a.log.Log = log
	return a, nil
}

func openLogFile(name string) (*os.File, error) {
	f, err := regularfile.Append(name, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access %s: %w", name, err)
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
	a.log.SetOutput(f)
	return nil
}
