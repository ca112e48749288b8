#!/usr/bin/env bash
# Starts a real Elasticsearch 8.19 with security on, on 127.0.0.1, empty, and prints what the tests need:
#
#   eval "$(tests/servers/elasticsearch/start.sh)"
#   cargo test -p magicapi-exporters --test elasticsearch_real -- --nocapture
#   tests/servers/elasticsearch/stop.sh
#
# Needs a JDK 17 or newer (java, javac, jar), mvn, unzip, curl. The server is the distribution that its makers publish
# on Maven Central for integration tests; it is downloaded once (107 MB). First start about half a minute, then 10 s.
#
#   MAGICAPI_TEST_CACHE                   downloads         default $HOME/.cache/magicapi-tests
#   MAGICAPI_TEST_RUN                     server and data   default ${TMPDIR:-/tmp}/magicapi-tests-<uid>
#   MAGICAPI_TEST_ELASTICSEARCH_PORT      HTTP port         default 9271; the transport port is 100 above it
#   MAGICAPI_TEST_ELASTICSEARCH_PASSWORD  of user "elastic" default: a new one per start
set -euo pipefail

version=8.19.21
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${MAGICAPI_TEST_CACHE:-$HOME/.cache/magicapi-tests}"
run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
port="${MAGICAPI_TEST_ELASTICSEARCH_PORT:-9271}"
password="${MAGICAPI_TEST_ELASTICSEARCH_PASSWORD:-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')}"
home="$run/elasticsearch-$version"
pid_file="$run/elasticsearch-$port.pid"
log="$run/elasticsearch-$port.log"
url="http://127.0.0.1:$port"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

for tool in java javac jar mvn unzip curl; do
    command -v "$tool" >/dev/null || fail "$tool is missing; the server needs it"
done

# Elasticsearch refuses to run as root, so root hands it to nobody; that is also why it is unpacked outside of $HOME,
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
    local zip="$cache/elasticsearch-$version.zip"
    if [ ! -s "$zip" ]; then
        mkdir -p "$cache"
        say "downloading Elasticsearch $version"
        mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
            -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$version:zip" \
            -DoutputDirectory="$cache" >&2
    fi
    printf '%s' "$zip"
}

# The test distribution lacks the analysis module, without which the index behind API keys cannot be made.
build_plugin() {
    local classes plugin="$1/plugins/test-analysis"
    classes="$(mktemp -d)"
    mkdir -p "$plugin"
    javac -nowarn -cp "$1/lib/*" -d "$classes" "$here/TestAnalysis.java"
    jar cf "$plugin/test-analysis.jar" -C "$classes" .
    rm -rf "$classes"
    cat >"$plugin/plugin-descriptor.properties" <<PROPERTIES
description=What the security index needs and the test distribution lacks
name=test-analysis
version=1
classname=servers.TestAnalysis
java.version=17
elasticsearch.version=$version
PROPERTIES
}

install() {
    [ -d "$home" ] && return
    local zip unpacked
    zip="$(download)"
    unpacked="$(mktemp -d "$run/unpack.XXXXXX")"
    unzip -q "$zip" -d "$unpacked"
    build_plugin "$unpacked/elasticsearch-$version"
    mv "$unpacked/elasticsearch-$version" "$home" # whole or not at all
    rmdir "$unpacked"
}

wipe() {
    rm -rf "$home/data" "$home/logs" "$home/config/elasticsearch.keystore"
    mkdir -p "$home/data" "$home/logs"
    if [ "$(id -u)" = 0 ]; then chown -R nobody:nogroup "$home"; fi
}

in_home() { cd "$home" && HOME="$home" unprivileged "$@"; }

set_password() {
    (in_home bin/elasticsearch-keystore create >/dev/null)
    printf '%s' "$password" | (in_home bin/elasticsearch-keystore add -xf bootstrap.password)
}

launch() {
    (
        in_home bin/elasticsearch \
            -E "http.port=$port" -E "transport.port=$((port + 100))" \
            -E http.host=127.0.0.1 -E transport.host=127.0.0.1 -E discovery.type=single-node \
            -E xpack.security.enabled=true -E xpack.security.http.ssl.enabled=false \
            -E xpack.security.authc.api_key.enabled=true \
            -E cluster.routing.allocation.disk.threshold_enabled=false \
            >"$log" 2>&1 </dev/null &
        printf '%s\n' "$!" >"$pid_file"
    )
}

wait_until_healthy() {
    local deadline=$((SECONDS + 180))
    while [ "$SECONDS" -lt "$deadline" ]; do
        curl -sf -m 2 -o /dev/null -u "elastic:$password" "$url/_cluster/health" && return
        alive || break
        sleep 0.5
    done
    tail -n 20 "$log" >&2 || true
    fail "Elasticsearch did not come up; its log is $log"
}

mkdir -p "$run"
chmod 755 "$run"
alive && fail "already running as $(cat "$pid_file"); stop it with $here/stop.sh"
java_home="$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")"
export ES_JAVA_HOME="${ES_JAVA_HOME:-$java_home}" ES_JAVA_OPTS="${ES_JAVA_OPTS:--Xms512m -Xmx512m}"
install
wipe
set_password
launch
wait_until_healthy
printf 'export MAGICAPI_TEST_ELASTICSEARCH=%s\n' "$url"
printf 'export MAGICAPI_TEST_ELASTICSEARCH_PASSWORD=%s\n' "$password"
