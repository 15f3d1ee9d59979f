package decision

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/message"
)

// A router is what backends find a handler by. It tells of raw paths which of a table's templates runs; "" stands for
// none, as for a redirect. Of templates that match, the first is meant.
type router func(t *testing.T, templates, paths []string) []string

// What a server runs is what was judged: 100,000 spellings of the paths of random tables, open resources in protected
// ones and protected ones in open ones, by the routers of Go, of Express and behind Tomcat. Held: security L 152.
func TestServersRunWhatWasJudged(t *testing.T) {
	for name, start := range map[string]func(*testing.T) router{
		"ServeMux": func(*testing.T) router { return serveMux }, "Express": express, "Tomcat": tomcat,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			judgeAgainst(t, start(t), newDice(152), 100_000)
		})
	}
}

func judgeAgainst(t *testing.T, r router, dice *rand.Rand, count int) {
	const each = 1000
	admitted, wrong := 0, 0
	for range count / each {
		table, route := randomTable(t, dice)
		var templates, paths, judged []string
		for _, res := range route.Resources {
			templates = append(templates, res.Path)
		}
		slices.SortFunc(templates, closer)
		for range each {
			path := randomPath(dice, templates)
			if message.CheckPath(path) != nil {
				continue
			}
			at, err := table.find(nil, "", "/api/1"+path, "GET")
			if err != nil || at.resource == nil {
				continue
			}
			if at.left != path && at.left != "/" {
				t.Fatalf("%q is sent as %q", path, at.left)
			}
			paths, judged = append(paths, at.left), append(judged, at.resource.Path)
		}
		admitted += len(paths)
		for i, ran := range r(t, templates, paths) {
			if ran == "" || ran == judged[i] {
				continue
			}
			if !resourceOf(route, ran).asksAs(resourceOf(route, judged[i]), &route) {
				if wrong++; wrong < 10 {
					t.Errorf("%s was judged as %s and runs %s, among %s", paths[i], judged[i], ran, templates)
				}
			}
		}
	}
	if admitted < count/10 || wrong > 0 {
		t.Errorf("%d of %d were admitted, %d of them wrongly", admitted, count, wrong)
	}
}

func resourceOf(r Route, template string) *Resource {
	i := slices.IndexFunc(r.Resources, func(res Resource) bool { return res.Path == template })
	return &r.Resources[i]
}

// closer orders templates by the first segment where they differ: a literal, a parameter, a "*".
func closer(a, b string) int {
	rank := func(s string) int {
		switch {
		case s == "*":
			return 2
		case strings.HasPrefix(s, "{"):
			return 1
		}
		return 0
	}
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if rx, ry := rank(x[i]), rank(y[i]); rx != ry {
			return rx - ry
		} else if rx == 0 && x[i] != y[i] {
			return strings.Compare(x[i], y[i])
		}
	}
	return len(x) - len(y)
}

func newDice(seed uint64) *rand.Rand {
	if os.Getenv("SALLYPORT_LONG") != "" {
		seed = uint64(time.Now().UnixNano())
	}
	return rand.New(rand.NewPCG(1, seed))
}

var segmentWords = []string{"secret", "open", "items", "secret:export", "a@b", "$meta", "me", "~me", "x.json", "a", "b", "Orders(1)"}

// randomTable returns the table of an API at /api/1 with a few resources of different rules.
func randomTable(t *testing.T, dice *rand.Rand) (*Table, Route) {
	rules := []string{"open", "closed", "read", "write"}
	for {
		var list []string
		for range 2 + dice.IntN(5) {
			template := ""
			for range 1 + dice.IntN(3) {
				word := segmentWords[dice.IntN(len(segmentWords))]
				if dice.IntN(5) == 0 {
					word = "{p" + strconv.Itoa(len(template)) + "}"
				}
				template += "/" + word
			}
			if dice.IntN(4) == 0 {
				template += "/*"
			}
			list = append(list, template+" "+rules[dice.IntN(len(rules))])
		}
		if dice.IntN(2) == 0 {
			list = append(list, "/* "+rules[dice.IntN(len(rules))])
		}
		var route Route
		table, err := tableOf(func(r *Route) { route = *r }, list...)
		if err == nil && muxOf(route.Resources) != nil {
			return table, route
		}
	}
}

