package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
)

func TestTerminalLog(t *testing.T) {
	for name, c := range map[string]struct {
		log    func(*slog.Logger)
		want   string // behind the time
		colour bool
	}{
		"plain":              {func(l *slog.Logger) { l.Info("listening", "listener", "https") }, "INFO  listening  listener=https\n", false},
		"words":              {func(l *slog.Logger) { l.Warn("two words", "why", "as asked") }, "WARN  two words  why=\"as asked\"\n", false},
		"alone":              {func(l *slog.Logger) { l.Error("stopped") }, "ERROR stopped\n", false},
		"a level of no name": {func(l *slog.Logger) { l.Log(t.Context(), slog.LevelError+2, "worse") }, "ERROR+2 worse\n", false},
		"controls":           {func(l *slog.Logger) { l.Info("a\x1b[2Jb\nc", "k", "\x1b]0;x\a") }, `INFO  a\u001b[2Jb\u000ac  k="\x1b]0;x\a"` + "\n", false},
		"colour":             {func(l *slog.Logger) { l.Warn("careful") }, "\x1b[33mWARN\x1b[0m  careful\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c.log(slog.New(slog.NewTextHandler(&terminalLog{&out, c.colour}, nil)))
			at, rest, _ := strings.Cut(out.String(), " ")
			if len(at) != len("15:04:05") || rest != c.want {
				t.Errorf("%q, want a time and %q", out.String(), c.want)
			}
		})
	}
}

func TestTerminalLogLeavesOtherLines(t *testing.T) {
	var out bytes.Buffer
	io.WriteString(&terminalLog{&out, true}, "a\x1bline\n")
	if out.String() != `a\u001bline`+"\n" {
		t.Errorf("%q", out.String())
	}
}

// TestFatal: what ends serve is told in the format of the log, with its place.
func TestFatal(t *testing.T) {
	problems := control.Problems{{Place: control.Place{File: "a.yaml", Line: 3, Column: 5}, Message: "it is wrong"}}
	var out bytes.Buffer
	err := fatal(usage(problems), config.Log{}, &out)
	if !errors.Is(err, errQuiet) || !errors.Is(err, errUsage) {
		t.Errorf("%v is to be quiet, and of usage", err)
	}
	if line := out.String(); !strings.Contains(line, `"level":"ERROR","msg":"serve failed","error":"it is wrong","file":"a.yaml","line":3,"column":5}`) {
		t.Errorf("%s", line)
	}
	out.Reset()
	if err := fatal(io.ErrUnexpectedEOF, config.Log{}, &out); !errors.Is(err, errQuiet) || errors.Is(err, errUsage) {
		t.Errorf("%v is to be quiet, and not of usage", err)
	}
	if line := out.String(); !strings.Contains(line, `"msg":"serve failed","error":"unexpected EOF"}`) {
		t.Errorf("%s", line)
	}
	out.Reset()
	if err := fatal(io.ErrUnexpectedEOF, config.Log{Format: "text"}, &out); !errors.Is(err, io.ErrUnexpectedEOF) || out.Len() > 0 {
		t.Errorf("%v, and it wrote %q", err, &out)
	}
}
