package conn

import "iter"

// names are the opcodes that the kernel sends, by their number.
var names = [opcodes]string{
	1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink", 11: "rmdir",
	12: "rename", 13: "link", opOpen: "open", opRead: "read", opWrite: "write", 17: "statfs", opRelease: "release", opFsync: "fsync",
	21: "setxattr", opGetxattr: "getxattr", opListxattr: "listxattr", 24: "removexattr", opFlush: "flush", opInit: "init",
	opOpendir: "opendir", opReaddir: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", opSetlk: "setlk", opSetlkw: "setlkw",
	34: "access", opCreate: "create", opInterrupt: "interrupt", 37: "bmap", 38: "destroy", opIoctl: "ioctl", opPoll: "poll",
	41: "notify_reply", 42: "batch_forget", 43: "fallocate", opReaddirplus: "readdirplus", 45: "rename2", 46: "lseek",
	47: "copy_file_range", opTmpfile: "tmpfile", 52: "statx",
}

// Requests returns how many requests of each kind were read, by the kernel's names in small letters; those without a name as
// "other".
func (l *Loop) Requests() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		var other uint64
		for op := range l.requests {
			n := l.requests[op].Load()
			switch {
			case n == 0:
			case names[op] == "":
				other += n
			case !yield(names[op], n):
				return
			}
		}
		if other > 0 {
			yield("other", other)
		}
	}
}
