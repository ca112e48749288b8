#!/usr/bin/env bash
# Starts a real PostgreSQL with passwords and TLS, on 127.0.0.1, empty, and prints what the tests need:
#
#   eval "$(tests/servers/postgres/start.sh)"
#   cargo test -p magicapi-exporters --test postgres_real -- --nocapture
#   tests/servers/postgres/stop.sh
#
# Needs Debian's package postgresql (13 or newer; its programs are looked for where Debian has them, then in PATH),
# openssl and setpriv. Takes about 3 s.
#
#   MAGICAPI_TEST_RUN            data and log      default ${TMPDIR:-/tmp}/magicapi-tests-<uid>
#   MAGICAPI_TEST_POSTGRES_PORT  port              default 5471
#   MAGICAPI_TEST_POSTGRES_KEEP  not empty: start with the data and password that stop.sh left
set -euo pipefail

run="${MAGICAPI_TEST_RUN:-${TMPDIR:-/tmp}/magicapi-tests-$(id -u)}"
port="${MAGICAPI_TEST_POSTGRES_PORT:-5471}"
home="$run/postgres-$port"
log="$home/log"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

bin="$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
[ -x "$bin/initdb" ] || bin="$(dirname "$(command -v initdb || true)")"
[ -x "$bin/initdb" ] || fail "initdb is missing; the server needs Debian's package postgresql"

# PostgreSQL refuses to run as root, so root hands it to nobody.
unprivileged() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
    else
        "$@"
    fi
}

make() {
    local password
    password="$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')"
    rm -rf "$home"
    mkdir -p "$home"
    printf '%s' "$password" >"$home/password"
    # No authority of its own: rustls takes no certificate of an authority as a server's.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$home/key.pem" -out "$home/cert.pem" 2>/dev/null
    if [ "$(id -u)" = 0 ]; then chown -R nobody:nogroup "$home"; fi
    (cd "$home" && unprivileged "$bin/initdb" -D "$home/data" -U postgres -E UTF8 --locale=C --no-sync \
        --auth=scram-sha-256 --pwfile="$home/password" >"$home/initdb.log" 2>&1) ||
        { cat "$home/initdb.log" >&2; fail "initdb failed"; }
    cat >>"$home/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$home'
max_connections = 30
ssl = on
ssl_cert_file = '$home/cert.pem'
ssl_key_file = '$home/key.pem'
CONF
}

mkdir -p "$run"
chmod 755 "$run"
! "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" || fail "already running on port $port; stop it with $(dirname "$0")/stop.sh"
[ -n "${MAGICAPI_TEST_POSTGRES_KEEP:-}" ] || make
(cd "$home" && unprivileged "$bin/pg_ctl" -D "$home/data" -l "$log" -w -t 60 start >/dev/null 2>&1 </dev/null) ||
    { tail -n 20 "$log" >&2; fail "PostgreSQL did not come up; its log is $log"; }
printf 'export MAGICAPI_TEST_POSTGRES=postgres://postgres:%s@127.0.0.1:%s/postgres\n' "$(cat "$home/password")" "$port"
printf 'export MAGICAPI_TEST_POSTGRES_CA=%s\n' "$home/cert.pem"
