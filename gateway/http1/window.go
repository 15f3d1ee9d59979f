package http1

// A window is what has been read of a connection and not been used yet.
type window struct {
	buf  *[]byte // nil: none is held
	r, w int
}

// open gets memory if there is none.
func (w *window) open() {
	if w.buf == nil {
		w.buf = small.get()
		*w.buf = (*w.buf)[:cap(*w.buf)]
		w.r, w.w = 0, 0
	}
}

// close gives the memory back. What has not been used is lost.
func (w *window) close() {
	switch {
	case w.buf == nil:
	case cap(*w.buf) >= largeBuffer:
		large.put(w.buf)
	default:
		small.put(w.buf)
	}
	*w = window{}
}

// enlarge takes a large buffer in the place of a small one.
func (w *window) enlarge() {
	if w.buf != nil && cap(*w.buf) >= largeBuffer {
		return
	}
	b := large.get()
	*b = (*b)[:cap(*b)]
	n := 0
	if w.buf != nil {
		n = copy(*b, w.bytes())
		small.put(w.buf)
	}
	w.buf, w.r, w.w = b, 0, n
}

// own moves what has not been used to memory of the window's own.
func (w *window) own() {
	lent := *w
	*w = window{}
	if left := lent.bytes(); len(left) > 0 {
		w.enlarge()
		w.w = copy(*w.buf, left)
	}
}

// bytes are what has not been used.
func (w *window) bytes() []byte {
	if w.buf == nil {
		return nil
	}
	return (*w.buf)[w.r:w.w]
}

// room is where the next read goes; empty if the window is full.
func (w *window) room() []byte {
	w.open()
	if w.r > 0 {
		w.w = copy(*w.buf, (*w.buf)[w.r:w.w])
		w.r = 0
	}
	return (*w.buf)[w.w:]
}

func (w *window) skip(n int) { w.r += n }
