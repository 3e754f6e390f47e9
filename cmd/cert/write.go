package cert

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteNew writes a file that must not be there yet, with these rights whatever the umask, so that it is there after a crash.
func WriteNew(name string, text []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(name)
		}
	}()
	_, err = f.Write(text)
	return errors.Join(err, f.Chmod(mode), f.Sync(), syncDir(filepath.Dir(name)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Write writes a pair to new files: both or none.
func (p Pair) Write(cert, key string) error {
	if err := WriteNew(key, p.Key, 0o600); err != nil {
		return err
	}
	if err := WriteNew(cert, p.Cert, 0o644); err != nil {
		os.Remove(key)
		return err
	}
	return nil
}
