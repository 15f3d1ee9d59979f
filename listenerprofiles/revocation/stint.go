package revocation

import "time"

// A stint is a long piece of work, such as the reading of a large CRL. It rests twice as long as it works, so that calls
// are served meanwhile: work that yields to other goroutines without resting would still occupy a core.
type stint struct{ began time.Time }

// stintTime is how long a stint works before it rests.
const stintTime = 500 * time.Microsecond

func newStint() *stint { return &stint{time.Now()} }

// rest is called every hundred microseconds or so.
func (s *stint) rest() {
	if worked := time.Since(s.began); worked >= stintTime {
		time.Sleep(2 * worked)
		s.began = time.Now()
	}
}
