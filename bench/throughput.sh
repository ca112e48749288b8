#!/usr/bin/env bash
# Measures what each exporter costs, how many records it delivers at most, and what a dead back end takes of memory and disk.
# Callers, mock provider and back end (one that takes everything; a real PostgreSQL for postgres) are other processes, on the
# other core, so the CPU time of the gateway is its own. Rounds are interleaved: every exporter once, then every one again.
#
#   bench/throughput.sh      prints three tables: cost of a record at a steady pace, records per second at most, back end dead
#
#   ROUNDS=3                 of the first two tables
#   SECONDS_EACH=2           length of the load of one measurement
#   SECONDS_DEAD=30          the same with a dead back end
#   EXPORTERS="file webhook" some of them only
#   SIZES="1024 102400"      bytes of a request's body
#   TABLES="cost most dead"  some of them only
#   GATEWAY=…                a binary to measure; default: builds profile `release`
#
# Needs python3; `postgres` also what tests/servers/postgres/start.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-2}
seconds_dead=${SECONDS_DEAD:-30}
tables=${TABLES:-cost most dead}
target=${CARGO_TARGET_DIR:-$PWD/target}
gateway=${GATEWAY:-$target/release/magicapi-ai-gateway}
exporters=${EXPORTERS:-none elasticsearch elasticsearch-gzip datadog newrelic postgres otlp-http otlp-grpc webhook file console exec prometheus}
sizes=${SIZES:-1024 102400 1048576}
[ -n "${GATEWAY:-}" ] || cargo build --quiet --release -p magicapi-ai-gateway
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir "$target/bench"

work=$(mktemp -d)
declare -A pid
stop() {
    kill "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    if [ -n "${MAGICAPI_TEST_RUN:-}" ]; then tests/servers/postgres/stop.sh; fi
    rm -rf "$work"
}
trap stop EXIT

mock=127.0.0.1:18500 sink=127.0.0.1:18501 listen=127.0.0.1:18502 admin=127.0.0.1:18503 nobody=127.0.0.1:18504

cat >"$work/script.json" <<'EOF'
{ "content_type": "application/json",
  "body": {"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":240,"completion_tokens":9,"total_tokens":249}} }
EOF
cat >"$work/plugin.py" <<'EOF'
import re, sys
identity = re.compile(r'"id":"([^"]+)"')
print('{"ready":true}', flush=True)
answers = []
for line in sys.stdin:
    if line == "\n":
        print("\n".join(answers), flush=True)
        answers = []
    else:
        answers.append('{"id":"%s","ok":true}' % identity.search(line).group(1))
EOF

# settings EXPORTER BACK-END: the exporter's own keys. Its name is `x`, and so its thread's name is `exporter-x`. At $nobody no
# one listens, the directory of the file is none, and the child says nothing.
settings() {
    case $1 in
        elasticsearch) echo "type: elasticsearch, url: 'http://$2', template: false, compression: none" ;;
        elasticsearch-gzip) echo "type: elasticsearch, url: 'http://$2', template: false, compression: gzip" ;;
        datadog) echo "type: datadog, api_key: '0123456789abcdef0123456789abcdef', logs_url: 'http://$2', api_url: 'http://$2'" ;;
        newrelic) echo "type: newrelic, license_key: '0123456789abcdef0123456789abcdef', url: 'http://$2/log/v1'" ;;
        postgres) [ "$2" = "$nobody" ] && echo "type: postgres, url: 'postgres://u:p@$2/x'" ||
            echo "type: postgres, url: '$MAGICAPI_TEST_POSTGRES?sslmode=disable'" ;;
        otlp-http) echo "type: otlp, endpoint: 'http://$2', signals: [ traces ]" ;;
        otlp-grpc) echo "type: otlp, endpoint: 'http://$2', signals: [ traces ], protocol: grpc" ;;
        webhook) echo "type: webhook, url: 'http://$2/in'" ;;
        file) [ "$2" = "$nobody" ] && echo "type: file, path: $work/script.json/records.jsonl" ||
            echo "type: file, path: $work/records.jsonl" ;;
        console) echo "type: console" ;;
        exec) [ "$2" = "$nobody" ] && echo "type: exec, command: [ sleep, '1000' ], env: { PATH: '$PATH' }" ||
            echo "type: exec, command: [ taskset, -c, '1', python3, $work/plugin.py ], env: { PATH: '$PATH' }" ;;
        prometheus) echo "type: prometheus" ;;
    esac
}

