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

// fence is the file system of one instance. The first change of the directory that fails ends the instance; pebble is told
// that all went well, then and from then on, and changes nothing any more. Nothing that pebble says counts after that, since
// the committer and all others look whether the instance has ended. So pebble never meets an error of writing: it would
// panic, in places where that ends the process, or stop with its locks held.
//
// The fence also knows which files are there, so that one that goes missing is noticed. What is outside of the directory, as
// a backup is, passes.
type fence struct {
	vfs.FS
	in     *instance
	dir    string
	active atomic.Int64 // changes under way
	after  *vfs.MemFS   // takes the files that are created when the instance has ended

	mu    sync.Mutex
	files map[string]os.FileInfo // by name in dir; the info of those that are being written, else nil

	notesMu sync.Mutex // held while they are saved
	notes   notes
}

func newFence(in *instance) (*fence, error) {
	fsys, dir := in.s.fs, filepath.Clean(in.s.dir)
	f := &fence{
		FS: fsys, in: in, dir: dir, after: vfs.NewMem(), files: make(map[string]os.FileInfo), notes: loadNotes(fsys, dir),
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if (isStoreFile(name) || name == markerName) && filepath.Ext(name) != tmpSuffix {
			f.files[name] = nil
		}
	}
	return f, f.after.MkdirAll(dir, 0o700)
}

// change does what changes the directory, and reports whether it did.
func (f *fence) change(what, name string, do func() error) bool {
	f.active.Add(1)
	defer f.active.Add(-1)
	if f.in.isDead() {
		return false
	}
	err := do()
	if err != nil {
		f.in.fail(fmt.Errorf("%w: %s %s: %w", errWrite, what, filepath.Base(name), err))
	}
	return err == nil
}

// quiet reports whether the instance has ended and nothing of it is on its way to the directory.
func (f *fence) quiet() bool { return f.in.isDead() && f.active.Load() == 0 }

func (f *fence) outside(path string) bool {
	return filepath.Clean(path) != f.dir && filepath.Dir(path) != f.dir
}

// note remembers a file that is there and is written.
func (f *fence) note(path string) {
	var info os.FileInfo
	if f.FS == vfs.Default {
		info, _ = os.Stat(path)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[filepath.Base(path)] = info
}

// forget is for a file that is about to go.
func (f *fence) forget(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.files, filepath.Base(path))
}

// missing returns an error when a file is gone or is not the one that is being written any more.
func (f *fence) missing() error {
	names, err := f.FS.List(f.dir)
	if err != nil {
		return fmt.Errorf("the data directory cannot be read: %w", err)
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, info := range f.files {
		path, err := f.PathJoin(f.dir, name), error(nil)
		same := true
		switch {
		case info != nil:
			var now os.FileInfo
			if now, err = os.Stat(path); err == nil {
				same = os.SameFile(now, info)
			}
		case !there[name]: // it may have come after the list
			_, err = f.FS.Stat(path)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) || !same:
			return fmt.Errorf("%w: the file %s was removed or replaced", ErrDamaged, name)
		case err != nil:
			return fmt.Errorf("the data directory cannot be read: %w", err)
		}
	}
	return nil
}

func (f *fence) Unwrap() vfs.FS { return f.FS }

func (f *fence) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open("create", name, category, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

func (f *fence) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open("reuse", to, category, func() (vfs.File, error) {
		f.forget(from)
		return f.FS.ReuseForWrite(from, to, category)
	})
}

func (f *fence) open(what, name string, category vfs.DiskWriteCategory, open func() (vfs.File, error)) (file vfs.File, err error) {
	if f.outside(name) {
		return open()
	}
	did := f.change(what, name, func() error {
		if strings.HasPrefix(filepath.Base(name), "marker.") { // its name must not be on the disk before the manifest's
			if err := syncDir(f.FS, f.dir); err != nil {
				return err
			}
		}
		if file, err = open(); err == nil {
			f.note(name)
		}
		return err
	})
	if !did {
		return f.after.Create(name, category)
	}
	return &fencedFile{File: file, fence: f, name: name}, nil
}

func (f *fence) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil || f.outside(name) {
		return dir, err
	}
	return &fencedFile{File: dir, fence: f, name: name}, nil
}

func (f *fence) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.in.isDead() {
		if file, err := f.after.Open(name, opts...); err == nil {
			return file, nil
		}
	}
	return f.FS.Open(name, opts...)
}

func (f *fence) Remove(name string) (err error) {
	if f.outside(name) {
		return f.FS.Remove(name)
	}
	f.change("remove", name, func() error {
		// Opening removes the log that it has replayed before it makes the next one.
		f.notesMu.Lock()
		noted := f.notes.Log == filepath.Base(name)
		f.notesMu.Unlock()
		if noted {
			if err := f.saveNotes(func(n *notes) { n.Log = noLog }); err != nil {
				return err
			}
		}
		f.forget(name)
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

func (f *fence) Rename(from, to string) error {
	if f.outside(from) || f.outside(to) {
		return f.FS.Rename(from, to)
	}
	if !f.change("rename", from, func() error {
		f.forget(from)
		err := f.FS.Rename(from, to)
		if err == nil {
			f.note(to)
		}
		return err
	}) {
		_ = f.after.Rename(from, to)
	}
	return nil
}

// Lock has nothing to do: the store itself holds the lock, over all its instances.
func (f *fence) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// fencedFile is a file, or the directory, that is written through a fence. One goroutine at a time writes it.
type fencedFile struct {
	vfs.File
	fence   *fence
	name    string
	noted   bool  // a log that the notes name
	written int64 // bytes
}

func (f *fencedFile) Write(p []byte) (int, error) {
	f.fence.change("write", f.name, func() error { _, err := f.File.Write(p); return err })
	f.written += int64(len(p))
	return len(p), nil
}

func (f *fencedFile) Preallocate(offset, length int64) error {
	f.fence.change("preallocate", f.name, func() error { return f.File.Preallocate(offset, length) })
	return nil
}

func (f *fencedFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *fencedFile) SyncData() error { return f.sync(f.File.SyncData) }

// sync also notes what of the file is known to be on the disk. See verify.
func (f *fencedFile) sync(do func() error) error {
	f.fence.change("sync", f.name, func() error {
		if err := do(); err != nil {
			return err
		}
		base := filepath.Base(f.name)
		switch _, isLog := logNumber(base); {
		case isLog && !f.noted:
			f.noted = true
			return f.fence.saveNotes(func(n *notes) { n.Log = base })
		case strings.HasPrefix(base, "MANIFEST-"):
			return f.fence.saveNotes(func(n *notes) { n.Manifest, n.Length = base, f.written })
		}
		return nil
	})
	return nil
}

func (f *fence) saveNotes(change func(n *notes)) error {
	f.notesMu.Lock()
	defer f.notesMu.Unlock()
	change(&f.notes)
	if err := f.notes.save(f.FS, f.dir); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[notesName] = nil
	return nil
}

func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	f.fence.change("sync", f.name, func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

func (f *fencedFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.fence.change("close", f.name, func() error { return err })
	}
	return nil
}

func (f *fencedFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err == nil {
		return info, nil
	}
	f.fence.change("stat", f.name, func() error { return err })
	return vfs.NewMemFile(nil).Stat()
}
