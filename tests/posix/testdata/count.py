# count.py KIND DIR N: takes a lock as some program does, N times, and adds one to a number each time.
import errno, fcntl, os, sys, time

kind, dir, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock, number = dir + "/lock", dir + "/number"


def apt():  # apt-pkg/contrib/fileutl.cc: GetLock
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lambda: os.close(fd)
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            time.sleep(0.001)


def dpkg():  # lib/dpkg/file.c: file_lock, which waits
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o660)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    return lambda: os.close(fd)


def filelock():  # Python's filelock: UnixFileLock
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            time.sleep(0.001)
            continue
        return lambda: (fcntl.flock(fd, fcntl.LOCK_UN), os.close(fd))


def unlinked():  # a lock file that goes with the lock
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.stat(lock).st_ino == os.fstat(fd).st_ino:
                return lambda: (os.unlink(lock), os.close(fd))
        except FileNotFoundError:
            pass
        os.close(fd)


def softlock():  # Python's filelock: SoftFileLock; git, too
    while True:
        try:
            fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC, 0o644)
            return lambda: (os.close(fd), os.unlink(lock))
        except FileExistsError:
            time.sleep(0.001)


take = {"apt": apt, "dpkg": dpkg, "filelock": filelock, "unlinked": unlinked, "softlock": softlock}[kind]
fd = os.open(number, os.O_RDWR | os.O_CREAT)
for _ in range(n):
    release = take()
    v = int(os.pread(fd, 20, 0) or b"0")
    os.pwrite(fd, b"%d" % (v + 1), 0)
    release()
