package testredis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// ask sends commands one after the other and returns the last one's reply. Any error reply ends it.
func ask(conn net.Conn, commands ...[]string) (reply string, err error) {
	r := bufio.NewReader(conn)
	for _, c := range commands {
		if _, err := conn.Write(command(c)); err != nil {
			return "", err
		}
		raw, err := readReply(r)
		if err != nil {
			return "", err
		}
		if reply, err = text(raw); err != nil {
			return "", err
		}
	}
	return reply, nil
}

// command encodes a command as clients send it: an array of strings.
func command(args []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.Bytes()
}

// readReply reads the bytes of one whole reply of RESP 2 or 3. A client's command has the same form.
func readReply(r *bufio.Reader) ([]byte, error) {
	var raw []byte
	for values := 1; values > 0; values-- {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if len(line) < 3 || !bytes.HasSuffix(line, []byte("\r\n")) {
			return nil, fmt.Errorf("%q is no line of RESP", line)
		}
		raw = append(raw, line...)
		kind := line[0]
		if !strings.ContainsRune("$=!*~>%|", rune(kind)) {
			continue // the line is the value
		}
		n, err := strconv.Atoi(string(line[1 : len(line)-2]))
		if err != nil || n > 1<<20 {
			return nil, fmt.Errorf("%q has no length of RESP", line)
		}
		switch n = max(n, 0); {
		case strings.ContainsRune("*~>", rune(kind)):
			values += n
		case kind == '%':
			values += 2 * n
		case kind == '|':
			values += 2*n + 1 // attributes stand before their value
		case line[1] != '-': // a string; of length -1 it is null
			body := make([]byte, n+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return nil, err
			}
			raw = append(raw, body...)
		}
	}
	return raw, nil
}

// texts returns the values of a reply in order, without its structure.
func texts(raw []byte) ([]string, error) {
	var values []string
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return values, nil
		}
		if err != nil {
			return nil, err
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch line[0] {
		case '-':
			return nil, errors.New(line[1:])
		case '$', '=', '!':
			n, err := strconv.Atoi(line[1:])
			if err != nil {
				return nil, err
			}
			body := make([]byte, max(n, 0))
			if n >= 0 {
				if _, err := io.ReadFull(r, body); err != nil {
					return nil, err
				}
				_, _ = r.Discard(2)
			}
			values = append(values, string(body))
		case '*', '~', '>', '%', '|':
		case '_':
			values = append(values, "")
		default:
			values = append(values, line[1:])
		}
	}
}

func text(raw []byte) (string, error) {
	values, err := texts(raw)
	return strings.Join(values, "\n"), err
}
