package webdemo

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"path"
	"strings"
)

//go:embed page
var page embed.FS

// contentTypes are the kinds of file that the page is made of. They are spelled out because the host's own MIME tables differ,
// and a browser under nosniff refuses a script that comes with the wrong one. A file of another kind, such as the note in
// page/lib, is not served.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is one file of the page.
type asset struct {
	content     []byte
	contentType string
	etag        string // strong: a hash of content, in quotes
}

// assetsOf reads every servable file below root, keyed by its path from there.
func assetsOf(files fs.FS, root string) (map[string]asset, error) {
	assets := make(map[string]asset)
	err := fs.WalkDir(files, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		contentType, servable := contentTypes[path.Ext(name)]
		if !servable {
			return nil
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		assets[strings.TrimPrefix(name, root+"/")] = asset{
			content:     content,
			contentType: contentType,
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		return nil
	})
	return assets, err
}
