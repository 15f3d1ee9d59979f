package typed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Room is where documents are typed.
type Room struct {
	Dir      string        // where terminals start
	Env      []string      // of the terminals
	Patience time.Duration // how long a command may take to print what is shown

	terminals []*terminal
	silent    bool // something was started that does not say when it is ready
}

// OwnNetwork gives the calling goroutine, and the programs that it starts from now on, a network of their own, in which
// only loopback is: the ports that documents name are free there. The goroutine must not go on to other work. own is false,
// and nothing has changed, where the system allows no such thing, as it does to root only.
func OwnNetwork() (own bool, err error) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return false, nil
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true, err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return true, err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return true, unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
}

// Type does what a document says, in new terminals, until something is not as shown. Close ends what keeps running.
func (r *Room) Type(d Document) error {
	for _, s := range d.Steps {
		if err := r.step(s); err != nil {
			return fmt.Errorf("line %d: %w", s.Line, err)
		}
	}
	r.listen(0)
	return r.ended()
}

// ended names a command that was to keep running and has ended.
func (r *Room) ended() error {
	for _, t := range r.terminals {
		if code, ended := t.status(); ended && t.stays != "" {
			return fmt.Errorf("%s\nhas ended (exit code %d):\n%s", t.stays, code, t.printed())
		}
	}
	return nil
}

func (r *Room) step(s Step) error {
	for len(r.terminals) <= s.Terminal {
		t, err := open(r.Dir, r.Env)
		if err != nil {
			return err
		}
		r.terminals = append(r.terminals, t)
	}
	t := r.terminals[s.Terminal]
	if s.Command == "" {
		here, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", t.shell.Process.Pid))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(here, s.File), []byte(s.Content), 0o644)
	}
	asks := s.Compared && s.Shown != ""
	again := s.Again || r.silent && asks
	for end := time.Now().Add(r.Patience); ; {
		if err := t.enter(s.Command); err != nil {
			return err
		}
		good, err := r.await(t, s, end)
		switch {
		case err != nil:
			return err
		case good && s.Stays:
			t.stays = s.Command
			r.silent = s.Shown == ""
			return nil
		case good:
			r.silent = r.silent && !asks
			return nil
		case r.ended() != nil:
			return r.ended()
		case !again || time.Now().After(end):
			code, _ := t.status()
			return fmt.Errorf("%s\nprints (exit code %d):\n%s\nand the document shows:\n%s", s.Command, code, t.printed(), s.Shown)
		}
		r.listen(100 * time.Millisecond) // as a reader would look again
	}
}

// await reads what a command prints until it has ended, or has printed what is shown if it is one that stays.
func (r *Room) await(t *terminal, s Step, end time.Time) (good bool, err error) {
	for {
		if s.Stays && s.asShown(t.printed()) {
			return true, nil
		}
		if code, ended := t.status(); ended {
			if s.Stays {
				return false, nil
			}
			if s.Compared && s.Shown != "" { // which also says whether it succeeds
				return s.asShown(t.printed()), nil
			}
			return code == 0 && (!s.Compared || t.printed() == ""), nil
		}
		if t.gone {
			return false, fmt.Errorf("%s\nends the shell:\n%s", s.Command, t.printed())
		}
		if time.Now().After(end) {
			return false, fmt.Errorf("%s\nhas printed, after %s:\n%s\nand the document shows:\n%s", s.Command, r.Patience, t.printed(), s.Shown)
		}
		r.listen(time.Second)
	}
}

// listen reads what the terminals' programs print, waiting for the first of it at most so long.
func (r *Room) listen(atMost time.Duration) {
	var fds []unix.PollFd
	for _, t := range r.terminals {
		fds = append(fds, unix.PollFd{Fd: int32(t.master.Fd()), Events: unix.POLLIN})
	}
	if n, err := unix.Poll(fds, int(atMost.Milliseconds())); n <= 0 || err != nil {
		return // interrupted, or nothing: the caller looks again
	}
	buffer := make([]byte, 64<<10)
	for i, t := range r.terminals {
		if fds[i].Revents&unix.POLLIN != 0 {
			n, _ := unix.Read(int(t.master.Fd()), buffer)
			t.said = append(t.said, buffer[:max(n, 0)]...)
		} else if fds[i].Revents != 0 {
			t.gone = true
		}
	}
}

