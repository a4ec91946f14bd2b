package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// file is the ground of a view: a read transaction that begins at the first
// miss of the tables.
type file struct {
	db     *bbolt.DB
	tx     *bbolt.Tx
	bucket *bbolt.Bucket
}

func (f *file) begin() {
	if f.tx != nil {
		return
	}
	tx, err := f.db.Begin(false)
	if err != nil {
		panic(err)
	}
	f.tx = tx
	if f.bucket = tx.Bucket(bucketName); f.bucket == nil {
		panic(corrupt("the table of events"))
	}
}

func (f *file) close() {
	if f.tx != nil {
		_ = f.tx.Rollback()
		f.tx, f.bucket = nil, nil
	}
}

func (f *file) get(key []byte) []byte {
	f.begin()
	return f.bucket.Get(key)
}

func (f *file) seek(key []byte) (k, v []byte, step func() (k, v []byte)) {
	f.begin()
	c := f.bucket.Cursor()
	k, v = c.Seek(key)
	return k, v, c.Next
}

// openFile opens an existing file.
func openFile(path string) (*bbolt.DB, error) {
	if err := inspect(path); err != nil {
		return nil, err
	}
	var db *bbolt.DB
	var err error
	if p := protect(func() {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockWait,
			FreelistType: bbolt.FreelistMapType,
			// Whether the list of free pages is written is decided before each commit.
			NoFreelistSync: true,
			PageSize:       filePageSize,
		})
	}); p != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, p)
	}
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, ErrLocked
	case err != nil:
		return nil, err
	}
	return db, nil
}

// create makes an empty store under another name first: a file that exists
// is complete, so an empty one was truncated and is not taken for a new one.
func create(path string) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".new-*.db")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err := tmp.Close(); err != nil {
		return err
	}
	db, err := bbolt.Open(tmp.Name(), 0o600, &bbolt.Options{PageSize: filePageSize})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketName)
		if err != nil {
			return err
		}
		return b.Put(keyFormat, []byte{fileFormat})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A link does not replace what another process has made meanwhile.
	if err := os.Link(tmp.Name(), path); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		if err := os.Rename(tmp.Name(), path); err != nil { // no links on this file system
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// inspect finds a file that was cut off or overwritten before bbolt maps it:
// touching a page that is not there would be a fault, not an error. A process
// that is just writing the file could make one look wrong, so it looks again.
func inspect(path string) (err error) {
	for range 3 {
		if err = inspectOnce(path); err == nil || !errors.Is(err, ErrDamaged) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func inspectOnce(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	var newest meta
	for page := range int64(2) {
		b := make([]byte, metaSize)
		if _, err := f.ReadAt(b, page*filePageSize+pageHeader); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return err
		}
		if m, ok := parseMeta(b); ok && m.txid >= newest.txid {
			newest = m
		}
	}
	if newest.pages == 0 {
		return fmt.Errorf("%w: neither of its two head pages is valid", ErrDamaged)
	}
	if need := int64(newest.pages) * filePageSize; info.Size() < need {
		return fmt.Errorf("%w: it is cut off, %d of at least %d bytes are there", ErrDamaged, info.Size(), need)
	}
	return nil
}

// meta is what inspect needs of a head page.
type meta struct{ pages, txid uint64 }

const (
	pageHeader = 16
	metaSize   = 64
	metaMagic  = 0xED0CDAED
)

// parseMeta reads bbolt's head page: magic, version, page size and flags of 4
// bytes; root, sequence, free list, number of pages, transaction and checksum
// of 8 bytes, all in the byte order of the machine.
func parseMeta(b []byte) (m meta, ok bool) {
	if len(b) < metaSize {
		return meta{}, false
	}
	order := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if order.Uint32(b) != metaMagic || order.Uint32(b[8:]) != filePageSize || order.Uint64(b[56:]) != sum.Sum64() {
		return meta{}, false
	}
	m = meta{pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:])}
	root := order.Uint64(b[16:])
	return m, m.pages < 1<<50 && root < m.pages
}
