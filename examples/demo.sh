#!/usr/bin/env bash
# make demo: what lockfs does, step by step, with every command shown and every answer checked. It runs three hosts on this
# machine, each with a daemon, an address on loopback and a mount of its own in a directory of the checkout, ends by itself,
# leaves nothing behind, and fails if any step shows something else than it should.
#
# On each of the hosts a, b and c a shell works, A, B and C: real bash processes that are fed one command at a time.
#
#   A 'command'          A runs it to its end; the output is shown
#   starts A 'command'   A begins it and does not wait for it
#   waits A              A must still be at it after half a second
#   goes_on A            A must come to its end now
#   shows TEXT           the output just shown must contain TEXT; `shows_not` likewise, `status N` its exit code
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
new_shell() { # NAME HOST
	mkfifo "$lockfs_dir/$1.in" "$lockfs_dir/$1.out"
	(cd "$lockfs_dir/$2/locks" && exec bash --norc --noprofile <"$lockfs_dir/$1.in" >"$lockfs_dir/$1.out" 2>&1) &
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
	while IFS= read -r -t "${2:-60}" -u "${shell_out[$1]}" line; do
		case $line in
		":done "*) code=${line#:done } && break ;;
		*) output+=$line$'\n' ;;
		esac
	done
	[ -n "$code" ] || fail "shell $1 did not come to the end of its command: $output"
	while [[ $output == *$'\n' ]]; do output=${output%$'\n'}; done
	[ -z "$output" ] || printf '%s\n' "$output"
}

end_shell() { # NAME
	printf 'exit\n' >&"${shell_in[$1]}"
	wait "${shell_pid[$1]}"
}

A() { starts A "$1" && ends A; }
B() { starts B "$1" && ends B; }
C() { starts C "$1" && ends C; }
D() { starts D "$1" && ends D; }
waits() { # NAME
	local line
	if IFS= read -r -t 0.5 -u "${shell_out[$1]}" line; then fail "$1 should wait, but says: $line"; fi
	note "($1 waits)"
}
goes_on() { note "($1 goes on)" && ends "$@"; }

shows() { [[ $output == *"$1"* ]] || fail "the output should contain '$1'"; }
shows_not() { [[ $output != *"$1"* ]] || fail "the output should not contain '$1'"; }
status() { [ "$code" = "$1" ] || fail "exit code $code instead of $1"; }

began=$SECONDS
title "Build, and start three hosts: a founds the cluster, b and c join it"
lockfs_up 3 || fail "no mounts"
for host in a b c; do note "lockfs mount ${lockfs_args[$host]} --data-dir …/$host/data …/$host/locks"; done
for host in a b c; do new_shell ${host^} $host; done
A 'until [ "$(cat .lockfs/hosts/* | grep -cE "^role=(leader|voter)")" = 3 ]; do sleep 0.1; done; grep role= .lockfs/hosts/*'
A 'mkdir db; touch db/orders; cd db; ls -l' && shows orders
note "What one host did, another shows a moment later; at once, where it has taken a lock since."
for shell in B C; do $shell 'until cd db 2>/dev/null; do :; done; until flock orders true 2>/dev/null; do :; done; ls -l' && shows orders; done

title "Mutual exclusion between hosts, with the real flock(1)"
A 'exec 9<orders; flock 9' && status 0
B 'flock -n orders true; echo "flock exits $?"' && shows "flock exits 1"
starts B 'flock orders echo "B has the lock"'
waits B
A 'exec 9<&-'
goes_on B && shows "B has the lock"
note "The same with nothing but open and close: O_RDWR is EX. The token grows with every grant, on whatever host."
A 'exec 9<>orders; lockfs token 9' && one=$output
starts B 'exec 9<>orders; lockfs token 9'
waits B
C 'cd ../.lockfs; until ls waiting/db/orders/*@b:* held/db/orders/*@a:* >/dev/null 2>&1; do :; done; ls held/db/orders waiting/db/orders; cd ../db' && shows "EX@a" && shows "001.EX@b"
A 'exec 9>&-'
goes_on B
[ "$output" -gt "$one" ] || fail "the token did not grow"
B 'exec 9>&-'

title "The six modes: A holds the row, B on another host tries the column"
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

