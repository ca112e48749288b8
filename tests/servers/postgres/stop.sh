#!/usr/bin/env bash
# Ends the server that start.sh started. Takes the same variables; its data stay until it is started anew.
set -euo pipefail

run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
pid_file="$run/postgres-${MAGICAPI_TEST_POSTGRES_PORT:-5471}/data/postmaster.pid"

[ -s "$pid_file" ] || exit 0
pid="$(head -n 1 "$pid_file")"
# Connections are cut, data are written.
kill -INT "$pid" 2>/dev/null || exit 0
for _ in $(seq 120); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.25
done
kill -QUIT "$pid"
