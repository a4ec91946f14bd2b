package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

const (
	markerName = "JOBWIRE"
	markerText = "jobwire store, format 3\n"
	// markerNew is the marker of a directory whose first opening has not come to its end: nothing in it was ever answered.
	markerNew = "jobwire store, format 3, new\n"
	// notesName is the file with what is known to have been synced.
	notesName = "SYNCED"
	lockName  = "LOCK"
	tmpSuffix = ".dbtmp" // of a file that is not complete yet

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
		case isStoreFile(name) && name != markerName+tmpSuffix: // the marker is the first file of all
			files = append(files, name)
		}
	}
	if !marked {
		if len(files) > 0 {
			return false, fmt.Errorf("%w: the file %s is missing beside %s", ErrDamaged, markerName, files[0])
		}
		return true, writeFile(fsys, dir, markerName, markerNew, true)
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
	return false, verify(fsys, dir, names)
}

// notes say what has been synced: which write-ahead log was the latest, and how long the manifest was. They are not synced
// themselves, so a power cut may leave older ones or none.
type notes struct {
	Log      string `json:"log"`
	Manifest string `json:"manifest"`
	Length   int64  `json:"length"`
}

// noLog is the Log of notes when the latest log was removed since nothing in it was needed any more.
const noLog = "none"

func (n notes) save(fsys vfs.FS, dir string) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return writeFile(fsys, dir, notesName, fmt.Sprintf("%08x %s\n", crc32.ChecksumIEEE(text), text), false)
}

func loadNotes(fsys vfs.FS, dir string) (n notes) {
	text, err := readFile(fsys, fsys.PathJoin(dir, notesName))
	sum, body, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	if err != nil || sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) || json.Unmarshal([]byte(body), &n) != nil {
		return notes{}
	}
	return n
}

// verify finds what pebble would open without, and without a word: a write-ahead log that was taken away, and a manifest
// whose end is damaged. Pebble takes both for what a crash may leave.
func verify(fsys vfs.FS, dir string, names []string) error {
	known := loadNotes(fsys, dir)
	highest := -1
	for _, name := range names {
		if n, ok := logNumber(name); ok {
			highest = max(highest, n)
		}
	}
	if n, ok := logNumber(known.Log); highest < 0 && known.Log != noLog || ok && n > highest {
		return fmt.Errorf("%w: the write-ahead log %s is missing", ErrDamaged, known.Log)
	}
	name, err := atomicfs.ReadMarker(fsys, dir, "manifest")
	if err != nil || name == "" {
		return fmt.Errorf("%w: no file says which manifest counts, %w", ErrDamaged, err)
	}
	f, err := fsys.Open(fsys.PathJoin(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the file %s is missing", ErrDamaged, name)
	case err != nil:
		return err
	}
	defer func() { _ = f.Close() }()
	var good int64
	for r := record.NewReader(f, 0); ; {
		part, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, part)
		}
		if err != nil {
			break
		}
		good = r.Offset()
	}
	if good == 0 || name == known.Manifest && good < known.Length {
		return fmt.Errorf("%w: the file %s is good for %d of %d bytes only", ErrDamaged, name, good, known.Length)
	}
	return nil
}

func logNumber(name string) (int, bool) {
	base, isLog := strings.CutSuffix(name, ".log")
	n, err := strconv.Atoi(base)
	return n, isLog && err == nil
}

// isStoreFile reports whether a file of the directory belongs to the store.
func isStoreFile(name string) bool {
	switch filepath.Ext(name) {
	case ".sst", ".log", ".blob", tmpSuffix:
		return true
	}
	return name == notesName || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "OPTIONS-") || strings.HasPrefix(name, "marker.")
}

// writeFile writes a small file so that it is there as a whole or not at all; when it is synced, also after a power cut.
func writeFile(fsys vfs.FS, dir, name, text string, sync bool) (err error) {
	tmp := fsys.PathJoin(dir, name+tmpSuffix)
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write([]byte(text)); err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, fsys.PathJoin(dir, name)); err != nil || !sync {
		return err
	}
	return syncDir(fsys, dir)
}

func syncDir(fsys vfs.FS, dir string) error {
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
