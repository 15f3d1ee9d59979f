package acme

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"sallyport/listenerprofiles/challenge"
)

// answers has the CA's validations answered, on this node and on those that share its storage.
type answers struct {
	storage certmagic.Storage
	book    *challenge.Book
	log     *slog.Logger
}

// A keptAnswer is what the nodes that share a storage answer to a validation.
type keptAnswer struct {
	Type             string    `json:"type"`
	Name             string    `json:"name"`
	Token            string    `json:"token"`
	KeyAuthorization string    `json:"keyAuthorization"`
	At               time.Time `json:"at"`
}

// answer returns it as the data side gives it.
func (k keptAnswer) answer() (challenge.Answer, error) {
	if k.Type == acme.ChallengeTypeHTTP01 {
		return challenge.Answer{Name: k.Name, Token: k.Token, KeyAuthorization: k.KeyAuthorization}, nil
	}
	c := acme.Challenge{
		Type: k.Type, Token: k.Token, KeyAuthorization: k.KeyAuthorization, Identifier: acme.Identifier{Type: "dns", Value: k.Name},
	}
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	return challenge.Answer{Name: k.Name, Certificate: cert}, err
}

// open has a validation answered until close is called.
func (a answers) open(ctx context.Context, c acme.Challenge) (close func(), err error) {
	kept := keptAnswer{c.Type, c.Identifier.Value, c.Token, c.KeyAuthorization, time.Now()}
	answer, err := kept.answer()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(kept.Type + " " + kept.Name + " " + kept.Token)) // together they may be too long for a file
	key := challengesAt + hex.EncodeToString(sum[:])
	if err := keep(ctx, a.storage, key, kept); err != nil {
		return nil, err
	}
	a.book.Open(answer)
	return func() {
		a.book.Close(answer)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storageTime)
		defer cancel()
		if err := forget(ctx, a.storage, key); err != nil {
			a.log.Warn("an answer to the CA stays in the storage", "error", err)
		}
	}, nil
}

// answerLife is how long an answer is given that nobody has taken out: its process was killed.
const answerLife = time.Hour

// A reader reads what other nodes have opened. It makes the certificate of an answer once.
type reader struct {
	mu    sync.Mutex
	known map[string]seen // by key
}

// A seen answer is one that was read.
type seen struct {
	challenge.Answer
	at time.Time
}

// read returns what is pending in a storage, the newest first: what a killed process has left there is not asked for.
func (r *reader) read(ctx context.Context, s certmagic.Storage) ([]challenge.Answer, error) {
	keys, err := children(ctx, s, challengesAt)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]seen{}
	for _, key := range keys {
		one, ok := r.known[key]
		if !ok {
			var kept keptAnswer
			if found, err := load(ctx, s, key, &kept); err != nil || !found || time.Since(kept.At) > answerLife {
				continue
			}
			kept.Name = strings.ToLower(kept.Name)
			answer, err := kept.answer()
			if err != nil {
				continue
			}
			one = seen{answer, kept.At}
		}
		known[key] = one
	}
	r.known = known
	var list []challenge.Answer
	for _, one := range slices.SortedFunc(maps.Values(known), func(a, b seen) int { return b.at.Compare(a.at) }) {
		list = append(list, one.Answer)
	}
	return list, nil
}

// sweep removes answers that nobody has taken out, those too that were written in part.
func sweep(ctx context.Context, s certmagic.Storage) error {
	keys, err := children(ctx, s, challengesAt)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if info, err := s.Stat(ctx, key); err == nil && time.Since(info.Modified) > answerLife {
			if err := forget(ctx, s, key); err != nil {
				return err
			}
		}
	}
	return nil
}
