# sqlite.py DATABASE JOURNAL ROWS PAGES: two processes insert rows and count them in one row, transactions and rollbacks
# mixed; a write-ahead log is checkpointed every so many pages. Exits 1 if a writer failed, and 2 if anything is lost.
import os, sqlite3, sys

path, journal, rows, pages = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def connect():
    c = sqlite3.connect(path, timeout=60, isolation_level=None)
    got = c.execute("pragma journal_mode=" + journal).fetchone()[0]
    if got != journal:
        sys.exit("journal mode %s, want %s" % (got, journal))
    c.execute("pragma wal_autocheckpoint=" + pages)
    return c


def write(c, who, i):
    c.execute("begin immediate")
    c.execute("insert into t values (?, ?)", (who, i))
    n = c.execute("select v from n").fetchone()[0]
    c.execute("update n set v = ?", (n + 1,))


def work(who):
    c, done = connect(), 0
    try:
        for i in range(rows):
            write(c, who, i)
            if i % 7 == 3:
                c.execute("rollback")
                write(c, who, i)
            c.execute("commit")
            done += 1
    except sqlite3.Error as e:
        print(who, e, e.sqlite_errorname if hasattr(e, "sqlite_errorname") else "", flush=True)
    return done


c = connect()
c.execute("create table t (who int, i int, unique (who, i))")
c.execute("create table n (v int)")
c.execute("insert into n values (0)")
c.close()
children = []
for who in range(2):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(w, b"%d" % work(who))
        os._exit(0)
    os.close(w)
    children.append((pid, r))
done = 0
for pid, r in children:
    os.waitpid(pid, 0)
    done += int(os.read(r, 20) or b"0")
c = connect()
found = [c.execute(q).fetchone()[0] for q in ("pragma integrity_check", "select count(*) from t", "select v from n")]
print("done", done, "found", *found)
if found[0] != "ok" or found[1] < done or found[2] != found[1]:
    sys.exit(2)
if done < 2 * rows:
    sys.exit(1)
