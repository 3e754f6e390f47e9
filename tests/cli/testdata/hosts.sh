# For scripts with several hosts: each has a directory with its data, its mount and its log. Ports are this script's own.
port=$((10000 + 2 * ($$ % 10000))) gossip=$((port + 1))
declare -A pid
trap 'end 2>/dev/null' EXIT
trap 'exit 1' TERM
end() {
	kill -9 ${pid[@]}
	wait
	for d in $PWD/host*; do umount -l $d/m; done # */m does not match a dead mount
}
config() { # NAME ADDRESS [ADVERTISED]: NAME.toml, with TLS and a key for gossip if they were made
	mkdir -p $1/m
	{
		echo "name = '$1'"
		echo "bind = '$2:$port'"
		[ -z "${3:-}" ] || echo "advertise = '$3:$port'"
		echo "gossip = '$2:$gossip'"
		echo "join = ['127.0.13.1:$gossip', '127.0.13.2:$gossip', '127.0.13.3:$gossip']"
		echo "data-dir = '$PWD/$1/data'"
		echo "session-ttl = '3s'"
		echo "drain = '1s'"
		[ ! -e keys/$1.pem ] || echo "tls-ca = '$PWD/keys/ca.pem'"
		[ ! -e keys/$1.pem ] || echo "tls-cert = '$PWD/keys/$1.pem'"
		[ ! -e keys/$1.pem ] || echo "tls-key = '$PWD/keys/$1-key.pem'"
		[ ! -e keys/gossip.key ] || echo "gossip-key-file = '$PWD/keys/gossip.key'"
	} > $1.toml
}
start() { # NAME [FLAGS]
	: > $1/out
	lockfs mount --config $1.toml "${@:2}" $1/m > $1/out 2>> $1/log &
	pid[$1]=$!
}
until_in() { # FILE PATTERN NAME: the daemon must not end before
	until grep -q -e "$2" $1; do kill -0 ${pid[$3]} || { echo "$3 ended:"; cat $3/log; exit 1; }; sleep 0.05; done
}
ready() { until_in $1/out ready $1; }        # NAME
says() { until_in $1/log "$2" $1; }          # NAME PATTERN
stop() { # NAME: shows its exit code if it is not 0
	kill ${pid[$1]}
	wait ${pid[$1]} || echo "$1 exits $?"
	unset pid[$1]
}
ended() { # NAME: shows its exit code
	wait ${pid[$1]}
	echo "$1 exits $?"
	unset pid[$1]
}
members() { # NAME COUNT: until that host shows so many, and as many voters and a leader
	until [ "$(lockfs hosts $1/m | grep -c -e ' leader ' -e ' voter ')" = $2 ] && [ "$(ls $1/m/.lockfs/hosts | wc -l)" = $2 ]; do sleep 0.1; done
}
