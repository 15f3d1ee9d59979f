package wire

// A Window holds what was read from a connection and has not been used yet. The zero Window is empty and holds no
// memory.
type Window struct {
	buf  *[]byte // nil: no memory is held
	r, w int
	lent bool // buf belongs to somebody else
}

// Lend makes an empty window over memory that stays the caller's: Own ends that.
func Lend(memory *[]byte) Window { return Window{buf: memory, lent: true} }

func (w *Window) open() {
	if w.buf == nil {
		w.buf = Small.Get()
		*w.buf = (*w.buf)[:cap(*w.buf)]
		w.r, w.w = 0, 0
	}
}

// Held reports whether the window holds memory.
func (w *Window) Held() bool { return w.buf != nil }

// Close gives the memory back. Unused bytes are lost.
func (w *Window) Close() {
	switch {
	case w.buf == nil || w.lent:
	case cap(*w.buf) >= LargeSize:
		Large.Put(w.buf)
	default:
		Small.Put(w.buf)
	}
	*w = Window{}
}

// Enlarge replaces a small buffer by a large one.
func (w *Window) Enlarge() {
	if w.buf != nil && cap(*w.buf) >= LargeSize {
		return
	}
	b := Large.Get()
	*b = (*b)[:cap(*b)]
	n := copy(*b, w.Bytes())
	if w.buf != nil && !w.lent {
		Small.Put(w.buf)
	}
	*w = Window{buf: b, w: n}
}

// Own moves unused bytes from lent memory to the window's own.
func (w *Window) Own() {
	lent := *w
	*w = Window{}
	if left := lent.Bytes(); len(left) > 0 {
		w.Enlarge()
		w.w = copy(*w.buf, left)
	}
}

// Bytes returns the unused bytes. They stay valid until the next Room.
func (w *Window) Bytes() []byte {
	if w.buf == nil {
		return nil
	}
	return (*w.buf)[w.r:w.w]
}

// Room returns where the next read goes; it is empty if the window is full.
func (w *Window) Room() []byte {
	w.open()
	if w.r > 0 {
		w.w = copy(*w.buf, (*w.buf)[w.r:w.w])
		w.r = 0
	}
	return (*w.buf)[w.w:]
}

// Filled adds the first n bytes of Room to the window.
func (w *Window) Filled(n int) { w.w += n }

// Skip marks the first n bytes as used.
func (w *Window) Skip(n int) { w.r += n }
