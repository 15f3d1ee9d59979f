package process

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// clockTick is the unit of /proc/stat. USER_HZ is 100 on every Linux port of Go.
const clockTick = 10 * time.Millisecond

// NewMeter returns a Meter for these cores; nil means all that this process may run on.
func NewMeter(cores []int) *Meter {
	if cores == nil {
		cores = Cores()
	}
	return &Meter{cores: cores, interrupts: !interruptsApart()}
}

// Read returns the CPU time that the cores have spent so far, and the part of this process and its descendants.
func (m *Meter) Read() (CoreTime, error) {
	own, err := familyCPU(os.Getpid())
	if err != nil {
		return CoreTime{}, err
	}
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return CoreTime{}, fmt.Errorf("CPU time of the cores: %w", err)
	}
	used, err := parseCoreTime(data, m.cores, m.interrupts)
	if err != nil {
		return CoreTime{}, fmt.Errorf("CPU time of the cores: %w", err)
	}
	return CoreTime{At: time.Now(), Used: used, Own: own}, nil
}

// parseCoreTime adds up the busy time of the given cores from proc_stat(5), whose lines are "cpu1 user nice system idle
// iowait irq softirq steal guest guest_nice". User and nice include the guests.
func parseCoreTime(stat []byte, cores []int, interrupts bool) (time.Duration, error) {
	var ticks uint64
	found := 0
	for line := range bytes.Lines(stat) {
		words := bytes.Fields(line)
		if len(words) < 9 || !bytes.HasPrefix(words[0], []byte("cpu")) {
			continue
		}
		core, err := strconv.Atoi(string(words[0][len("cpu"):]))
		if err != nil || !slices.Contains(cores, core) {
			continue // the line "cpu" is the sum of all cores
		}
		found++
		for i, word := range words[1:9] {
			n, err := strconv.ParseUint(string(word), 10, 36)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: core %d: %.40q", core, word)
			}
			switch i {
			case 3, 4: // idle, iowait
			case 5, 6: // irq, softirq
				if interrupts {
					ticks += n
				}
			default:
				ticks += n
			}
		}
	}
	if found != len(cores) {
		return 0, fmt.Errorf("/proc/stat: %d of the cores %v", found, cores)
	}
	return time.Duration(ticks) * clockTick, nil
}

// interruptsApart reports whether the kernel leaves the time of interrupts out of the CPU time of the process that they
// interrupt (CONFIG_IRQ_TIME_ACCOUNTING). On loopback, software interrupts do the receiver's work, up to a fifth of a
// busy core, so a Meter has to know whether Own includes them. No file says so; this measures it. A thread sends
// packets to itself in short bursts. In a burst without a context switch, the thread's CPU time equals the elapsed
// time, unless the kernel leaves interrupts out.
func interruptsApart() bool {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return false
	}
	defer socket.Close()
	address := socket.LocalAddr().(*net.UDPAddr).AddrPort()
	packet := make([]byte, 1024)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const bursts, enough = 500, 20
	least := 1.0 // the smallest share left out, because CPU time lacks steal, too
	for try, whole := 0, 0; try < bursts && whole < enough; try++ {
		before, began := switches(), time.Now()
		used := threadCPU()
		for range 30 {
			if _, err := socket.WriteToUDPAddrPort(packet, address); err != nil {
				return false
			}
		}
		used = threadCPU() - used
		took := time.Since(began)
		if switches() == before {
			whole++
			least = min(least, 1-used.Seconds()/took.Seconds())
		}
	}
	return least > 0.1 && least < 1
}

// switches returns how often this thread has been switched off its core.
func switches() int64 {
	const thread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		return 0
	}
	return u.Nvcsw + u.Nivcsw
}

// threadCPU returns the CPU time of this thread so far.
func threadCPU() time.Duration {
	const clock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}
