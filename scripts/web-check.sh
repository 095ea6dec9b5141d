#!/usr/bin/env bash
# What is written in TypeScript: types, tests, and that web/dist is what the sources give. Without Node 20 or later, which is
# taken from Debian's packages if we are root, it says loudly that nothing was tested or, with CI=true, fails.
set -euo pipefail
cd "$(dirname "$0")/.."

has_node() { command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; }

if ! has_node && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "web-check: installing nodejs and npm from the distribution's packages" >&2
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm; } >&2 || true
fi
if ! has_node; then
	echo "NOT TESTED: web/page and web/uploader: Node 20 or later and npm are not here" >&2
	if [ "${CI:-}" = true ]; then exit 1; fi
	exit 0
fi

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
web/build.sh "$built"
if ! diff -rq "$built" web/dist; then
	echo "web-check: web/dist is not what the sources give. Run: make web" >&2
	exit 1
fi
cd web/uploader
npm run --silent check
npm test --silent
