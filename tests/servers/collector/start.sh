#!/usr/bin/env bash
# Starts a real OpenTelemetry Collector on 127.0.0.1, empty, and prints what the tests need:
#
#   eval "$(tests/servers/collector/start.sh)"
#   cargo test -p magicapi-exporters --test collector_real -- --nocapture
#   cargo test -p magicapi-ai-gateway --test otlp -- --nocapture
#   tests/servers/collector/stop.sh
#
#   tests/servers/collector/start.sh --is-built     says by its status whether the program is there
#
# It takes OTLP over gRPC and HTTP, Datadog's logs and series, and Loki's push, each with upstream's own receiver, and
# writes what it understood to a file, as OTLP JSON.
# Needs go (1.24 or newer) and curl. The program is built from the Go module proxy once, one to five minutes.
#
#   MAGICAPI_TEST_CACHE                 the program       default $HOME/.cache/magicapi-tests
#   MAGICAPI_TEST_RUN                   output and log    default ${TMPDIR:-/tmp}/magicapi-tests-<uid>
#   MAGICAPI_TEST_COLLECTOR_GRPC_PORT   OTLP over gRPC    default 4377
#   MAGICAPI_TEST_COLLECTOR_HTTP_PORT   OTLP over HTTP    default 4378; Datadog and Loki have the two ports above it
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${MAGICAPI_TEST_CACHE:-$HOME/.cache/magicapi-tests}"
run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
grpc_port="${MAGICAPI_TEST_COLLECTOR_GRPC_PORT:-4377}"
http_port="${MAGICAPI_TEST_COLLECTOR_HTTP_PORT:-4378}"
bin="$cache/collector"
name="$run/collector-$http_port"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# Named by its sources, so that other sources are another file; whole or not at all.
program="$bin/collector-$(cat "$here"/program/{go.mod,go.sum,main.go} | sha256sum | cut -c -12)"
if [ "${1:-}" = --is-built ]; then
    [ -x "$program" ]
    exit
fi

build() {
    [ ! -x "$program" ] || return 0
    command -v go >/dev/null || fail "go is missing; the collector is built with it"
    say "building the collector"
    # The checkout may not be writable.
    (cd "$here/program" && go build -mod=readonly -buildvcs=false -trimpath -ldflags='-s -w' \
        -o "$program.part" . >&2)
    mv "$program.part" "$program"
}

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

wait_until_ready() {
    local deadline=$((SECONDS + 60)) status
    while [ "$SECONDS" -lt "$deadline" ]; do
        status="$(curl -s -m 2 -o /dev/null -w '%{http_code}' -H 'content-type: application/json' -d '{}' \
            "http://127.0.0.1:$http_port/v1/traces")" || true
        [ "$status" != 200 ] || return 0
        alive "$name.pid" || break
        sleep 0.2
    done
    tail -n 20 "$name.log" >&2 || true
    fail "the collector did not come up; its log is $name.log"
}

command -v curl >/dev/null || fail "curl is missing"
mkdir -p "$bin" "$run"
! alive "$name.pid" || fail "already running as $(cat "$name.pid"); stop it with $here/stop.sh"
build
rm -f "$name.jsonl"
(
    COLLECTOR_GRPC_PORT="$grpc_port" COLLECTOR_HTTP_PORT="$http_port" COLLECTOR_OUT="$name.jsonl" \
        COLLECTOR_DATADOG_PORT=$((http_port + 1)) COLLECTOR_LOKI_PORT=$((http_port + 2)) "$program" --config "$here/config.yaml" >"$name.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$name.pid"
)
wait_until_ready
printf 'export MAGICAPI_TEST_COLLECTOR_GRPC=http://127.0.0.1:%s\n' "$grpc_port"
printf 'export MAGICAPI_TEST_COLLECTOR_HTTP=http://127.0.0.1:%s\n' "$http_port"
printf 'export MAGICAPI_TEST_COLLECTOR_DATADOG=http://127.0.0.1:%s\n' $((http_port + 1))
printf 'export MAGICAPI_TEST_COLLECTOR_LOKI=http://127.0.0.1:%s\n' $((http_port + 2))
printf 'export MAGICAPI_TEST_COLLECTOR_OUT=%q\n' "$name.jsonl"
