#!/usr/bin/env bash
# Checks docker/ without a container engine (docker/check): schemas, and the compose file's services as plain
# processes behind a real nginx, which is installed if it is missing and may be.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin

if [ -z "${GANTRY_TEST_MYSQL:-}" ]; then exec scripts/test.sh "$0" "$@"; fi
if ! command -v nginx >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "docker-check: installing nginx-light" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt=(apt-get -y -q -o DPkg::Lock::Timeout=300 install --no-install-recommends nginx-light)
	# Not the package's own server: it would take port 80.
	policy=
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f "$policy"' EXIT
	fi
	"${apt[@]}" >/dev/null 2>&1 || { apt-get update -q >/dev/null && "${apt[@]}" >/dev/null; } || true
fi
(cd docker/check && go vet ./... && go test ./... "$@")
