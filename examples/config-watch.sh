#!/bin/sh
# A configuration file that programs on all hosts watch, with inotify, as they would watch any file: written whole in one place,
# it is the same everywhere a moment later, and nobody ever reads half of it.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

program() { # MOUNT NAME: loads the file when it starts and whenever it changes
	mkfifo "$work/$2.changes"
	inotifywait -m -e modify "$1/app.conf" >"$work/$2.changes" 2>"$work/$2.says" & watch=$!
	exec 8<"$work/$2.changes"
	until grep -q established "$work/$2.says"; do sleep 0.05; done   # from here on no change is missed
	load "$@"
	until grep -q '^version=last' "$work/$2"; do
		read -r change <&8
		load "$@"
	done
	kill $watch
}
load() { # MOUNT NAME
	cat "$1/app.conf" >"$work/$2.new"
	mv "$work/$2.new" "$work/$2"
	paste -sd' ' "$work/$2" >>"$work/log"
}
write() { # VERSION: one commit, at the close
	printf 'version=%s\nlisten=80\nworkers=4\nend=%s\n' "$1" "$1" >"$a/app.conf"
}

write 1
until [ -s "$b/app.conf" ] && [ -s "$c/app.conf" ]; do sleep 0.05; done  # what one host makes another shows a moment later
program "$a" one & one=$!
program "$b" two & two=$!
program "$c" three & three=$!
until [ -e "$work/one" ] && [ -e "$work/two" ] && [ -e "$work/three" ]; do sleep 0.05; done

for version in 2 3 4 last; do write $version; done
wait $one; wait $two; wait $three
sort "$work/log" | uniq -c
test "$(grep -c '^version=last' "$work/log")" = 3
test -z "$(grep -v '^version=\(.*\) listen=80 workers=4 end=\1$' "$work/log")"  # all of it, always

rm "$a/app.conf"
