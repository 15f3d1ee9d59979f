package compare

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// A Machine describes where a comparison ran.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	System string `json:"system"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"` // of sallybench
}

// thisMachine describes this machine; what the system does not reveal stays empty.
func thisMachine(d Division) Machine {
	cores := len(d.GatewayCores) + len(d.LoadCores) // this process may be pinned to some of them
	if cores == 0 {
		cores = runtime.NumCPU()
	}
	return Machine{
		CPU:    line("/proc/cpuinfo", "model name", ":"),
		Cores:  cores,
		Memory: line("/proc/meminfo", "MemTotal", ":"),
		System: strings.Trim(line("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Kernel: text("/proc/sys/kernel/osrelease"),
		Go:     runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func text(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// line returns the value of the first line with this name.
func line(file, name, sign string) string {
	for l := range strings.Lines(text(file)) {
		if k, v, ok := strings.Cut(l, sign); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// commit returns the commit that this program was built from.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	c := "unknown"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			c = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			c += " (modified)"
		}
	}
	return c
}
