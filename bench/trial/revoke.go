package trial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"sallyport/bench/live"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
)

// RevokeOptions configure a revocation. All but Load are required.
type RevokeOptions struct {
	Connections  int // kept open, in equal parts by each of live.Carriers
	Certificates int // that they are of, in turn
	Each         int // certificates that end each way; there must be more than len(Ways) times as many
	Limit        time.Duration
	Pace         time.Duration // between the calls of a connection
	Load         float64       // calls a second beside these, of callers who keep their right: see Steady; 0: none
}

// A Way is how a certificate's right ends.
type Way string

// The ways, and how what has ended by two of them comes back.
const (
	Removal      Way = "removal"
	DenyList     Way = "deny list"
	CRLFile      Way = "CRL file"
	CRLAddress   Way = "CRL address"
	OCSP         Way = "OCSP"
	CARemoval    Way = "CA removal"
	Expiry       Way = "expiry"
	AddedAgain   Way = "added again"
	DeniedNoMore Way = "denied no more"
)

// Ways are those in which rights end, in the order of a run.
var Ways = []Way{Removal, DenyList, CRLFile, CRLAddress, OCSP, CARemoval, Expiry}

// longest limits how long a change may take: three times what the gateway promises by default.
const longest = 30 * time.Second

// newConnections is how many connections a second are new ones of certificates that keep their right.
const newConnections = 20

// Revoke keeps connections of many certificates going through a gateway, ends the rights of some in each of Ways, gives
// some back, and tells how each connection fared.
func Revoke(ctx context.Context, s Setup, p peer.Program, o RevokeOptions) (RevokeResult, error) {
	v := &revoking{Setup: s, RevokeOptions: o}
	err := v.open(ctx, p)
	if err == nil {
		err = v.drive(ctx)
	}
	if err == nil {
		v.result = v.judge()
	}
	return v.result, errors.Join(err, v.close())
}

// A member is a certificate and what becomes of it.
type member struct {
	live.Client
	way  Way // empty: it keeps its right
	list []*live.Connection

	fates []fate // of the list, in the end

	acted, known    time.Time // its right ends: from when on it may, and when the gateway can know
	again, returned time.Time // its right comes back, likewise; zero: it doesn't
	last            time.Time // when a call of it last reached the backend, before it came back
	open            int64     // streams at the backend then
}

// revoking is a gateway with a backend, a publisher of revocations, and the members of a crowd.
type revoking struct {
	Setup
	RevokeOptions
	pki       *pki.Set
	authority map[Way]*pki.Authority // CAs of the certificates that end so
	publisher *publisher
	backend   *live.Backend
	stop      context.CancelFunc // ends the backend
	stopped   chan error
	address   string // of the backend
	gateway   *peer.Gateway
	members   []*member
	crowds    []*live.Crowd
	steady    *steadyLoad // nil: it has not begun
	acts      []act
	stalled   time.Duration
	parts     []Steady
	result    RevokeResult
}

// An act is the time of a way, for telling in which of them an error fell.
type act struct {
	way   Way
	began time.Time
}

// open starts all of it; close must be called even after an error.
func (v *revoking) open(ctx context.Context, p peer.Program) (err error) {
	v.Progress.Pass("starting the gateway with %d certificates", v.Certificates)
	folder := filepath.Join(v.Folder, p.Name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if v.pki, err = pki.Make(folder, 0); err != nil {
		return err
	}
	v.authority = map[Way]*pki.Authority{}
	for _, way := range []Way{Removal, CRLFile, CRLAddress, OCSP, CARemoval} {
		if v.authority[way], err = v.pki.NewAuthority("sallybench CA of " + string(way)); err != nil {
			return err
		}
	}
	v.authority[DenyList], v.authority[Expiry] = v.authority[Removal], v.authority[Removal]
	if v.publisher, err = publish(v.authority[CRLAddress], v.authority[OCSP]); err != nil {
		return err
	}
	lists := []string{v.publisher.List}
	for _, way := range []Way{Removal, CRLFile, CARemoval} {
		if err := v.writeList(way, 1, nil); err != nil {
			return err
		}
		lists = append(lists, v.listFile(way))
	}
	if err := errors.Join(v.makeMembers(), v.writeTrust(true), v.startBackend()); err != nil {
		return err
	}
	addresses, err := peer.Addresses(3)
	if err != nil {
		return err
	}
	site := peer.Site{
		Folder:     filepath.Join(folder, "gateway"),
		PKI:        v.pki,
		Backend:    v.address,
		HTTPS:      addresses[0],
		HTTP:       addresses[1],
		Status:     addresses[2],
		Workers:    max(1, v.Workers),
		TrustStore: v.trustFile(),
		CRLs:       lists,
	}
	if err = p.Configure(site); err == nil {
		v.gateway, err = p.Start(ctx, site, v.GatewayCores)
	}
	return err
}

func (v *revoking) startBackend() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	v.address = listener.Addr().String()
	v.backend, v.stopped = &live.Backend{}, make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	go func() { v.stopped <- v.backend.Run(ctx, listener) }() // close waits for it
	return nil
}

