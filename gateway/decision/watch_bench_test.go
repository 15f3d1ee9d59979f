package decision

import (
	"testing"

	"sallyport/gateway/http1"
	"sallyport/policy"
)

// BenchmarkStreams is what a short call with an answer of unknown length pays for being watched, by what let it in.
func BenchmarkStreams(b *testing.B) {
	answer := &http1.Response{Status: 200, Length: http1.InChunks}
	answer.Fields = []http1.Field{{Name: "Content-Type", Value: "application/json; charset=utf-8"}}
	for name, evidence := range map[string]policy.Evidence{
		"certificate": {Certificate: policy.Good},
		"token":       {Token: policy.Good},
		"open":        {},
	} {
		b.Run(name, func(b *testing.B) {
			fresh := *newTable(b).exchange
			fresh.evidence, fresh.BreakOff = evidence, func() {}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				var x Exchange
				for pb.Next() {
					x = fresh
					x.Streams(answer)
					x.Over()
				}
			})
		})
	}
}

// BenchmarkRound is a round over a thousand streams of certificates.
func BenchmarkRound(b *testing.B) {
	tab := newTable(b)
	for range 1000 {
		tab.watched(b, func() { b.Error("broken off") })
	}
	var r round
	b.ReportAllocs()
	for b.Loop() {
		r.walk(tab.decider, tab.decider.Snapshot())
	}
}
