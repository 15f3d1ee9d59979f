package trial

import (
	"strings"
	"testing"
	"time"

	"sallyport/bench/live"
	"sallyport/bench/load"
)

// TestRevocationsAreJudged has one connection, whose right ends at second 10 and can be known at 11, fare in different
// ways.
func TestRevocationsAreJudged(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1_000, int64(seconds*1e9)) }
	served := func(from, last float64) live.Period {
		return live.Period{Served: true, Sent: at(from), Began: at(from), LastSent: at(last), Count: 1}
	}
	refused := func(from, last float64) live.Period {
		return live.Period{Text: "status 401", Sent: at(from), Began: at(from), LastSent: at(last), Count: 1}
	}
	revoked := member{way: Removal, acted: at(10), known: at(11), last: at(11.5)}
	returns := revoked
	returns.again, returns.returned = at(20), at(21)
	kept := member{}
	reached, open := revoked, revoked
	reached.last, open.open = at(12.1), 1
	for _, test := range []struct {
		name string
		member
		past    []live.Period
		verdict string
	}{
		{"it ends in time", revoked, []live.Period{served(0, 11.5), refused(11.6, 30)}, ""},
		{"it ends before the command returns", revoked, []live.Period{served(0, 9.9), refused(10.1, 30)}, ""},
		{"it ends too early", revoked, []live.Period{served(0, 9), refused(9.5, 30)}, "1 errors"},
		{"it ends too late", revoked, []live.Period{served(0, 11.9), refused(12.1, 30)}, "1 of 2 connections were late"},
		{"it never ends", revoked, []live.Period{served(0, 30)}, "1 of 2 connections were late"},
		{"it is served afterwards", revoked, []live.Period{served(0, 11), refused(11.1, 13), served(13.1, 14), refused(14.1, 30)}, "late"},
		{"the backend hears of it afterwards", reached, []live.Period{served(0, 11.5), refused(11.6, 30)}, "reached the backend"},
		{"its stream stays open", open, []live.Period{served(0, 11.5), refused(11.6, 30)}, "reached the backend"},
		{"it comes back", returns, []live.Period{served(0, 11), refused(11.1, 21), served(21.1, 30)}, ""},
		{"it comes back too early", returns, []live.Period{served(0, 11), refused(11.1, 12), served(12.1, 30)}, "late"},
		{"it comes back too late", returns, []live.Period{served(0, 11), refused(11.1, 22), served(22.1, 30)}, "late"},
		{"it doesn't come back", returns, []live.Period{served(0, 11), refused(11.1, 30)}, "late"},
		{"it comes back and fails", returns, []live.Period{served(0, 11), refused(11.1, 21), served(21.1, 22), refused(22.1, 30)}, "1 errors"},
		{"its right stays", kept, []live.Period{served(0, 30)}, ""},
		{"its right stays and a call fails", kept, []live.Period{served(0, 11), refused(11.1, 11.1), served(11.2, 30)}, "1 errors"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := &revoking{RevokeOptions: RevokeOptions{Limit: time.Second}, acts: []act{{Removal, at(10)}, {AddedAgain, at(20)}}}
			other := member{way: Removal, acted: at(10), known: at(11), again: at(20), returned: at(21)} // so that each change has a connection
			other.fates = []fate{{Carrier: live.KeepAlive, past: []live.Period{served(0, 11), refused(11.1, 21), served(21.1, 30)}}}
			test.fates = []fate{{Carrier: live.KeepAlive, past: test.past}}
			v.members = []*member{&test.member, &other}
			err := v.judge().Verdict()
			if test.verdict == "" && err != nil || test.verdict != "" && (err == nil || !strings.Contains(err.Error(), test.verdict)) {
				t.Errorf("the verdict is %v, want %q", err, test.verdict)
			}
		})
	}
}

// TestFailuresOfTheLoadAreJudged: one failed call of callers who keep their right is one too many, and so is none at all.
func TestFailuresOfTheLoadAreJudged(t *testing.T) {
	for verdict, s := range map[string]Steady{
		"":                                 {Name: "header", Calls: 5},
		"by header: 2 calls failed":        {Name: "header", Calls: 5, Errors: load.Errors{"status": {Count: 2, Example: "503"}}},
		"by header: 0 calls were answered": {Name: "header"},
		"by header: 90 calls were answered of 100 that": {Name: "header", Rate: 10, Took: 10 * time.Second, Calls: 90},
	} {
		err := RevokeResult{Steady: []Steady{s}}.Verdict()
		if verdict == "" && err != nil || verdict != "" && (err == nil || !strings.Contains(err.Error(), verdict)) {
			t.Errorf("the verdict is %v, want %q", err, verdict)
		}
	}
}
