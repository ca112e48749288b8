#!/usr/bin/env bash
# Seven faults of a back end at 2,000 requests per second, for Elasticsearch, PostgreSQL and OTLP: what
# crates/gateway/tests/faults does at 50 per second in every run of the tests, with release builds. Callers, provider and
# back ends are one process, the gateway is another; PostgreSQL is real and has a relay before it.
#
#   bench/faults.sh                                        prints a table; any broken promise ends it with an error
#
#   MAGICAPI_FAULTS_EXPORTERS=postgres,otlp                some of them only
#   MAGICAPI_FAULTS="dead,slow,refusing 400,refusing 401,throttling,rejecting records,closing"
#
# `postgres` needs what tests/servers/postgres/start.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=$(cargo test --quiet --release -p magicapi-ai-gateway --test faults --no-run --message-format=json |
    sed -n 's/.*"name":"faults".*"executable":"\([^"]*\)".*/\1/p')
work=$(mktemp -d)
chmod 755 "$work"
export MAGICAPI_TEST_RUN=$work
trap 'tests/servers/postgres/stop.sh; rm -rf "$work"' EXIT
eval "$(tests/servers/postgres/start.sh)"

echo "| exporter | fault | records | requests/s | in the back end | rejected | copies | ambiguous | peak, MiB | recovery, s |"
echo "|---|---|---|---|---|---|---|---|---|---|"
"$program" --ignored --exact --nocapture at_two_thousand_requests_a_second 2>&1 | awk '/^\|/ { print; fflush(); next } { other = other "\n" $0 }
    END { if (other !~ /test result: ok. 1 passed/) { print other >"/dev/stderr"; exit 1 } }'
