#!/usr/bin/env bash
# Builds the server and the load generator, gets tusd and nginx, and compares them. Arguments go to the
# load generator: scripts/bench.sh -size 4GiB -rounds 5 -dirs /dev/shm -servers gantry,tusd
set -euo pipefail
cd "$(dirname "$0")/.."

TUSD_VERSION=v2.8.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gantry-bench
tusd=$tools/tusd-$TUSD_VERSION
mkdir -p "$tools"

case " $* " in *" -many "*) # no other servers, but databases, Redis and RabbitMQ
	if [ -z "${GANTRY_TEST_MYSQL:-}" ]; then exec scripts/test.sh "$0" "$@"; fi
	make -s build
	go build -trimpath -o "$tools/bench" ./bench
	exec "$tools/bench" -gantry bin/gantry "$@"
	;;
esac

case " $* " in *" -stores "*) # what else brings files into stores
	if [ -z "${GANTRY_TEST_CEPH:-}" ]; then exec scripts/test.sh "$0" "$@"; fi
	if ! command -v rclone s3cmd >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		echo "bench: installing rclone and s3cmd" >&2
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rclone s3cmd) >/dev/null
	fi
	make -s build-ceph
	go build -trimpath -o "$tools/bench" ./bench
	exec "$tools/bench" -gantry bin/gantry "$@"
	;;
esac

if [ ! -x "$tusd" ]; then
	echo "bench: building tusd $TUSD_VERSION" >&2
	throwaway=$(mktemp -d)
	trap 'rm -rf "$throwaway"' EXIT
	cat >"$throwaway/go.mod" <<-END
		module throwaway
		go 1.26
		require github.com/tus/tusd/v2 $TUSD_VERSION
		tool github.com/tus/tusd/v2/cmd/tusd
	END
	(cd "$throwaway" && go build -mod=mod -o "$tusd" github.com/tus/tusd/v2/cmd/tusd)
	rm -rf "$throwaway"
	trap - EXIT
fi

servers=gantry,tusd
PATH=$PATH:/usr/sbin
if ! command -v nginx >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "bench: installing nginx-light" >&2
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light) >/dev/null
fi
if command -v nginx >/dev/null; then
	servers+=,nginx
else
	echo "bench: no nginx here; install it to compare with it" >&2
fi

make -s build
go build -trimpath -o "$tools/bench" ./bench
exec "$tools/bench" -gantry bin/gantry -tusd "$tusd" -nginx "$(command -v nginx || true)" -servers "$servers" "$@"
