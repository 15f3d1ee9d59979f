package process

import "time"

// A Meter measures what other programs take of the cores that a measurement runs on. NewMeter makes one.
type Meter struct {
	cores      []int
	interrupts bool // whether the CPU time of processes contains that of the interrupts they were interrupted by
}

// A CoreTime is the CPU time of some cores, up to a moment.
type CoreTime struct {
	At   time.Time
	Used time.Duration // by everything: processes, the kernel, and a hypervisor's other machines
	Own  time.Duration // by this process and its descendants
}

// Others is how many cores everything else has kept busy on average since before: 0.5 is half of one core.
func (t CoreTime) Others(before CoreTime) float64 {
	took := t.At.Sub(before.At)
	if took <= 0 {
		return 0
	}
	return max(0, (t.Used-before.Used)-(t.Own-before.Own)).Seconds() / took.Seconds()
}
