package quickstart

import (
	"bytes"
	"os"
	"testing"
)

// TestACrashWhileThePortsChange: after a crash between the steps of a port change, the generated file does not look edited,
// and the next run completes the change.
func TestACrashWhileThePortsChange(t *testing.T) {
	portsAt := func(offset int) Ports {
		p, err := PortsAt(offset)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ports := func(offset int) []byte {
		data, err := renderSettings(portsAt(offset))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	before, after := ports(0), ports(10)
	both := []string{digest(before), digest(after)}
	for name, state := range map[string]struct {
		marker   marker
		settings []byte
	}{
		"before the file":  {marker{Format: markerFormat, PortOffset: 0, Settings: both}, before},
		"after the file":   {marker{Format: markerFormat, PortOffset: 0, Settings: both}, after},
		"after all of it":  {marker{Format: markerFormat, PortOffset: 10, Settings: both[1:]}, after},
		"before all of it": {marker{Format: markerFormat, PortOffset: 0, Settings: both[:1:1]}, before},
	} {
		for _, offset := range []int{0, 10, 20} {
			dir := t.TempDir()
			f := &folder{shown: "demo", dir: dir}
			if err := f.writeMarker(f.write, state.marker); err != nil {
				t.Fatal(err)
			}
			if err := f.write(fileSettings, state.settings); err != nil {
				t.Fatal(err)
			}
			if edited, err := f.settle(state.marker, portsAt(offset)); edited || err != nil {
				t.Errorf("%s, offset %d: edited %t, %v", name, offset, edited, err)
			}
			if got, err := os.ReadFile(f.path(fileSettings)); err != nil || !bytes.Equal(got, ports(offset)) {
				t.Errorf("%s, offset %d: the ports are others (%v)", name, offset, err)
			}
			m, err := f.readMarker()
			if err != nil || m.PortOffset != offset || len(m.Settings) != 1 || m.Settings[0] != digest(ports(offset)) {
				t.Errorf("%s, offset %d: marker %+v, %v", name, offset, m, err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
				t.Errorf("%s, offset %d: left %v (%v)", name, offset, entries, err)
			}
		}
	}
}

func FuzzParseMarker(f *testing.F) {
	f.Add([]byte(`{"format":1,"made":"2031-05-04T12:30:00Z","until":"2032-05-04T12:30:00Z","portOffset":3,"settings":["ab"]}`))
	f.Add([]byte(`{"format":1,"settings":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMarker(data)
		if err != nil {
			return
		}
		check := func(_ string, written []byte) error {
			again, err := parseMarker(written)
			if err != nil || again.PortOffset != m.PortOffset || !again.Until.Equal(m.Until) {
				t.Errorf("%s: read back as %+v, %v", data, again, err)
			}
			return nil
		}
		if err := new(folder).writeMarker(check, m); err != nil {
			t.Error(err)
		}
	})
}

func FuzzValidScope(f *testing.F) {
	f.Add("orders:read orders:write")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, scope string) {
		if validScope(scope) && (scope == "" || bytes.ContainsAny([]byte(scope), "\"\\\n\x00\x7f")) {
			t.Errorf("%q is taken", scope)
		}
	})
}
