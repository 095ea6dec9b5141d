#!/usr/bin/env bash
# Makes web/dist, which is built into the server, of web/page and web/uploader. The files are committed, so that who builds
# the server needs no Node; `make web-check` proves that they are what the sources give. npm is needed for hash-wasm alone.
#
#   web/build.sh [DIRECTORY]     the directory instead of web/dist
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/dist}")
cd "$(dirname "$0")"

if [ ! uploader/node_modules/.package-lock.json -nt uploader/package-lock.json ]; then
	(cd uploader && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
fi

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

bundle() { # source, file, options
	go tool -modfile=../tools.mod esbuild "$1" --outfile="$new/$2" --bundle --minify --target=es2022 --charset=utf8 --log-level=warning "${@:3}"
}
bundle page/app.ts app.js --format=esm
bundle page/app.css app.css
bundle uploader/src/element/index.ts uploader.js --format=esm
bundle uploader/src/hash.worker.ts hash.worker.js --format=esm
cp page/index.html "$new"

mkdir -p "$out"
rm -f "$out"/*
cp "$new"/* "$out"