// Close presses Ctrl-C where something keeps running, the newest first, and ends all terminals.
func (r *Room) Close() (err error) {
	for i := len(r.terminals) - 1; i >= 0; i-- {
		t := r.terminals[i]
		if t.stays != "" {
			err = errors.Join(err, r.interrupt(t))
		}
		t.commands.Close()
		unix.Kill(-t.shell.Process.Pid, unix.SIGKILL) // the shell, and whatever it has left
		t.shell.Wait()
		t.master.Close()
		r.terminals = r.terminals[:i]
	}
	return err
}

func (r *Room) interrupt(t *terminal) error {
	if _, err := t.master.WriteString("\x03"); err != nil {
		return err
	}
	for end := time.Now().Add(r.Patience); ; {
		if _, ended := t.status(); ended {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s has not ended %s after Ctrl-C:\n%s", t.stays, r.Patience, t.printed())
		}
		r.listen(time.Second)
	}
}

// A terminal is a shell at a pseudoterminal.
type terminal struct {
	shell    *exec.Cmd
	master   *os.File
	commands *os.File // what is typed: each command ends with a zero
	said     []byte   // since the last command was typed
	stays    string   // the command that keeps running
	gone     bool     // the shell has ended
}

// shell reads commands from descriptor 3, not from the terminal, so that nothing is echoed. It marks their ends with
// their exit codes. Ctrl-C ends a command, not the shell.
const shell = `trap : INT
while IFS= read -r -d '' -u 3 typed; do eval "$typed" 3<&-; printf '\036%d\036' $?; done`

func open(dir string, env []string) (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master}
	slave, err := t.start(dir, env)
	if slave != nil {
		slave.Close()
	}
	if err != nil {
		master.Close()
		return nil, err
	}
	return t, nil
}

func (t *terminal) start(dir string, env []string) (slave *os.File, err error) {
	if err := unix.IoctlSetPointerInt(int(t.master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(t.master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return slave, err
	}
	defer read.Close()
	t.commands = write
	// A test that a script runs in the background has Ctrl-C ignored, and so would all that the shell starts.
	t.shell = exec.Command("env", "--default-signal=INT", "bash", "--norc", "--noprofile", "-c", shell)
	t.shell.Dir, t.shell.Env = dir, env
	t.shell.Stdin, t.shell.Stdout, t.shell.Stderr = slave, slave, slave
	t.shell.ExtraFiles = []*os.File{read}
	t.shell.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.shell.Start(); err != nil {
		return slave, errors.Join(err, write.Close())
	}
	return slave, nil
}

func (t *terminal) enter(command string) error {
	t.said = nil
	_, err := t.commands.WriteString(command + "\x00")
	return err
}

var (
	endMark = regexp.MustCompile("\x1e([0-9]+)\x1e")
	styles  = regexp.MustCompile("\x1b\\[[0-9;]*[a-zA-Z]|\r|\\^C|\x1b\\]8;[^\x1b]*\x1b\\\\")
)

// status is the exit code of the command typed last, once it has ended.
func (t *terminal) status() (code int, ended bool) {
	m := endMark.FindSubmatch(t.said)
	if m == nil {
		return 0, false
	}
	code, err := strconv.Atoi(string(m[1]))
	return code, err == nil
}

// printed is what the command has printed by now, without colours.
func (t *terminal) printed() string {
	said := t.said
	if at := endMark.FindIndex(said); at != nil {
		said = said[:at[0]]
	}
	return strings.TrimRight(styles.ReplaceAllString(string(said), ""), "\n")
}
