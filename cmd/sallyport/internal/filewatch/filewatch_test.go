package filewatch_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/cmd/sallyport/internal/filewatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a state before it fails.
const patience = 2 * time.Minute

// watch runs Run over the interest and returns a channel that says what file holds each time that a change is told; ""
// if there is none.
func watch(t *testing.T, interest filewatch.Interest, file string) <-chan string {
	t.Helper()
	told := make(chan string, 1000)
	asked := make(chan struct{}, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- filewatch.Run(ctx, 50*time.Millisecond, func() filewatch.Interest {
			select {
			case asked <- struct{}{}:
			default:
			}
			return interest
		}, func() {
			text, _ := os.ReadFile(file)
			told <- string(text)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-asked
	<-asked // the first look is over: what happens from now on is seen
	return told
}

// expect waits until a change is told and the file holds text. One change may be told more than once.
func expect(t *testing.T, told <-chan string, text, what string) {
	t.Helper()
	for limit := time.After(patience); ; {
		select {
		case got := <-told:
			if got == text {
				return
			}
		case <-limit:
			t.Fatalf("%s was not noticed", what)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRunSeesEveryKindOfChange(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.xml")
	write(t, file, "1")
	told := watch(t, filewatch.Interest{Files: []string{file}}, file)

	write(t, file, "2")
	expect(t, told, "2", "a write in place")

	write(t, filepath.Join(dir, "new"), "3")
	do(t, os.Rename(filepath.Join(dir, "new"), file))
	expect(t, told, "3", "a rename")

	do(t, os.Remove(file))
	expect(t, told, "", "a removal")

	write(t, file, "4")
	expect(t, told, "4", "a creation")
}

func TestRunSeesFilesThatBeginToMatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "apis", "x.yaml")
	told := watch(t, filewatch.Interest{Globs: []string{filepath.Join(dir, "apis", "*.yaml")}}, file)
	do(t, os.Mkdir(filepath.Join(dir, "apis"), 0o700))
	for limit := time.After(patience); ; { // the folder is found at one of the next looks
		write(t, file, time.Now().String())
		select {
		case <-told:
			return
		case <-time.After(200 * time.Millisecond):
		case <-limit:
			t.Fatal("a file that matches a pattern was not noticed")
		}
	}
}

// TestRunFollowsKubernetesVolumes holds the swap of ..data, again and again: watchers die of the second one.
func TestRunFollowsKubernetesVolumes(t *testing.T) {
	dir := t.TempDir()
	volume := func(name, text string) {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "a.xml"), text)
		do(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		do(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	volume("..1", "1")
	file := filepath.Join(dir, "a.xml")
	do(t, os.Symlink(filepath.Join("..data", "a.xml"), file))
	told := watch(t, filewatch.Interest{Files: []string{file}}, file)
	for _, name := range []string{"..2", "..3", "..4"} {
		volume(name, name)
		expect(t, told, name, "the swap to "+name)
	}
}

// TestRunIgnoresOtherFiles holds that a log or a database beside the files wakes nobody.
func TestRunIgnoresOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.xml")
	write(t, file, "1")
	told := watch(t, filewatch.Interest{Files: []string{file}}, file)
	write(t, filepath.Join(dir, "access.log"), "line")
	select {
	case <-told:
		t.Error("another file's change was told")
	case <-time.After(500 * time.Millisecond): // on a slow machine the test shows less
	}
	write(t, file, "2")
	expect(t, told, "2", "a change")
}
