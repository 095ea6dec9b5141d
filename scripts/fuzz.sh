#!/usr/bin/env bash
# Runs every fuzz test of the module for FUZZTIME (30s), one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-30s}

for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	for name in $(grep -h --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | cut -d' ' -f2 | sort -u); do
		echo "fuzz: $dir $name $time"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$dir"
	done
done
