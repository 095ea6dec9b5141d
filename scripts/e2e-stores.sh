#!/usr/bin/env bash
# The real program with stores of each kind: Ceph's RADOS and S3 gateway, and the strict servers that stand in for OSS and COS.
# Files of 300 MB and 2 GiB go there and come back while the program is killed, are moved from one store to another
# under load, and go there past the node. The last line counts the parts that passed and failed.
#
#   scripts/e2e-stores.sh [ARGUMENT OF go test]...
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${GANTRY_TEST_CEPH:-}" ]; then exec scripts/test.sh "$0" "$@"; fi

tests='TestStores|TestStoreAway|TestStoresMigrate|TestDirectUpload'
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
go test ./e2e -count=1 -timeout 10m -parallel 4 -v -run "^($tests)\$" -large $((2 << 30)) "$@" | tee "$log" || status=$?
passed=$(grep -cE '^ +--- PASS: |^--- PASS: TestStoresMigrate ' "$log" || true)
failed=$(grep -cE "^ +--- (FAIL|SKIP): |^--- (FAIL|SKIP): ($tests) " "$log" || true)
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi # it did not get as far as that
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
