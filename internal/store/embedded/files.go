package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	markerName = "JOBWIRE"
	markerText = "jobwire store, format 2\n"
	// markerNew is the marker of a directory whose first opening has not come to its end: nothing in it was ever answered.
	markerNew = "jobwire store, format 2, new\n"
	// logNoteName is the file with the number of the latest write-ahead log that has been synced.
	logNoteName = "WAL"
	lockName    = "LOCK"

	formerFile = "jobwire.db" // of the format before this one
)

// Errors of Open, wrapped with what was found.
var (
	ErrLocked  = errors.New("the data directory is in use by another process")
	ErrFormat  = errors.New("the data directory has another format")
	ErrDamaged = errors.New("the data directory is damaged")
)

// remedy says what an operator can do about a directory that is damaged, and at what price.
const remedy = "restore a backup, or move the directory away to start empty: messages that no client has received yet, " +
	"the states of jobs and the answers to idempotency keys are lost then"

// prepare makes sure that dir is a store's directory, and reports whether it is a new one.
func prepare(fsys vfs.FS, dir string) (fresh bool, err error) {
	names, err := fsys.List(dir)
	if err != nil {
		return false, err
	}
	var files []string
	marked := false
	for _, name := range names {
		switch {
		case name == markerName:
			marked = true
		case name == formerFile:
			return false, fmt.Errorf("%w: %s is of a version before the first release, move it away to start empty", ErrFormat, formerFile)
		case isStoreFile(name):
			files = append(files, name)
		}
	}
	if !marked {
		if len(files) > 0 {
			return false, fmt.Errorf("%w: the file %s is missing beside %s", ErrDamaged, markerName, files[0])
		}
		return true, writeFile(fsys, dir, markerName, markerNew)
	}
	text, err := readFile(fsys, fsys.PathJoin(dir, markerName))
	switch {
	case err != nil:
		return false, err
	case text == markerNew:
		for _, name := range files {
			if err := fsys.Remove(fsys.PathJoin(dir, name)); err != nil {
				return false, err
			}
		}
		return true, nil
	case text != markerText:
		if strings.HasPrefix(text, "jobwire store, format ") && strings.HasSuffix(text, "\n") {
			return false, fmt.Errorf("%w: %q, this program knows %q", ErrFormat, strings.TrimSpace(text), strings.TrimSpace(markerText))
		}
		return false, fmt.Errorf("%w: the file %s is not what it was", ErrDamaged, markerName)
	}
	return false, checkLogs(fsys, dir, names)
}

// checkLogs finds a write-ahead log that was taken away. Pebble would open without it and without a word.
func checkLogs(fsys vfs.FS, dir string, names []string) error {
	highest := -1
	for _, name := range names {
		if n, ok := logNumber(name); ok {
			highest = max(highest, n)
		}
	}
	if highest < 0 {
		return fmt.Errorf("%w: the write-ahead log is missing", ErrDamaged)
	}
	text, err := readFile(fsys, fsys.PathJoin(dir, logNoteName))
	if err != nil {
		return nil //nolint:nilerr // a crash may leave none, or an unreadable one: the note is not synced
	}
	a, b, _ := strings.Cut(strings.TrimSpace(text), " ")
	if n, err := strconv.Atoi(a); err == nil && a == b && n > highest {
		return fmt.Errorf("%w: the write-ahead log %06d is missing", ErrDamaged, n)
	}
	return nil
}

func logNumber(name string) (int, bool) {
	base, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(base)
	return n, err == nil
}

// isStoreFile reports whether a file of the directory belongs to the store.
func isStoreFile(name string) bool {
	switch filepath.Ext(name) {
	case ".sst", ".log", ".blob", ".dbtmp":
		return true
	}
	return name == logNoteName || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "OPTIONS-") || strings.HasPrefix(name, "marker.")
}

// writeFile writes a small file so that it is there as a whole or not at all, also after a power cut.
func writeFile(fsys vfs.FS, dir, name, text string) (err error) {
	tmp := fsys.PathJoin(dir, name+".dbtmp")
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, fsys.PathJoin(dir, name)); err != nil {
		return err
	}
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fsys vfs.FS, path string) (string, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<10))
	return string(b), errors.Join(err, f.Close())
}

var errFenced = errors.New("this opening of the store has failed")

// fence is the file system of one instance. Once it is shut, nothing that the instance still does changes a file. It knows
// which files are there, so that one that goes missing is noticed.
type fence struct {
	vfs.FS
	dir    string
	onDisk bool
	shut   atomic.Bool
	active atomic.Int64 // changes under way

	mu    sync.Mutex
	files map[string]os.FileInfo // by name in dir; the info of those that are being written, else nil
}

func newFence(inner vfs.FS, dir string) (*fence, error) {
	f := &fence{FS: inner, dir: dir, onDisk: inner == vfs.Default, files: make(map[string]os.FileInfo)}
	names, err := inner.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if (isStoreFile(name) || name == markerName) && filepath.Ext(name) != ".dbtmp" {
			f.files[name] = nil
		}
	}
	return f, nil
}

// Unwrap implements vfs.FS.
func (f *fence) Unwrap() vfs.FS { return f.FS }