// close ends what open and drive have started.
func (v *revoking) close() error {
	var list []error
	for _, crowd := range v.crowds {
		crowd.Close()
	}
	if v.steady != nil {
		v.steady.end() // whose error drive has returned
	}
	if v.gateway != nil {
		list = append(list, v.gateway.Stop())
	}
	if v.stop != nil {
		v.stop()
		list = append(list, <-v.stopped)
	}
	if v.publisher != nil {
		list = append(list, v.publisher.close())
	}
	return errors.Join(list...)
}

// makeMembers issues all certificates but those that expire. Those that are removed are not in the configuration.
func (v *revoking) makeMembers() error {
	for _, way := range Ways {
		for i := range v.Each {
			name := pki.Name(len(v.pki.Identities))
			switch way {
			case Expiry:
				continue
			case Removal:
				name = fmt.Sprintf("removed-%04d", i)
			}
			if err := v.makeMember(name, way, way, nil); err != nil {
				return err
			}
		}
	}
	// Those that keep their right have the same issuers as those that lose it.
	issuers := []Way{Removal, CRLFile, CRLAddress, OCSP}
	for i := range v.Certificates - len(Ways)*v.Each {
		if err := v.makeMember(pki.Name(len(v.pki.Identities)), "", issuers[i%len(issuers)], nil); err != nil {
			return err
		}
	}
	return nil
}

func (v *revoking) makeMember(name string, way, issuer Way, change func(*x509.Certificate)) error {
	if issuer == OCSP {
		change = func(c *x509.Certificate) { c.OCSPServer = []string{v.publisher.Responder} }
	}
	identity, err := v.authority[issuer].NewClient(name, change)
	if err != nil {
		return err
	}
	v.members = append(v.members, &member{Client: live.Client{Name: name, Identity: identity}, way: way})
	if way != Removal && way != Expiry {
		v.pki.Identities = append(v.pki.Identities, identity)
	}
	return nil
}

func (v *revoking) listFile(way Way) string {
	names := map[Way]string{Removal: "others.crl", CRLFile: "file.crl", CARemoval: "leaving.crl"}
	return filepath.Join(v.pki.Folder, names[way])
}

func (v *revoking) writeList(way Way, number int64, revoked []*x509.Certificate) error {
	text, err := v.authority[way].CRL(number, revoked)
	if err != nil {
		return err
	}
	return replace(v.listFile(way), text)
}

func (v *revoking) trustFile() string { return filepath.Join(v.pki.Folder, "trusted.crt") }

// writeTrust writes the trust store, with the CA that is taken out or without.
func (v *revoking) writeTrust(all bool) error {
	var text []byte
	for _, way := range []Way{Removal, CRLFile, CRLAddress, OCSP, CARemoval} {
		if way != CARemoval || all {
			text = append(text, v.authority[way].PEM()...)
		}
	}
	return replace(v.trustFile(), text)
}

func (v *revoking) register(ctx context.Context, m *member) error {
	return command(ctx, v.gateway, "cert", "add", "--api", peer.API, "--alias", m.Name, "--tier", peer.Tier, v.file(m))
}

// registerAll registers members, and waits until they are admitted.
func (v *revoking) registerAll(ctx context.Context, members []*member) error {
	for _, m := range members {
		if err := v.register(ctx, m); err != nil {
			return err
		}
	}
	for _, m := range members {
		c := m.Client
		c.Carrier = live.KeepAlive
		var refused error
		if err := await(ctx, m.Name+" is admitted", longest, func() (bool, error) {
			var crowd *live.Crowd
			crowd, refused = live.Open(ctx, v.config(), []live.Client{c})
			crowd.Close()
			return refused == nil, nil
		}); err != nil {
			return errors.Join(err, refused)
		}
	}
	return nil
}

func (v *revoking) file(m *member) string {
	return filepath.Join(v.pki.Folder, "clients", m.Name+".crt")
}

// of returns the members that end in a way.
func (v *revoking) of(way Way) (list []*member) {
	for _, m := range v.members {
		if m.way == way {
			list = append(list, m)
		}
	}
	return list
}

func certificates(members []*member) (list []*x509.Certificate) {
	for _, m := range members {
		list = append(list, m.Identity.Leaf)
	}
	return list
}

