package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionOf(t *testing.T) {
	const hash = "0123456789012345678901234567890123456789"
	revision := func(hash, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: hash}, {Key: "vcs.modified", Value: modified}}
	}
	for _, c := range []struct {
		name            string
		main            string
		settings        []debug.BuildSetting
		archived        string
		version, commit string
	}{
		{"a copy of the files", "(devel)", nil, "$Format:%H$\n", release, "unknown"},
		{"an archive of the repository", "(devel)", nil, hash + "\n", release, hash},
		{"a clone", "v0.0.0-20260102030405-0123456789ab", revision(hash, "false"), "$Format:%H$\n", release, hash},
		{"a clone that was edited", "v0.0.0-20260102030405-0123456789ab+dirty", revision(hash, "true"), "$Format:%H$\n", release, hash + " (modified)"},
		{"a tag", "v0.3.1", revision(hash, "false"), "$Format:%H$\n", "0.3.1", hash},
		{"a candidate's tag", "v0.3.1-rc1", revision(hash, "false"), "$Format:%H$\n", "0.3.1-rc1", hash},
		{"installed by its path", "v0.3.1", nil, "$Format:%H$\n", "0.3.1", "unknown"},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.main}, Settings: c.settings}
		if version, commit := versionOf(info, c.archived); version != c.version || commit != c.commit {
			t.Errorf("%s: version %q, commit %q, want %q, %q", c.name, version, commit, c.version, c.commit)
		}
	}
}
