#!/usr/bin/env bash
# A tour of the main job on this machine: a large upload that survives kill -9 of both ends, its
# download, and instant upload. It uses a temporary directory (DEMO_DIR to choose where, 3 GiB of room)
# and removes it. DEMO_SIZE is the size of the file, in MiB.
set -euo pipefail
cd "$(dirname "$0")/.."

size=${DEMO_SIZE:-1024}
dir=$(mktemp -d "${DEMO_DIR:-${TMPDIR:-/tmp}}/gantry-demo-XXXXXX")
export XDG_STATE_HOME=$dir/state # where the client remembers unfinished uploads
server= put=
cleanup() {
	for pid in $put $server; do kill -9 "$pid" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
	printf '$ %s\n' "$*"
	"$@"
}

make -s build
export PATH=$PWD/bin:$PATH
unset $(compgen -e GANTRY_) # settings of the user's own server are not for this one
address=127.0.0.1:0 management=127.0.0.1:0 # any free port at first, the same ones later

start_server() {
	printf '$ gantry serve --listen %s --data data &\n' "$address"
	gantry serve --listen "$address" --management "$management" --data "$dir/data" --log-level warn \
		>"$dir/server.out" 2>>"$dir/server.log" &
	server=$!
	for _ in $(seq 200); do
		grep -q '^listening on' "$dir/server.out" && break
		if ! kill -0 "$server" 2>/dev/null; then
			cat "$dir/server.log" >&2
			exit 1
		fi
		sleep 0.05
	done
	grep '^listening on' "$dir/server.out"
	address=$(sed -n 's|^listening on http://||p' "$dir/server.out")
	management=$(sed -n 's|^management on http://||p' "$dir/server.out")
	export GANTRY_SERVER=http://$address GANTRY_MANAGEMENT=http://$management
}

say "1. A server, with nothing else installed"
start_server

say "2. A file of $size MiB"
head -c "${size}M" /dev/urandom >"$dir/movie.mkv"
ls -l "$dir/movie.mkv" | awk '{ print $5, "bytes" }'

say "3. Upload it, and kill the client -9 in the middle"
cd "$dir"
printf '$ gantry put --bwlimit %dMiB movie.mkv & sleep 2; kill -9 %%1\n' "$((size / 5))"
gantry put -q --bwlimit "$((size / 5))MiB" movie.mkv >put.out 2>&1 &
put=$!
sleep 2
kill -9 "$put" && wait "$put" 2>/dev/null || true
put=
run gantry uploads list

say "4. Kill the server -9 too, and start it again"
printf '$ kill -9 <server>\n'
kill -9 "$server" && wait "$server" 2>/dev/null || true
start_server
run gantry uploads list

say "5. The same command goes on where it stopped"
run gantry put movie.mkv
run gantry ls

say "6. Download it and compare"
run gantry get -q movie.mkv copy.mkv
run cmp movie.mkv copy.mkv && echo "identical"

say "7. Upload it again: the server has the bytes, the client proves that it has them too"
for _ in $(seq 200); do # until the worker has verified the first copy in the store
	[ -z "$(gantry transfers list --state queued,running,verifying,retrying --json)" ] && break
	sleep 0.1
done
run gantry put --name again.mkv movie.mkv
run gantry ls

say "8. What is on the disk"
printf '$ kill -TERM <server>; gantry doctor --deep --data data\n'
kill -TERM "$server" && wait "$server" || true
server=
gantry doctor --deep --data data
echo "$(find data -type f -links +0 -print0 | xargs -0 stat -c '%i %b' | sort -u | awk '{ s += $2 } END { printf "%d MiB on disk for two files of '"$size"' MiB", s / 2048 }')"
