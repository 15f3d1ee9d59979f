package quickstart

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"
)

// How long things last. The token's year is the shortest, so it is the demonstration's end.
const (
	certificateYears = 2
	authorityYears   = 10
	tokenYears       = 1
)

// fill writes a whole demonstration into an empty folder.
func fill(ctx context.Context, f *folder, ports Ports, now time.Time, register Registrar) error {
	now = now.UTC().Truncate(time.Second)
	settings, err := renderSettings(ports)
	if err != nil {
		return err
	}
	if err := f.write(fileSettings, settings); err != nil {
		return err
	}
	if err := f.write(fileProfiles, listenerProfiles); err != nil {
		return err
	}

	registrations, err := fillCertificates(f, now)
	if err != nil {
		return err
	}
	if err := fillTokens(f, now); err != nil {
		return err
	}
	if err := f.fillCurl(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}

	database := f.path(fileDatabase)
	if err := register(ctx, "sqlite:"+database, registrations); err != nil {
		return fmt.Errorf("registering the clients: %w", err)
	}
	if err := os.Chmod(database, mode(fileDatabase)); err != nil {
		return fmt.Errorf("registering the clients: %w", err)
	}

	return f.writeMarker(f.write, marker{
		Format:     markerFormat,
		Made:       now,
		Until:      now.AddDate(tokenYears, 0, 0),
		PortOffset: ports.offset(),
		Settings:   []string{digest(settings)},
	})
}

// newSecret returns 130 random bits in letters and digits, which need no escaping anywhere.
func newSecret() string { return rand.Text() }
