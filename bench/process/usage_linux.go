package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// CPU returns the CPU time, user and system, of the process and its descendants so far. It reads each process's clock,
// which has the figures of /proc/PID/stat with a resolution of a nanosecond.
func (p *Process) CPU() (time.Duration, error) { return familyCPU(p.ID()) }

// familyCPU returns the CPU time of a process and its descendants so far.
func familyCPU(root int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range family(root) {
		d, err := cpu(pid)
		if err != nil {
			return 0, fmt.Errorf("CPU of process %d: %w", pid, err)
		}
		sum += d
	}
	return sum, nil
}

// OwnCPU returns the CPU time of this process so far, without its descendants.
func OwnCPU() time.Duration {
	d, err := cpu(os.Getpid())
	if err != nil {
		return 0
	}
	return d
}

// cpu reads the CPU clock of a process. Its clock id is that of clock_getcpuclockid(3).
func cpu(pid int) (time.Duration, error) {
	const sched = 2
	var t syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|sched), uintptr(unsafe.Pointer(&t)), 0)
	if errno != 0 {
		return 0, errno
	}
	return time.Duration(t.Nano()), nil
}

// Memory returns the bytes in RAM of the process and its descendants. Shared pages count once (proportional set size)
// or, where the kernel lacks that figure, once for each process.
func (p *Process) Memory() (int64, error) {
	var sum int64
	for _, pid := range family(p.ID()) {
		n, err := field(pid, "smaps_rollup", "Pss:")
		if err != nil {
			n, err = field(pid, "status", "VmRSS:")
		}
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum += n << 10
	}
	return sum, nil
}

func field(pid int, file, name string) (int64, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(data, []byte("\n"+name))
	if words := bytes.Fields(rest); ok && len(words) > 0 {
		return strconv.ParseInt(string(words[0]), 10, 64)
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}

// family returns a process and its descendants.
func family(pid int) []int {
	children := map[int][]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // the process has ended
		}
		child, parent, err := parseStat(data)
		if err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}

// parseStat reads the ids of a process and its parent from proc_pid_stat(5): "12 (na) me) S 1 …".
func parseStat(data []byte) (pid, parent int, err error) {
	open, end := bytes.IndexByte(data, ' '), bytes.LastIndexByte(data, ')')
	if open < 0 || end < 0 {
		return 0, 0, errors.New("not a process status")
	}
	words := bytes.Fields(data[end+1:])
	if len(words) < 2 {
		return 0, 0, errors.New("not a process status")
	}
	pid, err = strconv.Atoi(string(data[:open]))
	if err == nil {
		parent, err = strconv.Atoi(string(words[1]))
	}
	return pid, parent, err
}

// Cores returns the cores that this process may run on.
func Cores() []int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	_, rest, _ := bytes.Cut(data, []byte("\nCpus_allowed_list:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	list, err := parseCores(strings.TrimSpace(string(line)))
	if err != nil {
		return nil
	}
	return list
}

// parseCores parses a list such as 0-2,5.
func parseCores(s string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err = errors.Join(err, err2); err != nil || a < 0 || b < a || b >= 64*len(mask{}) {
			return nil, fmt.Errorf("cores %q", s)
		}
		for ; a <= b; a++ {
			list = append(list, a)
		}
	}
	return list, nil
}

// A mask is a set of cores in the kernel's form.
type mask [16]uint64

// StartOn starts cmd on these cores, or on all if there are none. It gets SIGTERM when this process ends.
func StartOn(cores []int, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if len(cores) == 0 {
		return cmd.Start()
	}
	// A child inherits the cores of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, during mask
	for _, c := range cores {
		during[c/64] |= 1 << (c % 64)
	}
	if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &before); err != nil {
		return fmt.Errorf("reading cores: %w", err)
	}
	if err := affinity(syscall.SYS_SCHED_SETAFFINITY, &during); err != nil {
		return fmt.Errorf("taking cores %v: %w", cores, err)
	}
	err := cmd.Start()
	return errors.Join(err, affinity(syscall.SYS_SCHED_SETAFFINITY, &before))
}

// affinity gets or sets the cores of this thread.
func affinity(call uintptr, m *mask) error {
	if _, _, errno := syscall.Syscall(call, 0, unsafe.Sizeof(*m), uintptr(unsafe.Pointer(m))); errno != 0 {
		return errno
	}
	return nil
}

// RaiseFiles raises the limit of open files to n for this process and its children, or to the hard limit if it may not
// go beyond.
func RaiseFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Cur >= n && limit.Max >= n {
		// Setrlimit even so: otherwise Go restores the original limit in the children.
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	wish := syscall.Rlimit{Cur: max(n, limit.Cur), Max: max(n, limit.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &wish) == nil {
		return nil
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// Files returns the limit of open files.
func Files() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Cur
}
