// Package typed types the commands of a document into terminals, and compares what they print.
//
// What is a command is seen by its block's form, for readers and for Parse alike. Every code block of a document is one of:
//
//   - indented, or fenced with sh: commands, each of which must succeed. What they print is not compared.
//   - fenced with console: commands after "$ ", and below each all that it prints; one that prints nothing must succeed.
//     … stands for what changes from run to run; alone on a line, for any number of lines.
//   - fenced with anything, after a paragraph that says: write this to `FILE`.
//   - marked by a line before it: <!-- not typed: REASON -->
//
// A paragraph that speaks of "another terminal" has the block below it typed into a new one, which starts where the
// document does. The command typed last before that keeps running to the document's end. One that prints nothing meanwhile
// says nothing of when it is ready: the next answer that is shown is asked for until it comes. So is the first one of a
// block whose paragraph says "within": readers, too, are told to try again.
package typed

import (
	"fmt"
	"regexp"
	"strings"
)

// A Document is what its reader does, in order.
type Document struct {
	Steps    []Step
	NotTyped []string // the reasons
}

// A Step is one command, or one file to write.
type Step struct {
	Line     int    // of the document
	Terminal int    // the number of the terminal, from 0
	Command  string // empty: write Content to File
	Compared bool   // what it prints is compared with Shown; if false, or if Shown is empty, it must succeed
	Shown    string // with … for what changes
	Stays    bool   // it runs to the document's end
	Again    bool   // it is typed again until it prints what is shown

	File, Content string
}

var (
	mark    = regexp.MustCompile(`^<!-- not typed: (.+) -->$`)
	writing = regexp.MustCompile("[Ww]rite this to `([^`]+)`")
)

// A block is a code block, with what was said before it.
type block struct {
	line             int // of its first line of code
	info             string
	lines            []string
	paragraph, notes string // the paragraph just above; why it is not typed
}

// Parse reads a Markdown document. A code block of no known form is an error.
func Parse(text string) (Document, error) {
	var d Document
	blocks, err := split(text)
	if err != nil {
		return d, err
	}
	terminal := 0
	for _, b := range blocks {
		if b.notes != "" {
			d.NotTyped = append(d.NotTyped, b.notes)
			continue
		}
		if file := writing.FindStringSubmatch(b.paragraph); file != nil {
			d.Steps = append(d.Steps, Step{Line: b.line, Terminal: terminal, File: file[1], Content: strings.Join(b.lines, "\n") + "\n"})
			continue
		}
		steps, err := b.commands()
		if err != nil {
			return d, err
		}
		if strings.Contains(b.paragraph, "another terminal") {
			if len(d.Steps) == 0 || d.Steps[len(d.Steps)-1].Command == "" {
				return d, fmt.Errorf("line %d: another terminal, but nothing keeps running in the first", b.line)
			}
			d.Steps[len(d.Steps)-1].Stays = true
			terminal++
		}
		for i, s := range steps {
			s.Terminal = terminal
			s.Again = i == 0 && s.Shown != "" && strings.Contains(b.paragraph, "ithin ")
			d.Steps = append(d.Steps, s)
		}
	}
	return d, nil
}

// split finds the code blocks.
func split(text string) (blocks []block, err error) {
	var paragraph, notes string
	var code *block
	const (
		outside = iota
		fenced
		indented
	)
	state, blank := outside, true // blank: the line before was
	end := func() {
		for len(code.lines) > 0 && code.lines[len(code.lines)-1] == "" {
			code.lines = code.lines[:len(code.lines)-1]
		}
		blocks = append(blocks, *code)
		state, paragraph, notes = outside, "", ""
	}
	begin := func(line int, info string) { code = &block{line: line, info: info, paragraph: paragraph, notes: notes} }
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		switch {
		case state == fenced && line == "```":
			end()
			continue
		case state == fenced:
			code.lines = append(code.lines, line)
			continue
		case state == indented && (line == "" || strings.HasPrefix(line, "    ")):
			code.lines = append(code.lines, strings.TrimPrefix(line, "    "))
			continue
		case state == indented:
			end()
		}
		switch info, opens := strings.CutPrefix(line, "```"); {
		case opens:
			begin(number+1, info)
			state = fenced
		case blank && strings.HasPrefix(line, "    "):
			begin(number, "sh")
			state = indented
			code.lines = append(code.lines, strings.TrimPrefix(line, "    "))
		case mark.MatchString(line):
			notes = mark.FindStringSubmatch(line)[1]
		case line != "":
			if notes != "" {
				return nil, fmt.Errorf("line %d: a note on why a block is not typed, and no block", number-1)
			}
			if blank {
				paragraph = ""
			}
			paragraph += line + " "
		}
		blank = line == ""
	}
	if state == fenced {
		return nil, fmt.Errorf("line %d: a code block without an end", code.line)
	}
	if state == indented {
		end()
	}
	if notes != "" {
		return nil, fmt.Errorf("line %d: a note on why a block is not typed, and no block", number)
	}
	return blocks, nil
}

// commands are the steps of a block.
func (b block) commands() (steps []Step, err error) {
	if b.info != "sh" && b.info != "console" {
		return nil, fmt.Errorf("line %d: a block of %q that is no command, not written to a file and not marked", b.line, b.info)
	}
	goesOn := false // the command's last line ends with a backslash
	for i, line := range b.lines {
		last := len(steps) - 1
		command, prompted := strings.CutPrefix(line, "$ ")
		switch {
		case goesOn:
			steps[last].Command += "\n" + line
			goesOn = strings.HasSuffix(line, `\`)
		case b.info == "sh" && (line == "" || strings.HasPrefix(line, "#")):
		case b.info == "sh" || prompted:
			steps = append(steps, Step{Line: b.line + i, Command: command, Compared: b.info == "console"})
			goesOn = strings.HasSuffix(line, `\`)
		case last < 0:
			return nil, fmt.Errorf("line %d: %q is printed by no command: those begin with $", b.line+i, line)
		default:
			steps[last].Shown += line + "\n"
		}
	}
	if len(steps) == 0 || goesOn {
		return nil, fmt.Errorf("line %d: a block without a command, or with half of one", b.line)
	}
	return steps, nil
}

// pattern matches what a command prints if that is as shown; a command that stays may print more later.
func (s Step) pattern() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`^`)
	shown := strings.TrimRight(s.Shown, "\n")
	if shown == "" && s.Stays {
		return regexp.MustCompile(``)
	}
	for line := range strings.SplitSeq(shown, "\n") {
		if line == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		for j, part := range strings.Split(line, "…") {
			if j > 0 {
				b.WriteString(`.*?`)
			}
			b.WriteString(regexp.QuoteMeta(part))
		}
		b.WriteString(`\n`)
	}
	if !s.Stays {
		b.WriteString(`$`)
	}
	return regexp.MustCompile(b.String())
}

// asShown reports whether text is what the step shows.
func (s Step) asShown(text string) bool {
	return s.pattern().MatchString(strings.TrimRight(text, "\n") + "\n")
}
