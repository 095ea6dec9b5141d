#!/usr/bin/env bash
# Runs the command given with the real servers of scripts/services up, and stops them afterwards, also after
# a failure or Ctrl-C, unless they were up before. At the end a table says which of them each suite met;
# with CI=true it is a failure if one was missing.
#
#   scripts/test.sh go test -race ./meta/...
set -euo pipefail
cd "$(dirname "$0")/.."

export GANTRY_TEST_REPORT # internal/testenv appends to it
GANTRY_TEST_REPORT=$(mktemp)
eval "$(scripts/services env)"
ours=$GANTRY_SERVICES_DIR/of-make-test # so that the next run stops what a killed one left
stop=
if [ -e "$ours" ] || ! scripts/services status >/dev/null 2>&1; then stop=yes; fi

# shellcheck disable=SC2317 # called by the trap
finish() {
	status=$?
	trap '' INT TERM HUP
	if [ -n "$stop" ]; then scripts/services down || status=1; fi
	rm -f "$GANTRY_TEST_REPORT"
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if variables=$(scripts/services up); then
	eval "$variables"
	if [ -n "$stop" ]; then : >"$ours"; fi
elif [ "${CI:-}" = true ]; then
	exit 1
else
	echo "test: not all real servers are here, so their tests are skipped" >&2
fi

status=0
"$@" || status=$?

table() { # of suites and servers; fails if a server was missing
	awk -F'\t' -v root="$PWD/" '
		BEGIN { n = split("MYSQL MYSQL_REPLICA POSTGRES REDIS REDIS_CLUSTER RABBITMQ CEPH RADOS S3", servers, " ") }
		{
			suite = index($1, root) == 1 ? substr($1, length(root) + 1) : $1
			server = substr($2, length("GANTRY_TEST_") + 1)
			suites[suite]
			if (word[suite, server] != "MISSING") word[suite, server] = $3 == "met" ? "met" : "MISSING"
			missing += $3 != "met"
		}
		function row(suite,   i, line) {
			line = sprintf("%-24s", suite)
			for (i = 1; i <= n; i++) line = line sprintf("  %-14s", (suite, servers[i]) in word ? word[suite, servers[i]] : "-")
			return line
		}
		END {
			for (i = 1; i <= n; i++) word["real servers", servers[i]] = servers[i]
			print row("real servers")
			fflush()
			for (suite in suites) print row(suite) | "sort"
			exit missing > 0
		}' "$GANTRY_TEST_REPORT"
}
table || if [ "${CI:-}" = true ]; then status=1; fi
exit "$status"
