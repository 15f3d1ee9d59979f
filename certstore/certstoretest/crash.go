package certstoretest

import (
	"bufio"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

const (
	// writerURL makes a test binary a writer to the database at that URL, until it is killed. writerCertificates is a file
	// of PEM certificates to register, writerStart the number of the first step.
	writerURL          = "SALLYPORT_TEST_WRITER_URL"
	writerCertificates = "SALLYPORT_TEST_WRITER_CERTIFICATES"
	writerStart        = "SALLYPORT_TEST_WRITER_START"

	// crashRounds is how many writers are killed; 200 for a thorough run.
	crashRounds = "SALLYPORT_CRASH_ROUNDS"
)

const aliases = 7 // that the writers work on

// step makes the i-th change to a model, which is tiers by alias, and to a store unless that is nil. Which change that is
// follows from i and the model alone.
func step(ctx context.Context, i int, certs []*x509.Certificate, s *certstore.Store, model map[string]string) error {
	n := i % aliases
	alias, tier := fmt.Sprint("alias", n), fmt.Sprint("tier", i)
	_, there := model[alias]
	switch {
	case !there:
		model[alias] = tier
		if s != nil {
			return s.Add(ctx, certstore.Client{API: Orders, Alias: alias, KeyType: certstore.Production, Tier: tier, Certificate: certs[n]})
		}
	case (i/aliases)%3 == 0:
		delete(model, alias)
		if s != nil {
			return s.Remove(ctx, Orders, certstore.Production, alias)
		}
	default:
		model[alias] = tier
		if s != nil {
			return s.Update(ctx, Orders, certstore.Production, alias, nil, tier, nil)
		}
	}
	return nil
}

// stepsValue is the name of a value that says how many steps were made.
const stepsValue = "steps/made"

// writeUntilKilled goes on where the last writer was killed, and prints the number of each step once it is done and a value
// says so.
func writeUntilKilled(ctx context.Context, url string) error {
	var certs []*x509.Certificate
	data, err := os.ReadFile(os.Getenv(writerCertificates))
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		certs = append(certs, cert)
	}
	start, err := strconv.Atoi(os.Getenv(writerStart))
	if err != nil {
		return err
	}
	model := make(map[string]string)
	for i := range start {
		_ = step(ctx, i, certs, nil, model)
	}
	s, err := certstore.Open(ctx, url, certstore.Options{})
	if err != nil {
		return err
	}
	for i := start; ; i++ {
		if err := step(ctx, i, certs, s, model); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if err := s.PutValue(ctx, stepsValue, []byte(strconv.Itoa(i+1))); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if _, err := fmt.Println(i); err != nil {
			return err
		}
	}
}

// Rounds is how often a test kills something: short times, unless SALLYPORT_CRASH_ROUNDS says how often.
func Rounds(t *testing.T, short int) int {
	t.Helper()
	s := os.Getenv(crashRounds)
	if s == "" {
		return short
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testKilledWriters kills one writer after the other. Every change that a writer acknowledged is in the database that it
// leaves, and at most one more.
func testKilledWriters(t *testing.T, db Database) {
	if url := os.Getenv(writerURL); url != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(t.Context(), url)) // returns only with an error
		os.Exit(1)
	}
	rounds := Rounds(t, cmp.Or(db.CrashRounds, 15))
	url, certificates := db.New(t), filepath.Join(t.TempDir(), "certificates.pem")
	var certs []*x509.Certificate
	for range aliases {
		certs = append(certs, newCertificate(t))
	}
	if err := os.WriteFile(certificates, testpki.PEM(certs...), 0o600); err != nil {
		t.Fatal(err)
	}
	done := 0  // steps that are in the database
	least := 0 // steps that its value must tell of
	for round := range rounds {
		acknowledged := runAndKill(t, url, certificates, done, rand.IntN(30))
		if acknowledged > done {
			least = acknowledged
		}
		model := make(map[string]string)
		for i := range acknowledged {
			_ = step(t.Context(), i, nil, nil, model)
		}
		next := maps.Clone(model)
		_ = step(t.Context(), acknowledged, nil, nil, next)

		got, steps := tiers(t, db, url)
		if steps < least || steps > acknowledged+1 {
			t.Errorf("round %d: the value tells of %d steps, and %d were acknowledged", round, steps, least)
		}
		switch {
		case gocmp.Equal(got, model):
			done = acknowledged
		case gocmp.Equal(got, next):
			done = acknowledged + 1
		default:
			t.Fatalf("round %d: %d steps were acknowledged, and the store differs from that (-want +got):\n%s", round, acknowledged, gocmp.Diff(model, got))
		}
	}
	t.Logf("%d changes in %d rounds", done, rounds)
}

// runAndKill starts a writer at step start, and kills it once it has acknowledged more steps. It returns the number of
// steps acknowledged since the first writer.
func runAndKill(t *testing.T, url, certificates string, start, more int) int {
	t.Helper()
	writer := exec.Command(os.Args[0], "-test.run="+onlyTest(t.Name()))
	writer.Env = append(os.Environ(), writerURL+"="+url, writerCertificates+"="+certificates, fmt.Sprintf("%s=%d", writerStart, start))
	writer.Stderr = os.Stderr
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill := func() {
		if !killed {
			killed = true
			if err := writer.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	defer kill()
	if more == 0 {
		kill() // while it starts and opens the database
	}
	acknowledged := start
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() != strconv.Itoa(acknowledged) {
			t.Fatalf("expected an acknowledgement of step %d and read %q", acknowledged, lines.Text())
		}
		acknowledged++
		if acknowledged >= start+more {
			kill()
		}
	}
	if err := writer.Wait(); !killed {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return acknowledged
}

// onlyTest is a -test.run for one test.
func onlyTest(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// tiers opens the database that a killed writer has left, and returns the tiers in it by alias, and how many steps its value
// tells of.
func tiers(t *testing.T, db Database, url string) (got map[string]string, steps int) {
	t.Helper()
	s, err := certstore.Open(t.Context(), url, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// A server may be about to commit what the writer sent: this waits for it, as every change does.
	nothing := func() error {
		return s.Remove(t.Context(), certstore.API{Name: "none", Version: "1"}, certstore.Production, "none")
	}
	if err := again(nothing); !errors.Is(err, certstore.ErrNotFound) {
		t.Fatal(err)
	}
	got = make(map[string]string)
	for _, c := range List(t, s) {
		got[c.Alias] = c.Tier
	}
	v, err := s.Value(t.Context(), stepsValue)
	if errors.Is(err, fs.ErrNotExist) {
		v.Content = []byte("0")
	} else if err != nil {
		t.Fatal(err)
	}
	if steps, err = strconv.Atoi(string(v.Content)); err != nil {
		t.Errorf("the value is damaged: %v", err)
	}
	if db.Check != nil {
		db.Check(t, url)
	}
	return got, steps
}
