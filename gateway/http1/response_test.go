package http1_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/http1"
)

type response struct {
	Status, Minor  int
	Reason         string
	Length         int64
	Close, Upgrade bool
}

func summaryOf(r *http1.Response) response {
	return response{r.Status, r.Minor, r.Reason, r.Length, r.Close, r.Upgrade}
}

func TestResponse(t *testing.T) {
	const length, chunked = "Content-Length: 5\r\n", "Transfer-Encoding: Chunked\r\n"
	var r http1.Response
	for _, c := range []struct {
		method string
		head   string // with its last CRLF left out
		want   response
	}{
		{"GET", "HTTP/1.1 200 OK\r\n" + length, response{200, 1, "OK", 5, false, false}},
		{"GET", "HTTP/1.1 200 OK\r\n" + chunked, response{200, 1, "OK", http1.InChunks, false, false}},
		{"GET", "HTTP/1.1 200 OK\r\n", response{200, 1, "OK", http1.UntilClose, true, false}},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", response{200, 1, "OK", 0, false, false}},
		{"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n" + length, response{200, 1, "OK", 5, true, false}},
		{"GET", "HTTP/1.1 200 \r\n" + length, response{200, 1, "", 5, false, false}},
		{"GET", "HTTP/1.1 200\r\n" + length, response{200, 1, "", 5, false, false}},
		{"GET", "HTTP/1.1 404 Not  Found\t\xe9 \r\n" + length, response{404, 1, "Not  Found\t\xe9 ", 5, false, false}},
		{"GET", "HTTP/1.1 999 ?\r\n" + length, response{999, 1, "?", 5, false, false}},
		{"PUT", "HTTP/1.0 201 Created\r\n" + length, response{201, 0, "Created", 5, true, false}},
		{"GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + length, response{200, 0, "OK", 5, false, false}},
		{"GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", response{200, 0, "OK", http1.UntilClose, true, false}},

		{"HEAD", "HTTP/1.1 200 OK\r\n" + length, response{200, 1, "OK", 0, false, false}},
		{"HEAD", "HTTP/1.1 200 OK\r\n" + chunked, response{200, 1, "OK", 0, false, false}},
		{"HEAD", "HTTP/1.1 200 OK\r\n", response{200, 1, "OK", 0, false, false}},
		{"head", "HTTP/1.1 200 OK\r\n" + length, response{200, 1, "OK", 5, false, false}}, // another method
		{"GET", "HTTP/1.1 304 Not Modified\r\n" + length, response{304, 1, "Not Modified", 0, false, false}},
		{"GET", "HTTP/1.1 304 Not Modified\r\n" + chunked, response{304, 1, "Not Modified", 0, false, false}},
		{"GET", "HTTP/1.1 204 No Content\r\n", response{204, 1, "No Content", 0, false, false}},
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", response{204, 1, "No Content", 0, false, false}},
		{"GET", "HTTP/1.1 204 No Content\r\n" + length, response{204, 1, "No Content", 0, true, false}},
		{"GET", "HTTP/1.1 204 No Content\r\n" + chunked, response{204, 1, "No Content", 0, true, false}},
		{"GET", "HTTP/1.1 100 Continue\r\n", response{100, 1, "Continue", 0, false, false}},
		{"GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 0\r\n", response{103, 1, "Early Hints", 0, false, false}},
		{"GET", "HTTP/1.1 103 Early Hints\r\n" + length, response{103, 1, "Early Hints", 0, true, false}},
		{"GET", "HTTP/1.1 100 Continue\r\n" + chunked, response{100, 1, "Continue", 0, true, false}},
		{"GET", "HTTP/1.1 101 Switching Protocols\r\n" + chunked, response{101, 1, "Switching Protocols", 0, true, true}},
		{"GET", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length \t : 5\r\n", response{200, 1, "OK", 5, false, false}},
		{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nConnection : close\r\n", response{200, 1, "OK", http1.InChunks, true, false}},
		{"GET", "HTTP/1.2 200 OK\r\n" + length, response{200, 1, "OK", 5, false, false}},
		{"GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", response{101, 1, "Switching Protocols", 0, false, true}},
		{"GET", "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\n" + length, response{200, 1, "OK", 5, false, false}},
	} {
		if err := r.Parse(c.head+"\r\n", c.method); err != nil {
			t.Errorf("%q: %v", c.head, err)
		} else if diff := cmp.Diff(c.want, summaryOf(&r)); diff != "" {
			t.Errorf("%s %q: %s", c.method, c.head, diff)
		}
	}
}

func TestResponseRefused(t *testing.T) {
	var r http1.Response
	answer := func(lines string) string { return "HTTP/1.1 200 OK\r\n" + lines + "\r\n" }
	for _, c := range []struct{ head, err string }{
		{"", "line 1: the head has no end"},
		{"HTTP/1.1 200 OK\r\n", "line 2: the head has no end"},
		{answer("") + "x", "line 2: bytes behind the head"},
		{answer("") + answer(""), "line 2: bytes behind the head"},
		{"HTTP/1.1 200 OK\n\n", "line 1: a line feed without carriage return"},
		{"HTTP/1.1 200 OK\rX: y\r\n\r\n", "line 1: a carriage return without line feed"},
		{"HTTP/1.1 200 O\x00K\r\n\r\n", "line 1: a control character"},
		{"\r\nHTTP/1.1 200 OK\r\n\r\n", "line 1: the version is malformed"},
		{" HTTP/1.1 200 OK\r\n\r\n", "line 1: the version is malformed"},
		{"http/1.1 200 OK\r\n\r\n", "line 1: the version is malformed"},
		{"ICY 200 OK\r\n\r\n", "line 1: the version is malformed"},
		{"HTTP/1.1\t200 OK\r\n\r\n", "line 1: the version is malformed"},
		{"HTTP/2.0 200 OK\r\n\r\n", "line 1: the version is not HTTP/1"},
		{"HTTP/1.1\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 \r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 20\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 2000 OK\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 200OK\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 200\tOK\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1  200 OK\r\n\r\n", "line 1: the status line is not a version, a status and a reason"},
		{"HTTP/1.1 +20 OK\r\n\r\n", "line 1: the status is not a number from 100 to 999"},
		{"HTTP/1.1 2x0 OK\r\n\r\n", "line 1: the status is not a number from 100 to 999"},
		{"HTTP/1.1 099 OK\r\n\r\n", "line 1: the status is not a number from 100 to 999"},
		{"HTTP/1.1 000 OK\r\n\r\n", "line 1: the status is not a number from 100 to 999"},

		{answer("Content Length: 3\r\n"), "line 2: the field name is no token"},
		{answer("Content-Length 3\r\n"), "line 2: the field name is no token"},
		{answer("Content-Length \r\n"), "line 2: no colon"},
		{answer("\t: 3\r\n"), "line 2: a line that goes on from the one before"},
		{answer("Content-Length : 3\r\nContent-Length: 3\r\n"), "line 3: more than one Content-Length"},
		{answer("Content-Length : 3\r\nTransfer-Encoding\t: chunked\r\n"), "line 3: both Content-Length and Transfer-Encoding"},
		{"HTTP/1.1 200 OK\r\nX ", "line 2: the head has no end"},
		{answer("X\r\n"), "line 2: no colon"},
		{answer("X: y\r\n z\r\n"), "line 3: a line that goes on from the one before"},
		{answer("X: y\nZ: z\r\n"), "line 2: a line feed without carriage return"},
		{answer("X: \x00\r\n"), "line 2: a control character"},

		{answer("Content-Length: 5\r\nContent-Length: 6\r\n"), "line 3: more than one Content-Length"},
		{answer("Content-Length: 5\r\nContent-Length: 5\r\n"), "line 3: more than one Content-Length"},
		{answer("Content-Length: 5, 5\r\n"), "line 2: Content-Length is no plain number"},
		{answer("Content-Length: -1\r\n"), "line 2: Content-Length is no plain number"},
		{answer("Content-Length: 9223372036854775808\r\n"), "line 2: Content-Length is too big"},
		{answer("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), "line 3: both Content-Length and Transfer-Encoding"},
		{answer("Transfer-Encoding: gzip, chunked\r\n"), "line 2: Transfer-Encoding is not chunked"},
		{answer("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "line 3: more than one Transfer-Encoding"},
		{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "line 2: Transfer-Encoding in HTTP/1.0"},
		{"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n", "line 2: Content-Length is no plain number"},
		{answer("Trailer: Content-Length\r\n"), "line 2: Trailer announces a field that frames the message"},

		{answer("Connection: " + strings.Repeat("a,", 30_000) + "\r\n"), "line 2: a list of Connection, TE or Trailer is too long"},
		{answer("Trailer: " + strings.Repeat("a,", 64) + "\r\n"), "line 2: a list of Connection, TE or Trailer is too long"},

		{"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "line 3: more than one Content-Length"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			err := r.Parse(c.head, method)
			var e *http1.Error
			if !errors.As(err, &e) || err.Error() != c.err {
				t.Errorf("%q: got %v, want %s", c.head, err, c.err)
			}
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var r http1.Response
	b.SetBytes(int64(len(typicalResponse)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(typicalResponse, "GET"); err != nil {
			b.Fatal(err)
		}
	}
}
