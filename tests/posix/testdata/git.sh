# Four processes commit into one repository, each its own file, and try again when git's own lock is taken.
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
cd "$P"
git init -q -b main repo
cd repo
git commit -q --allow-empty -m root
worker() {
	for i in 1 2 3 4 5 6 7; do
		# a new file each time: git takes one that was rewritten within a second for the old one, and another's commit
		# would read one that is being rewritten
		echo "$1 $i" > "../new$1"
		mv "../new$1" "file$1"
		# git reads the index before it locks it, so that one process's add can undo another's
		until git add "file$1" 2>>"$T/git.err" && git commit -q -m "$1 $i" --only "file$1" 2>>"$T/git.err"; do sleep 0.02; done
	done
}
for w in 1 2 3 4; do worker $w & pids="$pids $!"; done
for pid in $pids; do wait $pid; done
if grep -v -e '^Another git' -e 'Unable to create.*index.lock.: File exists' -e "cannot lock ref 'HEAD': is at" \
	-e "pathspec 'file.' did not match" -e '^an editor' -e '^are terminated' -e '^may have crashed' -e '^remove the file' -e '^$' "$T/git.err"; then
	exit 1
fi
test "$(git log --oneline | wc -l)" = 29
for w in 1 2 3 4; do
	test "$(git log --format=%s -- file$w | tac)" = "$(for i in 1 2 3 4 5 6 7; do echo $w $i; done)"
done
git fsck --full --strict --no-dangling
git reset -q
test -z "$(git status --porcelain)"
git gc -q
git fsck --full --strict --no-dangling
git clone -q . ../clone
test "$(cat ../clone/file1)" = "1 7"
