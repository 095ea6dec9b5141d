#!/usr/bin/env bash
# The page at / in a real browser: Debian's Chromium drives the real program through a network that breaks (e2e/browser). The
# last line counts the tests that passed and failed. Pictures of the page are left in e2e/browser/screenshots.
#
#   scripts/e2e-browser.sh [-full] [-browser firefox] [ARGUMENT OF node --test]...
#
# -full: files of 1 and 4 GiB instead of 256 and 512 MiB. E2E_DIR: where files and servers' data go (10 GiB with -full).
set -euo pipefail
cd "$(dirname "$0")/.."

export E2E_BROWSER=chromium E2E_LARGE=${E2E_LARGE:-256MiB} E2E_MEMORY=${E2E_MEMORY:-512MiB}
while [ $# -gt 0 ]; do
	case $1 in
	-full) E2E_LARGE=1GiB E2E_MEMORY=4GiB ;;
	-browser) E2E_BROWSER=$2 && shift ;;
	*) break ;;
	esac
	shift
done

package=$E2E_BROWSER
if [ "$package" = firefox ]; then package=firefox-esr; fi
if ! command -v "$package" >/dev/null; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "e2e-browser: $package is not here; install it: apt-get install $package fonts-noto-cjk" >&2
		exit 1
	fi
	echo "e2e-browser: installing $package" >&2
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" fonts-noto-cjk) >/dev/null
fi
if ! command -v npm >/dev/null; then
	echo "e2e-browser: npm is not here; install Node 20 or later" >&2
	exit 1
fi

go build -trimpath -o bin/gantry ./cmd/gantry
cd e2e/browser
npm ci --ignore-scripts --no-audit --no-fund --silent
exec node --test --test-concurrency=1 --test-timeout=3600000 --test-reporter=./lib/reporter.js "$@" test/*.test.js
