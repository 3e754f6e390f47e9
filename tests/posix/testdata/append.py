# append.py FILE WHO N: adds N lines to a file that others add to as well.
import os, sys

path, who, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range(n):
    os.write(fd, b"%s %d %s\n" % (who.encode(), i, b"x" * (i % 50)))