// randomPath spells a path of one of the templates, or one near it.
func randomPath(dice *rand.Rand, templates []string) string {
	segments := strings.Split(templates[dice.IntN(len(templates))], "/")[1:]
	for i, s := range segments {
		if s == "*" || strings.HasPrefix(s, "{") || dice.IntN(8) == 0 {
			segments[i] = segmentWords[dice.IntN(len(segmentWords))]
		}
	}
	for range dice.IntN(3) {
		i := dice.IntN(len(segments))
		s := segments[i]
		switch dice.IntN(10) {
		case 0, 1, 2: // an escape of something
			at := dice.IntN(len(s) + 1)
			if at < len(s) && s[at] != '%' {
				s = s[:at] + fmt.Sprintf([]string{"%%%02x", "%%%02X"}[dice.IntN(2)], s[at]) + s[at+1:]
			}
		case 3:
			s += []string{";", ";x", ";v=1", ";jsessionid=1"}[dice.IntN(4)]
		case 4:
			s += []string{"%3B", "%3bx", "%3Bv=1"}[dice.IntN(3)]
		case 5:
			s += []string{".", "%2e", "..", "%20", "%2F", "%252F", "%5c", "%00", "%C3%A9", "%3F", "%23"}[dice.IntN(11)]
		case 6:
			s = []string{"", ".", "..", "%2e%2e", ";", "..;x", "%2E%3b"}[dice.IntN(7)]
		case 7:
			segments = append(segments, "")
			continue
		case 8:
			s = strings.ToUpper(s)
		case 9:
			s = strings.Replace(s, ":", "%3A", 1)
		}
		segments[i] = s
	}
	return "/" + strings.Join(segments, "/")
}

// serveMux is the router of Go's standard library.
func serveMux(t *testing.T, templates, paths []string) (ran []string) {
	var list []Resource
	for _, p := range templates {
		list = append(list, Resource{Path: p})
	}
	mux := muxOf(list)
	for _, path := range paths {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: b\r\n\r\n")))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		ran = append(ran, w.Header().Get("Template"))
	}
	return ran
}

// muxOf returns a ServeMux for the templates, or nil if it takes two of them for each other's.
func muxOf(list []Resource) (mux *http.ServeMux) {
	defer func() {
		if recover() != nil {
			mux = nil
		}
	}()
	mux = http.NewServeMux()
	for _, r := range list {
		run := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Template", r.Path) }
		above, wild := strings.CutSuffix(r.Path, "/*")
		if !wild {
			mux.HandleFunc(r.Path, run)
			continue
		}
		mux.HandleFunc(above+"/{rest...}", run)
		if above != "" {
			mux.HandleFunc(above, run)
		}
	}
	return mux
}

// express is the router of Node's Express, which doesn't undo escapes before it compares.
func express(t *testing.T) router {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(cache, "sallyport", "express", "node_modules")
	need(t, filepath.Join(modules, "express"), "node")
	cmd := exec.Command("node", "testdata/routers/express.js")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	return startRouter(t, cmd, func(templates []string) string {
		text, err := json.Marshal(templates)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	})
}

// tomcat is a servlet that goes by the path as Tomcat tells it: parameters cut off, escapes undone.
func tomcat(t *testing.T) router {
	const library = "/usr/share/java/tomcat10-embed-core.jar"
	need(t, library, "java")
	cmd := exec.Command("java", "-Xmx256m", "-cp", library, "testdata/routers/Servlet.java", t.TempDir())
	return startRouter(t, cmd, func(templates []string) string { return strings.Join(templates, "\n") })
}

// need skips the test without a file and a program, or fails in CI.
func need(t *testing.T, file, program string) {
	t.Helper()
	_, err := os.Stat(file)
	if err == nil {
		_, err = exec.LookPath(program)
	}
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%v: scripts/need installs it", err)
	}
	if err != nil {
		t.Skipf("%v: scripts/need installs it", err)
	}
}

// startRouter starts a server that prints its port, and takes the templates of a table with PUT.
func startRouter(t *testing.T, cmd *exec.Cmd, render func([]string) string) router {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strings.TrimSpace(port)
	table := 0
	return func(t *testing.T, templates, paths []string) []string {
		table++
		request, err := http.NewRequest("PUT", "http://"+address+"/", strings.NewReader(render(templates)))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Table", strconv.Itoa(table))
		answer, err := http.DefaultClient.Do(request)
		if err != nil || answer.StatusCode != 200 {
			t.Fatalf("%v, %v", answer, err)
		}
		answer.Body.Close()
		ran := make([]string, 0, len(paths))
		for len(ran) < len(paths) { // a server may close the connection behind a path that it doesn't like
			ran = append(ran, askRouter(t, address, table, paths[len(ran):])...)
		}
		return ran
	}
}

// askRouter sends calls in a row over one connection, until it is closed.
func askRouter(t *testing.T, address string, table int, paths []string) (ran []string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		w := bufio.NewWriter(conn)
		for _, path := range paths {
			fmt.Fprintf(w, "GET %s HTTP/1.1\r\nHost: b\r\nX-Table: %d\r\n\r\n", path, table)
		}
		_ = w.Flush() // the answers tell
	}()
	in := bufio.NewReader(conn)
	for range paths {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			if len(ran) == 0 {
				t.Fatal(err)
			}
			return ran
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		ran = append(ran, answer.Header.Get("Template"))
	}
	return ran
}
