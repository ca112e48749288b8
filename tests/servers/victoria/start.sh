#!/usr/bin/env bash
# Starts a real VictoriaLogs and a real VictoriaMetrics on 127.0.0.1, empty, and prints what the tests need:
#
#   eval "$(tests/servers/victoria/start.sh)"
#   cargo test -p magicapi-exporters --test victoria_real -- --nocapture
#   tests/servers/victoria/stop.sh
#
# VictoriaMetrics parses Datadog's series, VictoriaLogs the formats of Loki, Splunk and OTLP; neither parser is ours.
# Needs go (1.26 or newer) and curl. The programs are built from the Go module proxy once, about 20 s each.
#
#   MAGICAPI_TEST_CACHE                 programs          default $HOME/.cache/magicapi-tests
#   MAGICAPI_TEST_RUN                   data and logs     default ${TMPDIR:-/tmp}/magicapi-tests-<uid>
#   MAGICAPI_TEST_VICTORIALOGS_PORT     HTTP port         default 9472
#   MAGICAPI_TEST_VICTORIAMETRICS_PORT  HTTP port         default 8472
set -euo pipefail

metrics_version=v1.148.8
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${MAGICAPI_TEST_CACHE:-$HOME/.cache/magicapi-tests}"
run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
logs_port="${MAGICAPI_TEST_VICTORIALOGS_PORT:-9472}"
metrics_port="${MAGICAPI_TEST_VICTORIAMETRICS_PORT:-8472}"
bin="$cache/victoria"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

for tool in go curl; do
    command -v "$tool" >/dev/null || fail "$tool is missing; the servers need it"
done

# Each program is named by its version, so that another version is another file; whole or not at all.
build_logs() {
    logs_program="$bin/victoria-logs-$(cat "$here"/victorialogs/go.{mod,sum} | sha256sum | cut -c -12)"
    [ ! -x "$logs_program" ] || return 0
    say "building VictoriaLogs"
    # The checkout may not be writable.
    (cd "$here/victorialogs" && go build -mod=readonly -buildvcs=false -trimpath -ldflags='-s -w' \
        -o "$logs_program.part" github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs >&2)
    mv "$logs_program.part" "$logs_program"
}

build_metrics() {
    metrics_program="$bin/victoria-metrics-$metrics_version"
    [ ! -x "$metrics_program" ] || return 0
    say "building VictoriaMetrics $metrics_version"
    GOBIN="$bin/go" go install -trimpath -ldflags='-s -w' \
        "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@$metrics_version" >&2
    mv "$bin/go/victoria-metrics" "$metrics_program"
}

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# launch NAME PORT PROGRAM ARGUMENTS…
launch() {
    local name="$1" port="$2" program="$3"
    shift 3
    rm -rf "$run/$name-$port"
    (
        "$program" -httpListenAddr="127.0.0.1:$port" -storageDataPath="$run/$name-$port" "$@" \
            >"$run/$name-$port.log" 2>&1 </dev/null &
        printf '%s\n' "$!" >"$run/$name-$port.pid"
    )
}

# wait_until_healthy NAME PORT
wait_until_healthy() {
    local deadline=$((SECONDS + 60))
    while [ "$SECONDS" -lt "$deadline" ]; do
        curl -sf -m 2 -o /dev/null "http://127.0.0.1:$2/health" && return
        alive "$run/$1-$2.pid" || break
        sleep 0.2
    done
    tail -n 20 "$run/$1-$2.log" >&2 || true
    fail "$1 did not come up; its log is $run/$1-$2.log"
}

mkdir -p "$bin" "$run"
for pid_file in "$run/victorialogs-$logs_port.pid" "$run/victoriametrics-$metrics_port.pid"; do
    ! alive "$pid_file" || fail "already running as $(cat "$pid_file"); stop it with $here/stop.sh"
done
build_logs
build_metrics
launch victorialogs "$logs_port" "$logs_program" -retentionPeriod=100y
launch victoriametrics "$metrics_port" "$metrics_program" -retentionPeriod=100y
wait_until_healthy victorialogs "$logs_port"
wait_until_healthy victoriametrics "$metrics_port"
printf 'export MAGICAPI_TEST_VICTORIALOGS=http://127.0.0.1:%s\n' "$logs_port"
printf 'export MAGICAPI_TEST_VICTORIAMETRICS=http://127.0.0.1:%s\n' "$metrics_port"
