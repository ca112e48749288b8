#!/usr/bin/env bash
# Starts a real OpenSearch 2.19 without its security plug-in on 127.0.0.1, empty, and prints what the tests need:
#
#   eval "$(tests/servers/opensearch/start.sh)"
#   cargo test -p magicapi-exporters --test opensearch_real -- --nocapture
#   tests/servers/opensearch/stop.sh
#
# Needs a JDK 17 or newer, mvn, unzip, curl. The server is the distribution that its makers publish on Maven Central for
# integration tests; it is downloaded once (56 MB). First start about 10 s, then 6 s.
#
#   MAGICAPI_TEST_CACHE             downloads         default $HOME/.cache/magicapi-tests
#   MAGICAPI_TEST_RUN               server and data   default ${TMPDIR:-/tmp}/magicapi-tests-<uid>
#   MAGICAPI_TEST_OPENSEARCH_PORT   HTTP port         default 9273; the transport port is 100 above it
set -euo pipefail

version=2.19.6
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${MAGICAPI_TEST_CACHE:-$HOME/.cache/magicapi-tests}"
run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
port="${MAGICAPI_TEST_OPENSEARCH_PORT:-9273}"
home="$run/opensearch-$version"
pid_file="$run/opensearch-$port.pid"
log="$run/opensearch-$port.log"
url="http://127.0.0.1:$port"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

for tool in java mvn unzip curl; do
    command -v "$tool" >/dev/null || fail "$tool is missing; the server needs it"
done

# OpenSearch refuses to run as root, so root hands it to nobody; that is also why it is unpacked outside of $HOME,
# which nobody cannot enter.
unprivileged() {
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
    else
        exec "$@"
    fi
}

alive() { [ -s "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

download() {
    local zip="$cache/opensearch-$version.zip"
    if [ ! -s "$zip" ]; then
        mkdir -p "$cache"
        say "downloading OpenSearch $version"
        mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
            -Dartifact="org.opensearch.distribution.integ-test-zip:opensearch:$version:zip" \
            -DoutputDirectory="$cache" >&2
    fi
    printf '%s' "$zip"
}

install() {
    [ -d "$home" ] && return
    local zip unpacked
    zip="$(download)"
    unpacked="$(mktemp -d "$run/unpack.XXXXXX")"
    unzip -q "$zip" -d "$unpacked"
    mv "$unpacked/opensearch-$version" "$home" # whole or not at all
    rmdir "$unpacked"
}

wipe() {
    rm -rf "$home/data" "$home/logs"
    mkdir -p "$home/data" "$home/logs"
    if [ "$(id -u)" = 0 ]; then chown -R nobody:nogroup "$home"; fi
}

in_home() { cd "$home" && HOME="$home" unprivileged "$@"; }

launch() {
    (
        in_home bin/opensearch \
            -E "http.port=$port" -E "transport.port=$((port + 100))" \
            -E http.host=127.0.0.1 -E transport.host=127.0.0.1 -E discovery.type=single-node \
            -E cluster.routing.allocation.disk.threshold_enabled=false \
            >"$log" 2>&1 </dev/null &
        printf '%s\n' "$!" >"$pid_file"
    )
}

wait_until_healthy() {
    local deadline=$((SECONDS + 180))
    while [ "$SECONDS" -lt "$deadline" ]; do
        curl -sf -m 2 -o /dev/null "$url/_cluster/health" && return
        alive || break
        sleep 0.5
    done
    tail -n 20 "$log" >&2 || true
    fail "OpenSearch did not come up; its log is $log"
}

mkdir -p "$run"
chmod 755 "$run"
alive && fail "already running as $(cat "$pid_file"); stop it with $here/stop.sh"
java_home="$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")"
export OPENSEARCH_JAVA_HOME="${OPENSEARCH_JAVA_HOME:-$java_home}"
export OPENSEARCH_JAVA_OPTS="${OPENSEARCH_JAVA_OPTS:--Xms512m -Xmx512m}"
install
wipe
launch
wait_until_healthy
printf 'export MAGICAPI_TEST_OPENSEARCH=%s\n' "$url"
