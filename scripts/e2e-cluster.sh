#!/usr/bin/env bash
# Three nodes with their transfer processes on MariaDB, Redis and RabbitMQ, and what may befall them (e2e,
# TestCluster). The last line counts the parts that passed and failed.
#
#   scripts/e2e-cluster.sh [ARGUMENT OF go test]...
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
go test ./e2e -count=1 -timeout 10m -v -run '^(TestCluster|TestStoresOfNodes)$' "$@" | tee "$log" || status=$?
passed=$(grep -cE '^ *--- PASS: (TestCluster/|TestStoresOfNodes)' "$log" || true)
failed=$(grep -cE '^ *--- (FAIL|SKIP): (TestCluster|TestStoresOfNodes)' "$log" || true)
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi # it did not get as far as that
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
