#!/usr/bin/env bash
# make demo: what lockfs does, step by step, with every command shown and every answer checked. It mounts in a directory of
# the checkout, ends by itself, leaves nothing behind, and fails if any step shows something else than it should.
#
# Two shells, A and B, are real bash processes that are fed one command at a time:
#
#   A 'command'        A runs it to its end; the output is shown
#   B_starts 'command' B begins it and does not wait for it
#   B_waits            B must still be at it after half a second
#   B_ends             B must come to its end now
#   shows TEXT         the output just shown must contain TEXT; `shows_not` likewise, `status N` its exit code
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/mount.bash"

bold= plain=
[ -t 1 ] && bold=$'\e[1m' plain=$'\e[0m'
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '   %s\n' "$*"; }
fail() {
	printf '\nThis is not what should happen: %s\n' "$*"
	exit 1
}

declare -A shell_in shell_out shell_pid
new_shell() { # NAME
	mkfifo "$lockfs_dir/$1.in" "$lockfs_dir/$1.out"
	(cd "$LOCKS" && exec bash --norc --noprofile <"$lockfs_dir/$1.in" >"$lockfs_dir/$1.out" 2>&1) &
	shell_pid[$1]=$!
	local in out
	exec {in}>"$lockfs_dir/$1.in" {out}<"$lockfs_dir/$1.out"
	rm "$lockfs_dir/$1.in" "$lockfs_dir/$1.out"
	shell_in[$1]=$in shell_out[$1]=$out
}

# Shells must not inherit each other's pipes, or none would ever see its end.
starts() { # NAME COMMAND
	printf '%s$ %s%s%s\n' "$1" "$bold" "$2" "$plain"
	printf '%s\nprintf "\\n:done %%d\\n" $?\n' "$2" >&"${shell_in[$1]}"
}

ends() { # NAME [SECONDS]: shows what the command prints until it ends
	local line
	output= code=
	while IFS= read -r -t "${2:-10}" -u "${shell_out[$1]}" line; do
		case $line in
		":done "*) code=${line#:done } && break ;;
		*) output+=$line$'\n' ;;
		esac
	done
	[ -n "$code" ] || fail "shell $1 did not come to the end of its command: $output"
	while [[ $output == *$'\n' ]]; do output=${output%$'\n'}; done
	[ -z "$output" ] || printf '%s\n' "$output"
}

A() { starts A "$1" && ends A; }
B() { starts B "$1" && ends B; }
C() { starts C "$1" && ends C; }
B_starts() { starts B "$1"; }
B_waits() {
	local line
	if IFS= read -r -t 0.5 -u "${shell_out[B]}" line; then fail "B should wait, but says: $line"; fi
	note "(B waits)"
}
B_ends() { note "(B goes on)" && ends B; }

shows() { [[ $output == *"$1"* ]] || fail "the output should contain '$1'"; }
shows_not() { [[ $output != *"$1"* ]] || fail "the output should not contain '$1'"; }
status() { [ "$code" = "$1" ] || fail "exit code $code instead of $1"; }

began=$SECONDS
title "Build, and mount in a directory of the checkout"
lockfs_up || fail "no mount"
note "lockfs mount --data-dir $lockfs_dir/data $LOCKS"
new_shell A
new_shell B
A 'mkdir db; touch db/orders; cd db; ls -l' && shows orders
B 'cd db'

title "Mutual exclusion between two shells, with the real flock(1)"
A 'exec 9<orders; flock 9' && status 0
B 'flock -n orders true; echo "flock exits $?"' && shows "flock exits 1"
B_starts 'flock orders echo "B has the lock"'
B_waits
A 'exec 9<&-'
B_ends && shows "B has the lock"
note "The same with nothing but open and close: O_RDWR is EX."
A 'exec 9<>orders'
B_starts 'exec 9<>orders; echo "B has it now"'
B_waits
A 'exec 9>&-'
B_ends && shows "B has it now"
B 'exec 9>&-'

