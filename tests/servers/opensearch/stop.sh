#!/usr/bin/env bash
# Ends the server that start.sh started, by the pid that it wrote down. Takes the same variables.
set -euo pipefail

run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
pid_file="$run/opensearch-${MAGICAPI_TEST_OPENSEARCH_PORT:-9273}.pid"

[ -s "$pid_file" ] || exit 0
pid="$(cat "$pid_file")"
rm -f "$pid_file"
kill "$pid" 2>/dev/null || exit 0
for _ in $(seq 60); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.5
done
kill -9 "$pid" 2>/dev/null || true
