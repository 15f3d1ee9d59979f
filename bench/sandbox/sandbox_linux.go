package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

// separate makes cmd start in a new network namespace.
func separate(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return cmd
}

// Prepare sets up the network from inside. In a new namespace loopback is down, and the congestion control is the
// machine's; one with pacing, such as bbr, would delay packets on loopback.
func Prepare() error {
	if Inside() != namespaced {
		return nil
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("network namespace: bringing lo up: %w", err)
	}
	for file, value := range map[string]string{
		"tcp_congestion_control": "reno",
		"tcp_tw_reuse":           "1", // thousands of short connections a second
		"ip_local_port_range":    "10240 65000",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
	}
	return nil
}

// loopbackUp does what "ip link set lo up" does: netdevice(7).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	_, _, errno := syscall.Syscall(
		syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
