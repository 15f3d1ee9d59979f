package process

import "time"

// A Meter measures how much CPU other programs use on the cores of a measurement.
type Meter struct {
	cores      []int
	interrupts bool // whether interrupts are part of the CPU time of the process they interrupt
}

// A CoreTime is the CPU time spent on some cores up to a moment.
type CoreTime struct {
	At   time.Time
	Used time.Duration // by all processes, the kernel, and other virtual machines (steal)
	Own  time.Duration // by this process and its descendants
}

// Others returns how many cores other programs have kept busy on average since before; 0.5 is half of one core.
func (t CoreTime) Others(before CoreTime) float64 {
	took := t.At.Sub(before.At)
	if took <= 0 {
		return 0
	}
	return max(0, (t.Used-before.Used)-(t.Own-before.Own)).Seconds() / took.Seconds()
}
