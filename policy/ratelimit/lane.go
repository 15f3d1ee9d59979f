package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A lane carries the exchanges of the buckets in some hash slots, many in one round trip, and one round trip at a time:
// while it is under way, the next questions gather. It also finds out whether Redis can be used.
type lane struct {
	shared *shared
	tag    string        // of the key that says which nodes are there
	wake   chan struct{} // holds a token while something is queued
	down   atomic.Bool   // Redis can't be used; changes under mu
	nodes  atomic.Int64  // that are there, by the last two signs of life; changes under mu

	mu    sync.Mutex
	seen  int64 // nodes, by the last one
	queue []*leased
	err   error     // why it is down
	since time.Time // when down changed last
	pause time.Duration
}

// The pace of a lane.
const (
	mostAtOnce   = 128             // questions in a round trip
	beatInterval = 2 * time.Second // between two signs of life
	seenWithin   = 5 * beatInterval
	firstRetry   = 50 * time.Millisecond
	lastRetry    = time.Second
)

var errNotTried = errors.New("not connected yet")

func newLane(s *shared, tag string) *lane {
	n := &lane{shared: s, tag: tag, wake: make(chan struct{}, 1), err: errNotTried, since: time.Now(), pause: firstRetry}
	n.down.Store(true)
	return n
}

func (n *lane) up() bool { return !n.down.Load() }

func (n *lane) state() (since time.Time, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.since, n.err
}

// enqueue has l's question sent; false if Redis can't be used.
func (n *lane) enqueue(l *leased) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down.Load() {
		return false
	}
	n.queue = append(n.queue, l)
	n.rouse()
	return true
}

func (n *lane) rouse() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take takes questions from the queue.
func (n *lane) take() []*leased {
	n.mu.Lock()
	defer n.mu.Unlock()
	some := min(len(n.queue), mostAtOnce)
	batch := n.queue[:some:some]
	if n.queue = n.queue[some:]; len(n.queue) > 0 {
		n.rouse()
	}
	return batch
}

// run carries exchanges until ctx ends.
func (n *lane) run(ctx context.Context) error {
	beat := time.NewTimer(n.untilBeat())
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			n.beat(ctx)
			beat.Reset(n.untilBeat())
		case <-n.wake:
			n.exchange(ctx, n.take(), false)
			if n.down.Load() {
				beat.Reset(n.untilBeat())
			}
		}
	}
}

// untilBeat is when to look again whether Redis can be used.
func (n *lane) untilBeat() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down.Load() {
		return n.pause
	}
	return beatInterval
}

// beat finds out whether Redis can be used: whether it takes a write and answers in the time that a call would wait.
func (n *lane) beat(ctx context.Context) {
	patience := n.shared.Timeout
	if n.down.Load() {
		patience += dialPatience // for a new connection
	}
	took, err := n.presentWithin(ctx, patience)
	if err == nil && took > n.shared.Timeout { // with a connection that is there now
		took, err = n.presentWithin(ctx, patience)
	}
	if err == nil && took > n.shared.Timeout {
		err = fmt.Errorf("it answers after %v, and a call waits for %v", took.Round(time.Millisecond), n.shared.Timeout)
	}
	switch {
	case err == nil:
		n.recover()
	case ctx.Err() == nil:
		n.fail(err)
	}
}

// recover notes that Redis can be used.
func (n *lane) recover() {
	n.mu.Lock()
	was := n.err
	n.err, n.pause = nil, firstRetry
	if was != nil {
		n.since = time.Now()
	}
	n.down.Store(false)
	n.mu.Unlock()
	if was != nil {
		n.shared.Told(nil)
		n.shared.settle(n)
	}
}

// fail notes that Redis can't be used: until it can, nobody waits for it.
func (n *lane) fail(err error) {
	n.mu.Lock()
	was := n.err
	n.err = err
	if was == nil || errors.Is(was, errNotTried) {
		n.since = time.Now()
	} else {
		n.pause = min(2*n.pause, lastRetry)
	}
	n.down.Store(true)
	left := n.queue
	n.queue = nil
	n.mu.Unlock()
	if was == nil || cause(was) != cause(err) {
		n.shared.Told(err)
	}
	now := n.shared.now()
	for _, l := range left {
		l.take(&question{}, answer{}, err, now)
	}
}

// cause is an error without the connection that had it, which differs each time.
func cause(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}

// Answers that make a connection useless.
var (
	errMixedUp = errors.New("an answer belongs to another question: the connections are closed")
	errStrange = errors.New("an answer is none of the script's")
)

// failsAll reports whether an error is about Redis as a whole and not about one bucket, whose key may hold something
// else.
func failsAll(err error) bool {
	var said redis.Error
	if !errors.As(err, &said) {
		return true
	}
	word, _, _ := strings.Cut(said.Error(), " ")
	return word != "WRONGTYPE" && word != "ERR"
}

