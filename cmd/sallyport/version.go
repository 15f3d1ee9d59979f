package main

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// release is the version that this source is, or becomes when it is tagged. CHANGELOG.md names it too.
const release = "0.1.0-dev"

// archivedCommit is filled by `git archive`; a repository or a copy of its files holds the pattern itself.
//
//go:embed commit.txt
var archivedCommit string

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print version, commit and Go version", Args: noArgs}
	asJSON := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wantJSON, err := asJSON()
		if err != nil {
			return err
		}
		if wantJSON {
			version, commit := buildVersion()
			return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "commit": commit, "go": runtime.Version()})
		}
		return printVersion(cmd.OutOrStdout())
	}
	return cmd
}

func printVersion(out io.Writer) error {
	version, commit := buildVersion()
	_, err := fmt.Fprintf(out, "sallyport %s, commit %s, %s\n", version, commit, runtime.Version())
	return err
}

// buildVersion returns the version of this program and the commit it was built from, as far as anything recorded it.
func buildVersion() (version, commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return versionOf(info, archivedCommit)
}

// versionOf prefers the tag that the go command recorded to release, and the commit that it saw to the archive's.
func versionOf(info *debug.BuildInfo, archived string) (version, commit string) {
	version, commit = release, "unknown"
	// Between two tags the go command makes a version up that begins with the last one, v0.0.0 before the first.
	if tag := info.Main.Version; tag != "" && tag != "(devel)" && strings.Count(tag, "-") < 2 {
		version = strings.TrimPrefix(tag, "v")
	}
	if archived = strings.TrimSpace(archived); isHash(archived) {
		commit = archived
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	return version, commit + modified
}

func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) >= 40
}
