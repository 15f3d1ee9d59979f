package decision

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// headOf is a request of 64 KiB, or as long as it is with that first line, in so many more lines.
func headOf(first string, lines int) string {
	var b strings.Builder
	b.WriteString("GET /orders/1.0.0/items/7 HTTP/1.1\r\nHost: api.test\r\n" + first)
	each := max((64<<10-b.Len()-2)/max(lines, 1), 8)
	for i := range lines {
		name := fmt.Sprintf("X-%03d: ", i)
		b.WriteString(name + strings.Repeat("v", max(each-len(name)-2, 0)) + "\r\n")
	}
	return b.String() + "\r\n"
}

// costlyHeads are heads of up to 64 KiB that ask for as much work as they can, beside ordinary ones.
var costlyHeads = map[string]string{
	"ordinary, one line":    headOf("A: "+strings.Repeat("x", 60_000)+"\r\n", 0),
	"ordinary, 185 lines":   headOf("", 185),
	"30,000 options":        headOf("Connection: "+strings.Repeat("a,", 30_000)+"\r\n", 185),
	"10,000 options":        headOf("Connection: "+strings.Repeat("X-XXX,", 10_000)+"\r\n", 185),
	"options at the bound":  headOf("Connection: "+strings.Repeat("X-18,", 31)+"X-18\r\n", 185),
	"long ones":             headOf("Connection: "+strings.Repeat("a", 500)+"\r\n"+strings.Repeat(strings.Repeat("a", 499)+"b: x\r\n", 120), 60),
	"empty options":         headOf("Connection: "+strings.Repeat(",", 60_000)+"\r\n", 185),
	"TE":                    headOf("Te: "+strings.Repeat("a,", 30_000)+"\r\n", 185),
	"Trailer":               headOf("Trailer: "+strings.Repeat("a,", 30_000)+"\r\n", 185),
	"Via":                   headOf("Via: "+strings.Repeat("sallyport,", 6_000)+"\r\n", 185),
	"Authorization":         headOf("Authorization: "+strings.Repeat("a,", 30_000)+"\r\n", 185),
	"Authorization, quotes": headOf("Authorization: "+strings.Repeat(`a",",`, 12_000)+"\r\n", 185),
	"X-Forwarded-For":       headOf("X-Forwarded-For: "+strings.Repeat("a,", 30_000)+"\r\n", 185),
	"a long name":           headOf(strings.Repeat("a", 60_000)+": x\r\n", 185),
}

// carryHead is what the gateway does with a head on its way to a server.
func (tab *table) carryHead(b testing.TB, r *http1.Request, server *backend.Server, head string, out []byte) []byte {
	if n, err := http1.HeadEnd([]byte(head), 0); n != len(head) || err != nil {
		b.Fatal(n, err)
	}
	if r.Parse(head) != nil {
		return out
	}
	x := *tab.exchange
	x.Request = r
	if Decide(&x) == nil {
		out = x.AppendHead(out[:0], server)
		x.place.Leave()
	}
	return out
}

// carryAnswer is what the gateway does with the same lines on their way back.
func (tab *table) carryAnswer(r *http1.Response, head string, out []byte) []byte {
	_, lines, _ := strings.Cut(head, "\r\n")
	if r.Parse("HTTP/1.1 200 OK\r\n"+lines, "GET") != nil {
		return out
	}
	out = out[:0]
	tab.exchange.AnswerFields(nil, r, func(name, value string) { out = http1.AppendField(out, name, value) })
	return out
}

// TestHeadsCostAlike: no head costs many times as much as another of its size, on either way. Ten times are allowed here,
// and the best of many tries counts, since the machine has other work; without the bounds of lists it is some hundred
// times. Held: security L 162.
func TestHeadsCostAlike(t *testing.T) {
	tab, server := newTable(t), &backend.Server{Authority: "backend.test"}
	var request http1.Request
	var response http1.Response
	var out []byte
	for way, carry := range map[string]func(head string){
		"request": func(head string) { out = tab.carryHead(t, &request, server, head, out) },
		"answer":  func(head string) { out = tab.carryAnswer(&response, head, out) },
	} {
		best := func(head string) time.Duration {
			least := time.Duration(math.MaxInt64)
			for range 50 {
				began := time.Now()
				carry(head)
				least = min(least, time.Since(began))
			}
			return least
		}
		ordinary := best(costlyHeads["ordinary, 185 lines"])
		for name, head := range costlyHeads {
			if cost := best(head); cost > 10*ordinary {
				t.Errorf("%s, %s: %v, an ordinary one %v", way, name, cost, ordinary)
			}
		}
	}
}

func BenchmarkHeads(b *testing.B) {
	tab, server := newTable(b), &backend.Server{Authority: "backend.test"}
	for name, head := range costlyHeads {
		b.Run(name, func(b *testing.B) {
			var r http1.Request
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				out = tab.carryHead(b, &r, server, head, out)
			}
		})
	}
}
