#!/usr/bin/env bash
# Everything that can be said about the source without running the program.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '%s\n' "check: $*"; }

step "shell scripts"
for script in scripts/*.sh scripts/services web/build.sh .ci/run; do bash -n "$script"; done

step "go vet"
go vet ./...
scripts/with-librados.sh go vet -tags ceph,pacific ./store/rados ./cmd/gantry

step "formatting and linters"
go tool -modfile=tools.mod golangci-lint run ./...
scripts/with-librados.sh go tool -modfile=tools.mod golangci-lint run --build-tags ceph,pacific ./store/rados

step "layers and the other rules of the house"
go test -count=1 ./internal/lint

step "dead code"
dead=$(go tool -modfile=tools.mod deadcode -test ./...)
if [ -n "$dead" ]; then
	printf '%s\n' "$dead" >&2
	exit 1
fi
dead=$(scripts/with-librados.sh go tool -modfile=tools.mod deadcode -test -tags ceph,pacific -filter gantry/store/rados ./...)
if [ -n "$dead" ]; then
	printf '%s\n' "$dead" >&2
	exit 1
fi

step "modules"
go mod verify >/dev/null
go mod verify -modfile=tools.mod >/dev/null

step "all good"