wait_for() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens at $1" >&2
    cat "$work"/*.log >&2
    exit 1
}

# start EXPORTER BACK-END [KEYS]: keys of the pipeline
start() {
    local entry=
    [ "$1" = none ] || entry="{ name: x, $(settings "$1" "$2") ${3:+, $3} }"
    printf 'store: { url: none }\ntelemetry: { exporters: [ %s ] }\n' "$entry" >"$work/gateway.yaml"
    rm -rf "$work/data" "$work/records.jsonl"
    mkdir "$work/data"
    local output=/dev/null
    # A console that nobody reads.
    [ "$2" != "$nobody" ] || output=$work/pipe
    env -i PATH="$PATH" RUST_LOG=warn HOST=127.0.0.1 PORT="${listen#*:}" ADMIN_LISTEN="$admin" ADMIN_TOKEN=bench \
        DATA_DIR="$work/data" OPENAI_BASE_URL="http://$mock/v1" taskset -c 0 "$gateway" --config "$work/gateway.yaml" \
        >"$output" 2>"$work/gateway.log" &
    pid[gateway]=$!
    wait_for "$listen"
}

finish() {
    # A back end that is dead has the rest for the spool; a second signal cuts that.
    kill "${pid[gateway]}" && sleep 0.2 && kill "${pid[gateway]}" 2>/dev/null || true
    wait "${pid[gateway]}" || true
}

# User and system time in µs: of the process, of its threads of that name.
cpu() { awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); sum += $12 + $13 } END { print sum * 1000000 / tick }' "$@" 2>/dev/null; }
process() { cpu "/proc/${pid[gateway]}/stat"; }
thread() {
    local files
    mapfile -t files < <(grep -lxE "$1" "/proc/${pid[gateway]}"/task/*/comm | sed 's/comm$/stat/')
    [ ${#files[@]} = 0 ] && echo 0 || cpu "${files[@]}"
}
# status FIELD…: what the gateway says of the exporter, summed
status() {
    curl -fsS -H 'authorization: Bearer bench' "http://$admin/health/details" | python3 -c '
import json, sys
exporters = [one for one in json.load(sys.stdin)["exporters"] if one["name"] == "x"]
print(sum(int(one.get(field) or 0) for one in exporters for field in sys.argv[1:]))' "$@"
}
peak() { awk '$1 == "VmHWM:" { printf "%d", $2 / 1024 }' "/proc/${pid[gateway]}/status"; }
now() { date +%s%N; }

# send BYTES SECONDS [OPTION…]: how many were answered
send() {
    local bytes=$1 length=$2
    shift 2
    taskset -c 1 "$target/bench/release/load" --to "$listen" --truth "$mock" --connections 16 --seconds "$length" \
        --body "$bytes" "$@" | awk '{ if ($3) print "wrong answers: " $3 >"/dev/stderr"; print $1 }'
}
# pace BYTES: requests per second that leave the machine time
pace() { case $1 in 1024) echo 2500 ;; 102400) echo 400 ;; *) echo 40 ;; esac; }

# settled SENT: waits until so many records are delivered, rejected or dropped.
settled() {
    for _ in $(seq 1200); do
        [ "$(status sent rejected dropped)" -lt "$1" ] || return 0
        sleep 0.05
    done
    echo "not all records were settled" >&2
}

taskset -c 1 "$gateway" mock --listen "$mock" --script "$work/script.json" >"$work/mock.log" 2>&1 &
pid[mock]=$!
taskset -c 1 "$target/bench/release/sink" "$sink" 2>"$work/sink.log" &
pid[sink]=$!
wait_for "$mock"
wait_for "$sink"
mkfifo "$work/pipe"
exec 8<>"$work/pipe"
case " $exporters " in *" postgres "*)
    export MAGICAPI_TEST_RUN=$work/servers MAGICAPI_TEST_POSTGRES_PORT=18505
    chmod 755 "$work"
    eval "$(tests/servers/postgres/start.sh)"
    ;;
esac

has_queue() { [ "$1" != none ] && [ "$1" != prometheus ]; }