title "A value in the lock: written on one host, read on the next; cat takes no lock and never waits"
A 'echo v41 > orders'
B 'flock -s orders cat orders' && shows v41
A 'exec 9<>orders'
note "A holds EX; B reads all the same."
B 'cat orders' && shows v41
A 'lockfs value 9 --set v42; exec 9>&-'
C 'flock -s orders cat orders; echo; getfattr --only-values -n user.lockfs.generation orders; echo' && shows v42

title "Conversion: A keeps its lock and changes the mode"
A 'exec 9<>orders'
B 'flock -n -s orders true; echo "flock exits $?"' && shows "flock exits 1"
A 'lockfs convert 9 pr' && status 0
B 'exec 8<orders@pr; flock -n -s orders echo "B reads too"' && shows "B reads too"
A 'lockfs convert 9 ex -n; echo "convert exits $?"' && shows "convert exits 1"
B 'exec 8<&-'
A 'lockfs convert 9 ex -n; echo "convert exits $?"' && shows "convert exits 0"

title "A blocking AST: A is told that somebody on another host asks, and lets go"
starts B 'lockfs run -q -m pr orders -- echo "B reads"'
A 'lockfs notices 9 -w 30' && shows "blocking mode=EX wanted=PR" && shows "path=/db/orders"
A 'exec 9>&-'
goes_on B && shows "B reads"

title "A holder that is killed lets go at once, and the value is marked: its writer may not have come to the end"
new_shell D a
D 'cd db; exec 9<>orders; echo "my pid is $$"'
starts B 'exec 9<>orders; getfattr --only-values -n user.lockfs.valid orders; echo'
waits B
A "kill -9 ${output##* }" && { wait "${shell_pid[D]}"; } 2>/dev/null
goes_on B && shows 0
B 'lockfs value 9 --set v43; exec 9>&-; getfattr --only-values -n user.lockfs.valid orders; echo' && shows 1

title "The leader is killed: nobody's lock is lost, nobody who waits is forgotten"
A 'until grep -l role=leader ../.lockfs/hosts/*; do :; done'
leader=${output##*/} others=()
for host in a b c; do [ $host = $leader ] || others+=(${host^}); done
X=${others[0]} Y=${others[1]}
$X 'exec 9<>orders; lockfs value 9 --set v44'
starts $Y 'flock orders cat orders'
waits $Y
end_shell ${leader^}
note "kill -9 of the daemon of $leader"
lockfs_kill $leader
$X "until l=\$(grep -l role=leader ../.lockfs/hosts/*) && [ \${l##*/} != $leader ]; do sleep 0.05; done; grep role= ../.lockfs/hosts/*"
$X 'lockfs value 9 --set v45; exec 9>&-; echo "$? after the commit through the new leader"' && shows "0 after"
goes_on $Y && shows v45
note "and it comes back: $leader is started again"
lockfs_start $leader || fail "it does not start"
new_shell ${leader^} $leader
${leader^} 'cd db; flock -s orders cat orders' && shows v45

title "A host is killed that holds a lock: it is freed when the session of the host ends"
$X 'exec 9<>orders; lockfs value 9 --set v46; lockfs token 9' && one=$output
starts $Y 'exec 9<>orders; lockfs token 9'
waits $Y
host=${X,}
note "kill -9 of the daemon of $host"
lockfs_kill $host
killed=$EPOCHREALTIME
goes_on $Y
[ "$output" -gt "$one" ] || fail "the token did not grow"
note "after $(((${EPOCHREALTIME/./} - ${killed/./}) / 1000)) ms, with --session-ttl 5s"
$Y 'cat <&9; echo; getfattr --only-values -n user.lockfs.valid orders; echo; exec 9>&-' && shows v46 && shows 0
$X 'lockfs token 9' && shows_not "$one"
end_shell $X
lockfs_start $host || fail "it does not start"
new_shell $X $host
$X 'cd db; echo v47 > orders; flock -s orders cat orders' && shows v47

title "The end: SIGTERM drains and unmounts"
for name in A B C; do end_shell $name; done
dir=$lockfs_dir
lockfs_down || fail "a daemon did not end cleanly"
[ ! -e "$dir" ] || fail "$dir is still there"
! grep -q " $dir" /proc/mounts || fail "a mount is still there"
printf '\nAll of it as it should be, in %d s. Nothing is left behind.\n' $((SECONDS - began))
