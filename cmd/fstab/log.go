package fstab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// journal is where journald takes standard error from; see sd_journal_stream_fd(3).
const journal = "/run/systemd/journal/stdout"

// usualLog is the log where there is no journal.
const usualLog = "/var/log/lockfs.log"

// openLog opens what is to be the daemon's standard error: a file, "journal", or by default the journal if there is one.
func openLog(to string) (*os.File, error) {
	switch {
	case to == "journal":
		return openJournal(journal)
	case to == "":
		if f, err := openJournal(journal); err == nil {
			return f, nil
		}
		to = usualLog
	case !filepath.IsAbs(to):
		return nil, fmt.Errorf("log=%s: want an absolute file name, or journal", to)
	}
	return os.OpenFile(to, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
}

// openJournal connects to journald as systemd does for a service: lines without a priority of their own are "info".
func openJournal(socket string) (*os.File, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	defer conn.Close()
	// Identifier, unit, priority, prefixes of levels, then whether to forward to syslog, kmsg and the console.
	if _, err := conn.Write([]byte("lockfs\n\n6\n0\n0\n0\n0\n")); err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	if err := conn.CloseRead(); err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	f, err := conn.File()
	if err != nil {
		return nil, errors.Join(errors.New("the journal"), err)
	}
	return f, nil
}