# columns NAME…: of lines `exporter size value…` on stdin, a row for each exporter and size, with median (lowest to highest).
columns() {
    printf '| exporter | body, bytes |'
    printf ' %s |' "$@"
    printf '\n|---|---|'
    printf -- '---|%.0s' "$@"
    echo
    python3 -c '
import statistics, sys
rows = {}
for line in sys.stdin:
    exporter, size, *values = line.split()
    rows.setdefault((exporter, size), []).append([float(value) for value in values])
for (exporter, size), rounds in rows.items():
    cells = []
    for column in zip(*rounds):
        low, middle, high = (f"{value:.0f}" for value in (min(column), statistics.median(column), max(column)))
        cells.append(middle if low == high else f"{middle} ({low}–{high})")
    print("|", " | ".join([exporter, size, *cells]), "|")'
}

# Each prints one line: exporter, size, and the values of its table.

measure_cost() {
    local exporter=$1 size=$2 warm before sent after
    start "$exporter" "$sink"
    warm=$(send "$size" 0.3 --rate "$(pace "$size")")
    if has_queue "$exporter"; then settled "$warm"; fi
    before=($(process) $(thread exporter-x) $(thread 'assemble-.*'))
    sent=$(send "$size" "$seconds" --rate "$(pace "$size")")
    # What is fetched has no queue: its cost is the process's beyond that of `none`.
    if has_queue "$exporter"; then settled $((warm + sent)); else sleep 0.5; fi
    after=($(process) $(thread exporter-x) $(thread 'assemble-.*'))
    awk -v name="$exporter $size" -v n="$sent" -v before="${before[*]}" -v after="${after[*]}" \
        -v rest="$(status rejected dropped) $(peak)" 'BEGIN {
        split(before, b, " "); split(after, a, " ")
        print name, n, (a[2] - b[2]) / n, (a[3] - b[3]) / n, (a[1] - b[1]) / n, rest }'
    finish
}

measure_most() {
    local exporter=$1 size=$2 begun sent behind ended age="batch: { age: 100ms }"
    # The wait of the last batch is no work; a page has no batches.
    if has_queue "$exporter"; then start "$exporter" "$sink" "$age"; else start "$exporter" "$sink"; fi
    begun=$(now)
    sent=$(send "$size" "$seconds")
    behind=$(status queue_records spool_records)
    if has_queue "$exporter"; then settled "$sent"; fi
    ended=$(now)
    awk -v name="$exporter $size" -v n="$sent" -v ns=$((ended - begun)) -v s="$seconds" -v behind="$behind" \
        -v rest="$(status rejected dropped) $(peak)" 'BEGIN { print name, n / s, n * 1e9 / ns, behind, rest }'
    finish
}

measure_dead() {
    local exporter=$1 size=$2 sent
    start "$exporter" "$nobody"
    sent=$(send "$size" "$seconds_dead" --noise --rate "$(pace "$size")")
    sleep 0.5
    echo "$exporter $size $sent $(($(status queue_bytes) >> 20)) $(($(status spool_bytes) >> 20)) $(status rejected dropped) $(peak)"
    finish
}

# interleaved MEASURE ROUNDS: every exporter and size, and then again
interleaved() {
    local exporter size
    for _ in $(seq "$2"); do
        for exporter in $exporters; do
            [ "$1" != measure_dead ] || has_queue "$exporter" || continue
            for size in $sizes; do "$1" "$exporter" "$size"; done
        done
    done | tee -a "$work/$1" >&2
}

for table in $tables; do
    case $table in
        cost)
            interleaved measure_cost "$rounds"
            echo "At a steady pace:"
            echo
            columns records "exporter's thread, µs" "assembly, µs" "process, µs" lost "peak, MiB" <"$work/measure_cost"
            ;;
        most)
            interleaved measure_most "$rounds"
            echo "As fast as the gateway answers:"
            echo
            columns requests/s records/s "behind at the end" lost "peak, MiB" <"$work/measure_most"
            ;;
        dead)
            interleaved measure_dead 1
            echo "Back end dead for $seconds_dead s, bodies that do not compress:"
            echo
            columns records "in memory, MiB" "on disk, MiB" lost "peak, MiB" <"$work/measure_dead"
            ;;
        *) echo "no table \`$table\`" >&2 && exit 2 ;;
    esac
    echo
done