// drive opens all connections and ends rights.
func (v *revoking) drive(ctx context.Context) error {
	if err := v.registerAll(ctx, v.of(Removal)); err != nil {
		return err
	}
	if err := v.openCrowds(ctx); err != nil {
		return err
	}
	var err error
	if v.steady, err = v.startSteady(ctx); err != nil {
		return err
	}
	stalls := watchStalls()
	defer stalls.stop()
	for _, way := range Ways {
		v.Progress.Pass("%d connections: %s of %d certificates", v.Connections, way, v.Each)
		v.acts = append(v.acts, act{way, time.Now()})
		if err := v.end(ctx, way); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		if err := v.await(ctx, v.of(way), func(m *member) time.Time { return m.known }, ended); err != nil {
			return err
		}
	}
	// What has ended stays so, which shows while everybody tries again.
	if !pause(ctx, max(10*v.Pace, 2*reopened)) {
		return ctx.Err()
	}
	for _, m := range v.members {
		traffic := v.backend.Of(m.Name)
		m.last, m.open = time.Unix(0, traffic.Last.Load()), traffic.Open.Load()
	}
	for _, way := range []Way{Removal, DenyList} {
		back := backBy[way]
		v.Progress.Pass("%d connections: %d certificates %s", v.Connections, v.Each, back)
		v.acts = append(v.acts, act{back, time.Now()})
		if err := v.giveBack(ctx, way); err != nil {
			return fmt.Errorf("%s: %w", back, err)
		}
		if err := v.await(ctx, v.of(way), func(m *member) time.Time { return m.returned }, isBack); err != nil {
			return err
		}
	}
	if !pause(ctx, 10*v.Pace) {
		return ctx.Err()
	}
	v.stalled = stalls.stop()
	if v.parts, err = v.steady.end(); err != nil {
		return err
	}
	for _, crowd := range v.crowds {
		crowd.Close()
	}
	for _, m := range v.members {
		for _, c := range m.list {
			m.fates = append(m.fates, fate{c.Carrier, c.Periods(), c.Slowest()})
		}
	}
	return nil
}

// reopened is how long after its end a connection is opened again, at most: long enough for their
// handshakes to be a small part of the load.
const reopened = 4 * time.Second

func (v *revoking) config() live.Config {
	return live.Config{
		Address: v.gateway.HTTPS,
		Path:    "/bench",
		TLS:     &tls.Config{RootCAs: v.pki.Roots, CurvePreferences: []tls.CurveID{tls.X25519}},
		Pace:    v.Pace,
		Again:   reopened,
	}
}

// openCrowds opens the connections, those of certificates that expire last.
func (v *revoking) openCrowds(ctx context.Context) error {
	v.Progress.Pass("opening %d connections", v.Connections)
	if err := v.openCrowd(ctx, v.members, 0); err != nil {
		return err
	}
	kept := v.of("")
	for _, m := range kept {
		c := m.Client
		c.Carrier, c.Pace = live.Fresh, time.Duration(len(kept))*time.Second/newConnections
		crowd, err := live.Open(ctx, v.config(), []live.Client{c})
		v.crowds = append(v.crowds, crowd)
		if err != nil {
			return err
		}
		m.list = append(m.list, crowd.Connections...)
	}
	return v.openExpiring(ctx)
}

// openCrowd opens the connections of members, of which the first is the nth of all.
func (v *revoking) openCrowd(ctx context.Context, members []*member, nth int) error {
	var clients []live.Client
	var owners []*member
	for i := range v.Connections {
		turn := i%v.Certificates - nth
		if turn < 0 || turn >= len(members) {
			continue
		}
		c := members[turn].Client
		c.Carrier = live.Carriers[(i/v.Certificates+turn)%len(live.Carriers)]
		clients, owners = append(clients, c), append(owners, members[turn])
	}
	crowd, err := live.Open(ctx, v.config(), clients)
	if err != nil {
		crowd.Close()
		return err
	}
	v.crowds = append(v.crowds, crowd)
	for i, c := range crowd.Connections {
		owners[i].list = append(owners[i].list, c)
	}
	return nil
}

// openExpiring issues the certificates that expire, with as much time as opening their connections took the others,
// and some more.
func (v *revoking) openExpiring(ctx context.Context) error {
	v.Progress.Pass("opening connections of certificates that expire")
	end := time.Now().Add(expiring + time.Duration(v.Each)*time.Second/2).Truncate(time.Second)
	before := len(v.members)
	for i := range v.Each {
		if err := v.makeMember(fmt.Sprintf("expiring-%04d", i), Expiry, Expiry, func(c *x509.Certificate) {
			c.NotAfter = end
		}); err != nil {
			return err
		}
	}
	for _, m := range v.members[before:] {
		m.acted, m.known = end, end
	}
	err := v.registerAll(ctx, v.members[before:])
	if err == nil {
		err = v.openCrowd(ctx, v.members[before:], before)
	}
	if !time.Now().Before(end) {
		return errors.Join(errors.New("certificates expired before their connections were open: the machine is too busy"), err)
	}
	return err
}

// expiring is for how long certificates that expire are valid, at least.
const expiring = 15 * time.Second