// exchange asks the questions of a batch.
func (n *lane) exchange(ctx context.Context, batch []*leased, stopping bool) {
	if len(batch) == 0 {
		return
	}
	s := n.shared
	questions := make([]question, len(batch))
	for i, l := range batch {
		questions[i] = l.ask(s.now(), stopping)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	answers, errs := n.send(ctx, questions)
	s.figures.Exchanges.Add(int64(len(batch)))
	now := s.now()
	var failed error
	for i := range questions {
		if errs[i] != nil && (failed == nil || errors.Is(errs[i], errMixedUp)) && failsAll(errs[i]) {
			failed = errs[i]
		}
	}
	if failed != nil {
		if errors.Is(failed, errMixedUp) || errors.Is(failed, errStrange) {
			if err := s.connect(); err != nil {
				failed = errors.Join(failed, err)
			}
		}
		n.fail(failed) // before those that wait look again
	}
	for i := range questions {
		questions[i].of.take(&questions[i], answers[i], errs[i], now)
	}
}

// send has the scripts run in one round trip, and in another one those that Redis didn't have.
func (n *lane) send(ctx context.Context, questions []question) (answers []answer, errs []error) {
	s := n.shared
	client := s.client.Load()
	pipe := client.Pipeline()
	replies := make([]*redis.Cmd, len(questions))
	for i := range questions {
		l := questions[i].of
		replies[i] = pipe.EvalSha(ctx, s.scripts[l.kind].command, l.keys, s.timed(questions[i].args)...)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	again := client.Pipeline()
	for i := range questions {
		if l := questions[i].of; redis.HasErrorPrefix(replies[i].Err(), "NOSCRIPT") {
			replies[i] = again.Eval(ctx, s.scripts[l.kind].source, l.keys, s.timed(questions[i].args)...)
		}
	}
	if again.Len() > 0 {
		_, _ = again.Exec(ctx)
	}
	answers, errs = make([]answer, len(questions)), make([]error, len(questions))
	for i := range questions {
		answers[i], errs[i] = questions[i].read(replies[i])
	}
	return answers, errs
}

// timed adds a test's time to the arguments.
func (s *shared) timed(args []any) []any {
	if s.redisTime == nil {
		return args
	}
	return append(args[:len(args):len(args)], s.redisTime().UnixMicro())
}

// read reads the reply to q. An answer to another question is an error, whoever mixed them up: it never counts.
func (q *question) read(reply *redis.Cmd) (a answer, err error) {
	list, err := reply.Slice()
	if err != nil {
		if errors.Is(err, redis.Nil) || strings.Contains(err.Error(), "unexpected type") {
			err = errStrange
		}
		return a, err
	}
	tokens := q.of.kind == sharedTokens
	if len(list) != 5 && tokens || len(list) != 8 && !tokens {
		return a, errStrange
	}
	if list[0] != any(q.echo) {
		return a, errMixedUp
	}
	status, ok1 := list[1].(int64)
	granted, ok2 := list[2].(int64)
	text, ok3 := list[3].(string)
	if a.have, err = strconv.ParseFloat(text, 64); err != nil || !ok1 || !ok2 || !ok3 || status < 0 || status > 2 ||
		granted < 0 || granted > int64(q.need+q.want) {
		return answer{}, errStrange
	}
	a.status, a.granted = int(status), int(granted)
	if tokens {
		return a, nil
	}
	var numbers [4]int64
	for i := range numbers {
		text, ok := list[4+i].(string)
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil || !ok {
			return answer{}, errStrange
		}
	}
	a.until, a.window = time.Duration(numbers[0])*time.Microsecond, time.Duration(numbers[2])*time.Microsecond
	a.start, a.spent = time.Unix(numbers[1], 0), int(numbers[3])
	return a, nil
}

func (n *lane) presentWithin(ctx context.Context, patience time.Duration) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.present(ctx, true)
}

// present says that this node is there, or goes, and counts those that are.
func (n *lane) present(ctx context.Context, here bool) (took time.Duration, err error) {
	s := n.shared
	seen := seenWithin.Microseconds()
	if !here {
		seen = -seen
	}
	echo := s.echo()
	script, keys := &s.scripts[presence], []string{s.keyOf(n.tag, s.scripts[presence].suffix)}
	args := s.timed([]any{echo, s.node, seen})
	client := s.client.Load()
	began := time.Now()
	reply := client.EvalSha(ctx, script.command, keys, args...)
	if redis.HasErrorPrefix(reply.Err(), "NOSCRIPT") {
		began = time.Now()
		reply = client.Eval(ctx, script.source, keys, args...)
	}
	took = time.Since(began)
	list, err := reply.Slice()
	if err != nil {
		return took, err
	}
	if len(list) != 2 || list[0] != any(echo) {
		return took, errors.Join(errMixedUp, s.connect())
	}
	if count, ok := list[1].(int64); ok {
		n.saw(count)
	}
	return took, nil
}

// saw notes how many nodes are there. Fewer than before are believed when they are seen twice: to the first that comes
// back to a Redis that lost its data, or that was away, the others are not there yet.
func (n *lane) saw(count int64) {
	n.mu.Lock()
	n.nodes.Store(max(count, n.seen))
	n.seen = count
	n.mu.Unlock()
	all := int64(1)
	for _, lane := range n.shared.lanes {
		all = max(all, lane.nodes.Load())
	}
	n.shared.count.Store(all)
}
