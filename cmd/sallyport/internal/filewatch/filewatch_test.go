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

// watch runs Run over the interest and returns a channel that tells of changes.
func watch(t *testing.T, interest filewatch.Interest) <-chan struct{} {
	t.Helper()
	told := make(chan struct{}, 100)
	asked := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- filewatch.Run(ctx, 50*time.Millisecond, func() filewatch.Interest {
			asked <- struct{}{}
			return interest
		}, func() { told <- struct{}{} })
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

func expect(t *testing.T, told <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s was not noticed", what)
	}
	for {
		select {
		case <-told: // of the same change
		case <-time.After(300 * time.Millisecond):
			return
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
	told := watch(t, filewatch.Interest{Files: []string{file}, Globs: []string{filepath.Join(dir, "apis", "*.yaml")}})

	write(t, file, "2")
	expect(t, told, "a write in place")

	write(t, filepath.Join(dir, "new"), "3")
	do(t, os.Rename(filepath.Join(dir, "new"), file))
	expect(t, told, "a rename")

	do(t, os.Remove(file))
	expect(t, told, "a removal")

	write(t, file, "4")
	expect(t, told, "a creation")

	do(t, os.Mkdir(filepath.Join(dir, "apis"), 0o700))
	for deadline := time.Now().Add(10 * time.Second); ; { // the folder is found at one of the next looks
		write(t, filepath.Join(dir, "apis", "x.yaml"), time.Now().String())
		select {
		case <-told:
			return
		case <-time.After(200 * time.Millisecond):
		}
		if time.Now().After(deadline) {
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
	told := watch(t, filewatch.Interest{Files: []string{file}})
	for _, name := range []string{"..2", "..3", "..4"} {
		volume(name, name)
		expect(t, told, "the swap to "+name)
	}
}

// TestRunIgnoresOtherFiles holds that a log or a database beside the files wakes nobody.
func TestRunIgnoresOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.xml")
	write(t, file, "1")
	told := watch(t, filewatch.Interest{Files: []string{file}})
	write(t, filepath.Join(dir, "access.log"), "line")
	write(t, file, "2")
	expect(t, told, "a change") // and not of the log before: expect takes all that belongs to one change
	write(t, filepath.Join(dir, "access.log"), "line")
	select {
	case <-told:
		t.Error("another file's change was told")
	case <-time.After(500 * time.Millisecond):
	}
}