// change does what changes files, unless the fence is shut.
func (f *fence) change(do func() error) error {
	f.active.Add(1)
	defer f.active.Add(-1)
	if f.shut.Load() {
		return errFenced
	}
	return do()
}

// quiet reports whether the fence is shut and nothing is on its way through it.
func (f *fence) quiet() bool { return f.shut.Load() && f.active.Load() == 0 }

// note remembers that a file is there, or with there false that it is not, before it goes.
func (f *fence) note(path string, there, writing bool) {
	if filepath.Dir(path) != filepath.Clean(f.dir) {
		return
	}
	var info os.FileInfo
	if writing && f.onDisk {
		info, _ = os.Stat(path)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if there {
		f.files[filepath.Base(path)] = info
	} else {
		delete(f.files, filepath.Base(path))
	}
}

// missing names a file that is gone or is not the one that is being written any more; "" when all are there.
func (f *fence) missing() (string, error) {
	names, err := f.List(f.dir)
	if err != nil {
		return "", err
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, info := range f.files {
		if !there[name] {
			if _, err := f.Stat(f.PathJoin(f.dir, name)); errors.Is(err, fs.ErrNotExist) { // it may have come after the list
				return name, nil
			}
			continue
		}
		if info == nil {
			continue
		}
		now, err := os.Stat(f.PathJoin(f.dir, name))
		if err != nil {
			return "", err
		}
		if !os.SameFile(now, info) {
			return name, nil
		}
	}
	return "", nil
}

// Create implements vfs.FS.
func (f *fence) Create(name string, category vfs.DiskWriteCategory) (file vfs.File, err error) {
	err = f.change(func() error {
		file, err = f.FS.Create(name, category)
		return err
	})
	return f.created(name, file, err)
}

// OpenReadWrite implements vfs.FS.
func (f *fence) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (file vfs.File, err error) {
	err = f.change(func() error {
		file, err = f.FS.OpenReadWrite(name, category, opts...)
		return err
	})
	return f.created(name, file, err)
}

// ReuseForWrite implements vfs.FS.
func (f *fence) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (file vfs.File, err error) {
	f.note(from, false, false)
	err = f.change(func() error {
		file, err = f.FS.ReuseForWrite(from, to, category)
		return err
	})
	return f.created(to, file, err)
}

func (f *fence) created(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	f.note(name, true, true)
	_, isLog := logNumber(filepath.Base(name))
	return &fencedFile{File: file, fence: f, name: name, unsyncedLog: isLog}, nil
}

// Link implements vfs.FS.
func (f *fence) Link(from, to string) error {
	return f.change(func() error { return f.FS.Link(from, to) })
}

// Remove implements vfs.FS.
func (f *fence) Remove(name string) error {
	return f.change(func() error {
		f.note(name, false, false)
		return f.FS.Remove(name)
	})
}

// RemoveAll implements vfs.FS.
func (f *fence) RemoveAll(name string) error {
	return f.change(func() error { return f.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (f *fence) Rename(from, to string) error {
	return f.change(func() error {
		f.note(from, false, false)
		if err := f.FS.Rename(from, to); err != nil {
			return err
		}
		f.note(to, true, true)
		return nil
	})
}

// MkdirAll implements vfs.FS.
func (f *fence) MkdirAll(dir string, perm os.FileMode) error {
	return f.change(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Lock implements vfs.FS. The store itself holds the lock, over all its instances.
func (f *fence) Lock(string) (io.Closer, error) { return nothing{}, nil }

type nothing struct{}

func (nothing) Close() error { return nil }

// fencedFile is a file that is written through a fence. One goroutine at a time writes it.
type fencedFile struct {
	vfs.File
	fence       *fence
	name        string
	unsyncedLog bool
}

// Write implements vfs.File.
func (f *fencedFile) Write(p []byte) (n int, err error) {
	err = f.fence.change(func() error {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (f *fencedFile) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.fence.change(func() error {
		n, err = f.File.WriteAt(p, at)
		return err
	})
	return n, err
}

// Preallocate implements vfs.File.
func (f *fencedFile) Preallocate(offset, length int64) error {
	return f.fence.change(func() error { return f.File.Preallocate(offset, length) })
}

// Sync implements vfs.File.
func (f *fencedFile) Sync() error {
	return f.fence.change(func() error { return f.synced(f.File.Sync()) })
}

// SyncData implements vfs.File.
func (f *fencedFile) SyncData() error {
	return f.fence.change(func() error { return f.synced(f.File.SyncData()) })
}

// SyncTo implements vfs.File.
func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	err = f.fence.change(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// synced writes the number of a log down once it has been synced, and its name with it. See checkLogs.
func (f *fencedFile) synced(err error) error {
	if err != nil || !f.unsyncedLog {
		return err
	}
	f.unsyncedLog = false
	n, _ := logNumber(filepath.Base(f.name))
	path := f.fence.PathJoin(f.fence.dir, logNoteName)
	note, err := f.fence.FS.Create(path+".dbtmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(note, "%d %d\n", n, n)
	if err := errors.Join(err, note.Close()); err != nil {
		return err
	}
	if err := f.fence.FS.Rename(path+".dbtmp", path); err != nil {
		return err
	}
	f.fence.note(path, true, false)
	return nil
}
