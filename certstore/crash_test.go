package certstore_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sallyport/certstore"
)

const (
	// writerFile makes the test binary a writer that works on the file named until it is killed.
	writerFile = "SALLYPORT_TEST_WRITER"
	// crashRounds is how often TestKilledWriter kills one; 200 for a thorough run.
	crashRounds = "SALLYPORT_CRASH_ROUNDS"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writerFile); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

// step is the i-th change to a store that the certificates are written to and how it changes the model: tiers by alias.
func step(ctx context.Context, i int, certs []*x509.Certificate, s *certstore.Store, model map[string]string) error {
	const aliases = 7
	n := i % aliases
	alias, tier := fmt.Sprint("alias", n), fmt.Sprint("tier", i)
	_, there := model[alias]
	switch {
	case !there:
		model[alias] = tier
		if s != nil {
			return s.Add(ctx, certstore.Client{API: orders, Alias: alias, KeyType: certstore.Production, Tier: tier, Certificate: certs[n]})
		}
	case (i/aliases)%3 == 0:
		delete(model, alias)
		if s != nil {
			return s.Remove(ctx, orders, certstore.Production, alias)
		}
	default:
		model[alias] = tier
		if s != nil {
			return s.Update(ctx, orders, certstore.Production, alias, nil, tier, nil)
		}
	}
	return nil
}

// writeUntilKilled goes on where the last writer ended and prints the number of each step that is done.
func writeUntilKilled(path string) error {
	var certs []*x509.Certificate
	data, err := os.ReadFile(path + ".pem")
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
	start, err := strconv.Atoi(os.Getenv(writerFile + "_START"))
	if err != nil {
		return err
	}
	model := make(map[string]string)
	for i := range start {
		_ = step(context.Background(), i, certs, nil, model)
	}
	s, err := certstore.Open(context.Background(), "sqlite:"+path, certstore.Options{})
	if err != nil {
		return err
	}
	for i := start; ; i++ {
		if err := step(context.Background(), i, certs, s, model); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if _, err := fmt.Println(i); err != nil {
			return err
		}
	}
}

// TestKilledWriter kills a writer again and again: every change that it acknowledged must be there, and at most one more.
func TestKilledWriter(t *testing.T) {
	rounds := 15
	if s := os.Getenv(crashRounds); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	path := newFile(t)
	var certs []byte
	for range 7 {
		certs = append(certs, toPEM(validCertificate(t))...)
	}
	if err := os.WriteFile(path+".pem", certs, 0o600); err != nil {
		t.Fatal(err)
	}
	done := 0 // steps that are in the store
	for round := range rounds {
		acknowledged := runAndKill(t, path, done, rand.IntN(30))
		model := make(map[string]string)
		for i := range acknowledged {
			_ = step(t.Context(), i, nil, nil, model)
		}
		next := maps.Clone(model)
		_ = step(t.Context(), acknowledged, nil, nil, next)

		got := tiers(t, path)
		switch {
		case cmp.Equal(got, model):
			done = acknowledged
		case cmp.Equal(got, next):
			done = acknowledged + 1
		default:
			t.Fatalf("round %d: %d steps were acknowledged, and the store differs from that (-want +got):\n%s", round, acknowledged, cmp.Diff(model, got))
		}
	}
	t.Logf("%d changes in %d rounds", done, rounds)
}

// runAndKill lets a writer go on from step start and kills it after some more are acknowledged. It returns how many
// steps have been acknowledged in all.
func runAndKill(t *testing.T, path string, start, more int) int {
	t.Helper()
	writer := exec.Command(os.Args[0])
	writer.Env = append(os.Environ(), writerFile+"="+path, fmt.Sprintf("%s_START=%d", writerFile, start))
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
		kill() // while it starts and opens
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

// tiers opens the store that a killed writer has left and returns what is in it, by alias.
func tiers(t *testing.T, path string) map[string]string {
	t.Helper()
	s, err := certstore.Open(t.Context(), "sqlite:"+path, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := make(map[string]string)
	for _, c := range list(t, s) {
		got[c.Alias] = c.Tier
	}
	raw := rawSQL(t, path)
	defer raw.Close()
	var integrity string
	if err := raw.QueryRow(`PRAGMA integrity_check`).Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("integrity: %q, %v", integrity, err)
	}
	return got
}
