//go:build ignore

/*
 * o2dlm.c is a program as users of libo2dlm wrote it, nothing of it knows lockfs:
 *
 *	o2dlm MOUNT	exits 0 if everything is as dlmfs promises, else tells what is not
 *
 * It takes locks in both levels, tries a busy one, passes a value from holder to
 * holder, is woken by a blocking AST and drops its locks.
 */
#include <o2dlm/o2dlm.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int asts;

static void on_bast(void *arg)
{
	(void)arg;
	asts++;
}

static void must(const char *what, errcode_t got, errcode_t want)
{
	if (got == want)
		return;
	fprintf(stderr, "%s: got error %ld, want %ld\n", what, (long)got, (long)want);
	_exit(1);
}

static void check(const char *what, int ok)
{
	if (ok)
		return;
	fprintf(stderr, "%s: not so\n", what);
	_exit(1);
}

static struct o2dlm_ctxt *join_domain(const char *mount)
{
	struct o2dlm_ctxt *c;
	must("initialize", o2dlm_initialize(mount, "mydomain", &c), 0);
	return c;
}

/* other runs f in another process, which is another holder, and waits for it. */
static void other(const char *what, const char *mount, void (*f)(struct o2dlm_ctxt *))
{
	pid_t pid = fork();
	if (pid == 0) {
		struct o2dlm_ctxt *c = join_domain(mount);
		f(c);
		_exit(0);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	check(what, status == 0);
}

static void try_ex_is_busy(struct o2dlm_ctxt *c)
{
	must("try of a busy lock", o2dlm_lock(c, "a", O2DLM_TRYLOCK, O2DLM_LEVEL_EXMODE),
	     O2DLM_ET_TRYLOCK_FAILED);
}

static void try_pr_is_granted(struct o2dlm_ctxt *c)
{
	char buf[64];
	unsigned int n = 0;
	must("try of a shared lock", o2dlm_lock(c, "a", O2DLM_TRYLOCK, O2DLM_LEVEL_PRMODE), 0);
	must("read value", o2dlm_read_lvb(c, "a", buf, sizeof(buf), &n), 0);
	check("the value of the last holder", n == 64 && !strcmp(buf, "value of a"));
	must("unlock", o2dlm_unlock(c, "a"), 0);
}

static void wait_for_ex(struct o2dlm_ctxt *c)
{
	must("wait for a lock", o2dlm_lock(c, "a", 0, O2DLM_LEVEL_EXMODE), 0);
	must("unlock", o2dlm_unlock(c, "a"), 0);
}

int main(int argc, char **argv)
{
	check("usage: o2dlm MOUNT", argc == 2);
	initialize_o2dl_error_table();
	struct o2dlm_ctxt *c = join_domain(argv[1]);

	char value[64] = "value of a";
	unsigned int n = 0;
	must("lock EX", o2dlm_lock(c, "a", 0, O2DLM_LEVEL_EXMODE), 0);
	must("write value", o2dlm_write_lvb(c, "a", value, sizeof(value), &n), 0);
	check("64 bytes were written", n == 64);
	other("a busy lock", argv[1], try_ex_is_busy);
	must("unlock", o2dlm_unlock(c, "a"), 0);

	must("lock PR", o2dlm_lock(c, "a", 0, O2DLM_LEVEL_PRMODE), 0);
	other("a shared lock", argv[1], try_pr_is_granted);
	must("unlock", o2dlm_unlock(c, "a"), 0);

	int fd = -1;
	must("lock with AST", o2dlm_lock_with_bast(c, "a", 0, O2DLM_LEVEL_EXMODE, on_bast, NULL, &fd), 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	check("no AST yet", poll(&p, 1, 0) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(fd); /* inherited: it would keep the lock */
		wait_for_ex(join_domain(argv[1]));
		_exit(0);
	}
	check("a blocking AST", poll(&p, 1, 10000) == 1 && (p.revents & POLLIN));
	o2dlm_process_bast(c, fd);
	check("the AST was delivered", asts == 1);
	must("unlock", o2dlm_unlock(c, "a"), 0);
	int status = -1;
	waitpid(pid, &status, 0);
	check("the waiter was granted", status == 0);

	must("drop", o2dlm_drop_lock(c, "a"), 0);
	must("destroy", o2dlm_destroy(c), 0);
	puts("o2dlm: all as dlmfs promises");
	return 0;
}