title "The six modes: A holds the row, B tries the column"
expected='NL CR CW PR PW EX
NL: yes yes yes yes yes yes
CR: yes yes yes yes yes -
CW: yes yes yes - - -
PR: yes yes - yes - -
PW: yes yes - - - -
EX: yes - - - - -'
table='NL CR CW PR PW EX'
for held in nl cr cw pr pw ex; do
	row=
	A "exec 9<orders@$held" >/dev/null
	for wanted in nl cr cw pr pw ex; do
		B "lockfs run -n -m $wanted orders true" >/dev/null
		case $code in 0) row+=" yes" ;; 1) row+=" -" ;; *) fail "exit code $code" ;; esac
	done
	table+=$'\n'${held^^}:$row
	A 'exec 9<&-' >/dev/null
done
note 'exec 9<orders@MODE in A; lockfs run -n -m MODE orders true in B'
while read -r first rest; do
	[ "$first" = NL ] && rest="NL $rest" first=
	printf '   %-5s' "$first"
	printf '%-5s' $rest
	echo
done <<<"$table"
[ "$table" = "$expected" ] || fail "the compatibility table is another one"

title "A value in the lock: echo writes it, cat reads it and never waits"
A 'echo v41 > orders; cat orders' && shows v41
A 'exec 9<>orders'
note "A holds EX; B reads all the same."
B 'cat orders' && shows v41
A 'lockfs value 9 --set v42; exec 9>&-'
B 'cat orders; echo; getfattr --only-values -n user.lockfs.generation orders' && shows v42

title "Conversion: A keeps its lock and changes the mode"
A 'exec 9<>orders'
B 'flock -n -s orders true; echo "flock exits $?"' && shows "flock exits 1"
A 'lockfs convert 9 pr' && status 0
B 'flock -n -s orders true; echo "flock exits $?"' && shows "flock exits 0"
B 'exec 8<orders@pr'
A 'lockfs convert 9 ex -n; echo "convert exits $?"' && shows "convert exits 1"
B 'exec 8<&-'
A 'lockfs convert 9 ex -n; echo "convert exits $?"' && shows "convert exits 0"

title "A blocking AST: A is told that B asks, and lets go; who holds, who waits"
B_starts 'lockfs run -q -m pr orders -- echo "B reads"'
A 'lockfs notices 9 -w 5' && shows "blocking mode=EX wanted=PR" && shows "path=/db/orders"
A 'lockfs ls orders' && shows "EX    held" && shows "PR    waiting"
A 'ls ../.lockfs/held/db/orders ../.lockfs/waiting/db/orders' && shows "EX@" && shows "001.PR@"
A 'lockfs why orders' && shows "held up by"
A 'exec 9>&-'
B_ends && shows "B reads"
A 'lockfs ls orders' && shows_not held

title "A holder that is killed lets go at once"
new_shell C
C 'cd db; exec 9<>orders; echo "my pid is $$"'
victim=${output##* }
B_starts 'exec 9<>orders; echo "B has it"'
B_waits
A "kill -9 $victim" && { wait "${shell_pid[C]}"; } 2>/dev/null
B_ends && shows "B has it"
B 'exec 9>&-; getfattr --only-values -n user.lockfs.valid orders; echo " (the value is marked invalid: its last holder died)"' && shows "0 (the"
B 'echo v43 > orders; getfattr --only-values -n user.lockfs.valid orders' && shows 1

title "A token that grows with every grant, for third parties"
A 'lockfs run orders -c "echo \$LOCKFS_TOKEN"' && one=$output
A 'lockfs run orders -c "echo \$LOCKFS_TOKEN"' && two=$output
[ "$two" -gt "$one" ] || fail "the token did not grow"
A 'exec 9<>orders; lockfs token 9' && [ "$output" -gt "$two" ] || fail "the token did not grow"
A 's=$(lockfs token 9 --sequencer); echo "$s"; lockfs check --mount . "$s"' && shows stands
A 'exec 9>&-; lockfs check --mount . "$s"' && shows "does not stand" && status 1

title "The end: SIGTERM drains and unmounts"
for name in A B; do
	printf 'exit\n' >&"${shell_in[$name]}"
	wait "${shell_pid[$name]}"
done
dir=$lockfs_dir
lockfs_down || fail "the daemon did not end cleanly"
[ ! -e "$dir" ] || fail "$dir is still there"
! grep -q " $dir" /proc/mounts || fail "the mount is still there"
printf '\nAll of it as it should be, in %d s. Nothing is left behind.\n' $((SECONDS - began))
