#!/usr/bin/env bash
# Measures the uploader in Debian's Chromium (e2e/browser/bench): how soon it begins, what hashing costs, how it compares with
# Uppy and tusd, how quick instant upload is, and whether the page ever stands still. Prints tables in Markdown.
#
#   scripts/bench-browser.sh [-size 4GiB] [-rounds 9]
#
# E2E_DIR: where files and servers' data go; /dev/shm compares the programs, a disk what they promise as well.
set -euo pipefail
cd "$(dirname "$0")/.."

TUSD_VERSION=v2.8.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gantry-bench
tusd=$tools/tusd-$TUSD_VERSION
mkdir -p "$tools"

while [ $# -gt 0 ]; do
	case $1 in
	-size) export BENCH_SIZE=$2 ;;
	-rounds) export BENCH_ROUNDS=$2 ;;
	*)
		echo "bench-browser: $1 is not known; there are -size and -rounds" >&2
		exit 2
		;;
	esac
	shift 2
done
for program in chromium npm; do
	if ! command -v "$program" >/dev/null; then
		echo "bench-browser: $program is not here; install it" >&2
		exit 1
	fi
done

throwaway=$(mktemp -d)
trap 'rm -rf "$throwaway"' EXIT
if [ ! -x "$tusd" ]; then
	echo "bench-browser: building tusd $TUSD_VERSION" >&2
	cat >"$throwaway/go.mod" <<-END
		module throwaway
		go 1.26
		require github.com/tus/tusd/v2 $TUSD_VERSION
		tool github.com/tus/tusd/v2/cmd/tusd
	END
	(cd "$throwaway" && go build -mod=mod -o "$tusd" github.com/tus/tusd/v2/cmd/tusd)
fi

go build -trimpath -o bin/gantry ./cmd/gantry
for package in web/uploader e2e/browser; do
	(cd "$package" && npm ci --ignore-scripts --no-audit --no-fund --silent)
done
bundle() {
	go tool -modfile=tools.mod esbuild "$1" --outfile="$throwaway/$2" --bundle --minify --format=iife --target=es2022 --log-override:empty-import-meta=silent --log-level=warning
}
bundle e2e/browser/bench/uppy.js uppy.js
bundle e2e/browser/bench/gantry.ts gantry.js
bundle web/uploader/src/hash.worker.ts hash.worker.js

cd e2e/browser
BENCH_ASSETS=$throwaway BENCH_TUSD=$tusd node bench/run.js
