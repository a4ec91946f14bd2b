package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errWrite = errors.New("the data directory cannot be written")

// fence is the file system of one instance. The first change of the directory that fails shuts it and ends the instance;
// pebble is told that all went well, then and from then on, and changes nothing any more. Nothing that pebble says counts
// after that, since the committer and all others look whether the instance has ended. So pebble never meets an error of
// writing: it would panic, in places where that ends the process, or stop with its locks held.
//
// The fence also knows which files are there, so that one that goes missing is noticed.
type fence struct {
	vfs.FS
	dir    string
	onDisk bool
	fail   func(error) // shuts it
	shut   atomic.Bool
	active atomic.Int64 // changes under way
	after  *vfs.MemFS   // takes the files that are created when it is shut

	mu    sync.Mutex
	files map[string]os.FileInfo // by name in dir; the info of those that are being written, else nil

	notesMu sync.Mutex // held while they are saved
	notes   notes
}

func newFence(inner vfs.FS, dir string, fail func(error)) (*fence, error) {
	f := &fence{
		FS: inner, dir: filepath.Clean(dir), onDisk: inner == vfs.Default, fail: fail,
		after: vfs.NewMem(), files: make(map[string]os.FileInfo), notes: loadNotes(inner, dir),
	}
	names, err := inner.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if (isStoreFile(name) || name == markerName) && filepath.Ext(name) != ".dbtmp" {
			f.files[name] = nil
		}
	}
	return f, f.after.MkdirAll(dir, 0o700)
}

// change does what changes the directory, and reports whether it did.
func (f *fence) change(what, name string, do func() error) bool {
	f.active.Add(1)
	defer f.active.Add(-1)
	if f.shut.Load() {
		return false
	}
	err := do()
	if err != nil {
		f.fail(fmt.Errorf("%w: %s %s: %w", errWrite, what, filepath.Base(name), err))
	}
	return err == nil
}

// quiet reports whether the fence is shut and nothing is on its way through it.
func (f *fence) quiet() bool { return f.shut.Load() && f.active.Load() == 0 }

// outside reports whether a path is not in the directory: that of a backup.
func (f *fence) outside(path string) bool {
	return filepath.Clean(path) != f.dir && filepath.Dir(path) != f.dir
}

// note remembers that a file is there, or with there false that it is not, before it goes.
func (f *fence) note(path string, there, writing bool) {
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
	names, err := f.FS.List(f.dir)
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
		path := f.PathJoin(f.dir, name)
		if !there[name] { // it may have come after the list
			switch _, err := f.FS.Stat(path); {
			case errors.Is(err, fs.ErrNotExist):
				return name, nil
			case err != nil:
				return "", err
			}
		}
		if info == nil {
			continue
		}
		now, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if !os.SameFile(now, info) {
			return name, nil
		}
	}
	return "", nil
}

// Unwrap implements vfs.FS.
func (f *fence) Unwrap() vfs.FS { return f.FS }

// Create implements vfs.FS.
func (f *fence) Create(name string, category vfs.DiskWriteCategory) (file vfs.File, err error) {
	if f.outside(name) {
		return f.FS.Create(name, category)
	}
	return f.open("create", name, category, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

// OpenReadWrite implements vfs.FS.
func (f *fence) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.outside(name) {
		return f.FS.OpenReadWrite(name, category, opts...)
	}
	return f.open("open", name, category, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (f *fence) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open("reuse", to, category, func() (vfs.File, error) {
		f.note(from, false, false)
		return f.FS.ReuseForWrite(from, to, category)
	})
}

func (f *fence) open(what, name string, category vfs.DiskWriteCategory, open func() (vfs.File, error)) (file vfs.File, err error) {
	did := f.change(what, name, func() error {
		if strings.HasPrefix(filepath.Base(name), "marker.") { // its name must not be on the disk before the manifest's
			if err := syncDir(f.FS, f.dir); err != nil {
				return err
			}
		}
		if file, err = open(); err == nil {
			f.note(name, true, true)
		}
		return err
	})
	if !did {
		return f.after.Create(name, category)
	}
	return &fencedFile{File: file, fence: f, name: name}, nil
}

// OpenDir implements vfs.FS.
func (f *fence) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil || f.outside(name) {
		return dir, err
	}
	return &fencedFile{File: dir, fence: f, name: name}, nil
}

// Open implements vfs.FS.
func (f *fence) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.shut.Load() {
		if file, err := f.after.Open(name, opts...); err == nil {
			return file, nil
		}
	}
	return f.FS.Open(name, opts...)
}

