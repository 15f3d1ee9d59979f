package live

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// WebSocket (RFC 6455), as far as short texts need it.

const (
	socketKey     = "dGhlIHNhbXBsZSBub25jZQ=="
	upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + socketKey + "\r\n"
	maxText       = 125 // of a frame with a length of one byte
)

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// writeFrame writes a text frame, masked as a client has to.
func writeFrame(w io.Writer, text string, masked bool) error {
	frame := []byte{0x81, byte(len(text))}
	if masked {
		key := [4]byte{1, 2, 3, 4}
		frame[1] |= 0x80
		frame = append(frame, key[:]...)
		for i := range len(text) {
			frame = append(frame, text[i]^key[i%4])
		}
	} else {
		frame = append(frame, text...)
	}
	_, err := w.Write(frame)
	return err
}

var errClosed = errors.New("a close frame")

// readFrame reads a short text frame.
func readFrame(r *bufio.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	size, masked := int(head[1]&0x7f), head[1]&0x80 != 0
	switch {
	case head[0] == 0x88:
		return "", errClosed
	case head[0] != 0x81 || size > maxText:
		return "", fmt.Errorf("not a frame of a short text: %x", head)
	}
	var key [4]byte
	if masked {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return "", err
		}
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	for i := range text {
		text[i] ^= key[i%4]
	}
	return string(text), nil
}
