package engine

// PanicInLoops has each loop panic once in its next tick.
func (e *Engine) PanicInLoops() {
	left := len(e.loops)
	fault := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if left--; left == 0 {
			e.fault.Store(nil)
		}
		panic("in the tick")
	}
	e.fault.Store(&fault)
}