// Remove implements vfs.FS.
func (f *fence) Remove(name string) (err error) {
	if f.outside(name) {
		return f.FS.Remove(name)
	}
	f.change("remove", name, func() error {
		f.note(name, false, false)
		if err = f.FS.Remove(name); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Rename implements vfs.FS.
func (f *fence) Rename(from, to string) error {
	if f.outside(from) || f.outside(to) {
		return f.FS.Rename(from, to)
	}
	did := f.change("rename", from, func() error {
		f.note(from, false, false)
		if err := f.FS.Rename(from, to); err != nil {
			return err
		}
		f.note(to, true, true)
		return nil
	})
	if !did {
		_ = f.after.Rename(from, to)
	}
	return nil
}

// Lock implements vfs.FS. The store itself holds the lock, over all its instances.
func (f *fence) Lock(string) (io.Closer, error) { return nothing{}, nil }

type nothing struct{}

func (nothing) Close() error { return nil }

// fencedFile is a file, or the directory, that is written through a fence. One goroutine at a time writes it.
type fencedFile struct {
	vfs.File
	fence   *fence
	name    string
	noted   bool  // a log that the notes name
	written int64 // bytes
}

// Write implements vfs.File.
func (f *fencedFile) Write(p []byte) (int, error) {
	f.fence.change("write", f.name, func() error { _, err := f.File.Write(p); return err })
	f.written += int64(len(p))
	return len(p), nil
}

// WriteAt implements vfs.File.
func (f *fencedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fence.change("write", f.name, func() error { _, err := f.File.WriteAt(p, at); return err })
	return len(p), nil
}

// Preallocate implements vfs.File.
func (f *fencedFile) Preallocate(offset, length int64) error {
	f.fence.change("preallocate", f.name, func() error { return f.File.Preallocate(offset, length) })
	return nil
}

// Sync implements vfs.File.
func (f *fencedFile) Sync() error {
	f.fence.change("sync", f.name, func() error { return f.synced(f.File.Sync()) })
	return nil
}

// SyncData implements vfs.File.
func (f *fencedFile) SyncData() error {
	f.fence.change("sync", f.name, func() error { return f.synced(f.File.SyncData()) })
	return nil
}

// SyncTo implements vfs.File.
func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	f.fence.change("sync", f.name, func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

// Close implements vfs.File.
func (f *fencedFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.fence.change("close", f.name, func() error { return err })
	}
	return nil
}

// Stat implements vfs.File.
func (f *fencedFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err == nil {
		return info, nil
	}
	f.fence.change("stat", f.name, func() error { return err })
	return vfs.NewMemFile(nil).Stat()
}

// synced notes what of the file is known to be on the disk. See verify.
func (f *fencedFile) synced(err error) error {
	if err != nil {
		return err
	}
	base := filepath.Base(f.name)
	switch _, isLog := logNumber(base); {
	case isLog && !f.noted:
		f.noted = true
		return f.fence.synced(func(n *notes) { n.Log = base })
	case strings.HasPrefix(base, "MANIFEST-"):
		return f.fence.synced(func(n *notes) { n.Manifest, n.Length = base, f.written })
	}
	return nil
}

func (f *fence) synced(change func(n *notes)) error {
	f.notesMu.Lock()
	defer f.notesMu.Unlock()
	change(&f.notes)
	if err := f.notes.save(f.FS, f.dir); err != nil {
		return err
	}
	f.note(f.PathJoin(f.dir, notesName), true, false)
	return nil
}
