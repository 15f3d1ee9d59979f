package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

// separate has cmd start in a network namespace of its own.
func separate(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return cmd
}

// Prepare makes the network ready, once, inside: a new namespace begins with its loopback down, and with the machine's
// congestion control, whose pacing (bbr) would time loopback's packets.
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

// loopbackUp is "ip link set lo up": netdevice(7).
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
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
