package conn

import (
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// wanted are the capabilities asked for beyond go-fuse's own choice.
//
//   - ATOMIC_O_TRUNC: OPEN carries O_TRUNC, else a SETATTR without a handle follows it.
//   - DIRECT_IO_ALLOW_MMAP: mmap(MAP_SHARED) of files opened with FOPEN_DIRECT_IO.
//   - PARALLEL_DIROPS, of go-fuse's choice, lets LOOKUP and READDIR of one directory go on at once.
//   - AUTO_INVAL_DATA (EnableLocks and this are options of go-fuse): a cached read first makes sure that the attributes
//     are valid, so that cached pages are served no longer than attributes are; and pages go when mtime or size has
//     changed. Without it a page stays for ever, whatever becomes of the lease.
const wanted = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_DIRECT_IO_ALLOW_MMAP

// unwanted are capabilities that go-fuse would ask for.
const unwanted = fuse.CAP_READDIRPLUS | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PASSTHROUGH | fuse.CAP_NO_OPEN_SUPPORT |
	fuse.CAP_NO_OPENDIR_SUPPORT

// maxBackground is how many background requests the kernel may have in flight. RELEASE is one, and those past the
// limit wait in a queue of their own where a lock request sent later overtakes them: a process that closes 100
// descriptors and then tries one of those locks would find it taken. So there is no limit.
const maxBackground = 1<<16 - 1

func protocolOptions(o Options) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:                     o.Subtype,
		FsName:                   o.FSName,
		MaxWrite:                 o.MaxWrite,
		MaxBackground:            maxBackground,
		EnableLocks:              true,
		DisableReadDirPlus:       true,
		ExplicitDataCacheControl: o.ExplicitDataCache,
		ExtraCapabilities:        wanted,
		DisabledCapabilities:     unwanted,
		Logger:                   slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		PanicHandler:             func(v any) fuse.Status { panic(v) }, // a broken invariant ends the daemon
	}
}

// initialise takes note of what the kernel agreed to, from the reply to INIT.
func (l *Loop) initialise(reply []byte) {
	if native.Uint32(reply[4:]) != 0 || len(reply) < outHeaderSize+36 {
		return
	}
	body := reply[outHeaderSize:]
	l.settings.Store(&Settings{
		Minor:        native.Uint32(body[4:]),
		Capabilities: uint64(native.Uint32(body[12:])) | uint64(native.Uint32(body[32:]))<<32,
	})
}

// begin opens the mount to the daemon itself: INIT is answered.
func (l *Loop) begin() {
	if l.settings.Load() == nil {
		return
	}
	var err error
	if l.aside, err = newAside(l.conn.fd); err != nil {
		l.logger.Warn("a daemon that is killed may hang, with its clients", "error", err)
	}
	l.notifier.start()
	close(l.ready)
}
