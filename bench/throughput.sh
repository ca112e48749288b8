#!/usr/bin/env bash
# Measures what each exporter costs and how many records it delivers: callers, mock provider and back end (one that
# takes everything; a real PostgreSQL for postgres) are other processes, so the CPU time of the gateway is its own.
#
#   bench/throughput.sh      prints two tables: cost and pace of each exporter, and the peak of memory with its back
#                            end dead
#
#   SECONDS_EACH=3           length of the load of one measurement
#   EXPORTERS="file webhook" some of them only
#   SIZES="1024 102400"      bytes of a request's body
#   COST=no, DEAD=no         leaves out the first table, or the second
#   RATE_LARGE=40            requests per second of sizes above 100 KB; 2500 of 1 KB and 400 of 100 KB
#   GATEWAY=…                a binary to measure; default: builds profile `release`
#
# Needs python3; `postgres` also what tests/servers/postgres/start.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${SECONDS_EACH:-3}
target=${CARGO_TARGET_DIR:-$PWD/target}
gateway=${GATEWAY:-$target/release/magicapi-ai-gateway}
exporters=${EXPORTERS:-none elasticsearch datadog newrelic postgres otlp-http otlp-grpc webhook file console exec prometheus}
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

# settings EXPORTER BACK-END: the exporter's own keys. Its name is `x`, and so its thread's name is `exporter-x`.
settings() {
    case $1 in
        elasticsearch) echo "type: elasticsearch, url: 'http://$2', template: false, compression: none" ;;
        datadog) echo "type: datadog, api_key: '0123456789abcdef0123456789abcdef', logs_url: 'http://$2', api_url: 'http://$2'" ;;
        newrelic) echo "type: newrelic, license_key: '0123456789abcdef0123456789abcdef', url: 'http://$2/log/v1'" ;;
        postgres) [ "$2" = "$nobody" ] && echo "type: postgres, url: 'postgres://u:p@$2/x'" ||
            echo "type: postgres, url: '$MAGICAPI_TEST_POSTGRES?sslmode=disable'" ;;
        otlp-http) echo "type: otlp, endpoint: 'http://$2', signals: [ traces ]" ;;
        otlp-grpc) echo "type: otlp, endpoint: 'http://$2', signals: [ traces ], protocol: grpc" ;;
        webhook) echo "type: webhook, url: 'http://$2/in'" ;;
        file) echo "type: file, path: $work/records.jsonl" ;;
        console) echo "type: console" ;;
        exec) echo "type: exec, command: [ python3, $work/plugin.py ], env: { PATH: '$PATH' }" ;;
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

# start EXPORTER BACK-END
start() {
    local entry=
    [ "$1" = none ] || entry="{ name: x, $(settings "$1" "$2") }"
    printf 'store: { url: none }\ntelemetry: { exporters: [ %s ] }\n' "$entry" >"$work/gateway.yaml"
    rm -rf "$work/data" "$work/records.jsonl"
    mkdir "$work/data"
    env -i PATH="$PATH" RUST_LOG=warn HOST=127.0.0.1 PORT="${listen#*:}" ADMIN_LISTEN="$admin" ADMIN_TOKEN=bench \
        DATA_DIR="$work/data" OPENAI_BASE_URL="http://$mock/v1" taskset -c 0 "$gateway" --config "$work/gateway.yaml" \
        >/dev/null 2>"$work/gateway.log" &
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

# send BYTES SECONDS: `completed`
send() {
    local rate
    case $1 in 1024) rate=2500 ;; 102400) rate=400 ;; *) rate=${RATE_LARGE:-40} ;; esac
    taskset -c 1 "$target/bench/release/load" --to "$listen" --truth "$mock" --connections 16 --seconds "$2" --body "$1" \
        --rate "$rate" | awk '{ if ($3) print "wrong answers: " $3 >"/dev/stderr"; print $1 }'
}

# settled SENT: waits until so many records are delivered, rejected or dropped.
settled() {
    for _ in $(seq 200); do
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
case " $exporters " in *" postgres "*)
    export MAGICAPI_TEST_RUN=$work/servers MAGICAPI_TEST_POSTGRES_PORT=18505
    chmod 755 "$work"
    eval "$(tests/servers/postgres/start.sh)"
    ;;
esac

cost() {
    echo "| exporter | body, bytes | records | records/s | most at full core | exporter's thread, µs | assembly, µs | process, µs | lost | peak, MiB |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
    for exporter in $exporters; do
        for size in $sizes; do
            start "$exporter" "$sink"
            warm=$(send "$size" 0.3)
            [ "$exporter" = none ] || [ "$exporter" = prometheus ] || settled "$warm"
            before=($(process) $(thread exporter-x) $(thread 'assemble-.*'))
            begun=$(now)
            sent=$(send "$size" "$seconds")
            # What is fetched has no queue: its cost is the process's beyond that of `none`.
            if [ "$exporter" = none ] || [ "$exporter" = prometheus ]; then sleep 0.5; else settled $((warm + sent)); fi
            ended=$(now)
            after=($(process) $(thread exporter-x) $(thread 'assemble-.*'))
            lost=$(status rejected dropped)
            awk -v exporter="$exporter" -v size="$size" -v n="$sent" -v ns=$((ended - begun)) -v lost="$lost" -v peak="$(peak)" \
                -v before="${before[*]}" -v after="${after[*]}" 'BEGIN {
                split(before, b, " "); split(after, a, " ")
                worker = (a[2] - b[2]) / n
                most = worker > 0 ? sprintf("%.0f", 1e6 / worker) : ""
                printf "| %s | %d | %d | %.0f | %s | %.0f | %.0f | %.0f | %d | %d |\n", exporter, size, n, n * 1e9 / ns,
                    most, worker, (a[3] - b[3]) / n, (a[1] - b[1]) / n, lost, peak }'
            finish
        done
    done
}

dead() {
    echo "| exporter, back end dead | body, bytes | records | in memory, MiB | on disk, MiB | peak, MiB |"
    echo "|---|---|---|---|---|---|"
    for exporter in $exporters; do
        case $exporter in none | file | console | exec | prometheus) continue ;; esac
        for size in $sizes; do
            start "$exporter" "$nobody"
            sent=$(send "$size" "$seconds")
            sleep 0.5
            echo "| $exporter | $size | $sent | $(($(status queue_bytes) >> 20)) | $(($(status spool_bytes) >> 20)) | $(peak) |"
            finish
        done
    done
}

[ "${COST:-yes}" = no ] || cost
echo
[ "${DEAD:-yes}" = no ] || dead
