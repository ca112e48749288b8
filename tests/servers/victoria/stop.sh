#!/usr/bin/env bash
# Ends the servers that start.sh started, by the pids that it wrote down. Takes the same variables.
set -euo pipefail

run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"

stop() {
    local pid_file="$1" pid
    [ -s "$pid_file" ] || return 0
    pid="$(cat "$pid_file")"
    rm -f "$pid_file"
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    kill -9 "$pid" 2>/dev/null || true
}

stop "$run/victorialogs-${MAGICAPI_TEST_VICTORIALOGS_PORT:-9472}.pid"
stop "$run/victoriametrics-${MAGICAPI_TEST_VICTORIAMETRICS_PORT:-8472}.pid"
