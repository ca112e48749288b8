#!/usr/bin/env bash
# Measures what a request costs: CPU time of one process on one core, before the same mock provider.
#
#   bench/run.sh             builds what is missing, measures, prints the table and writes bench/results.md
#
# Four arms: nginx as plain reverse proxy, a bare relay in hyper, the gateway with recording off, the gateway that
# records every request whole (file, Prometheus, store). Each runs on core 0; mock and callers run on core 1. The arms
# take turns, A B C D A B C D …; an arm is compared with nginx of the same round.
#
#   BEFORE=path bench/run.sh compares two gateways: the binary at this path has two arms of its own among the others.
#                            The table is printed only; bench/results.md stays.
#
#   ROUNDS=3                 rounds (at least 3 for a statement)
#   SECONDS_EACH=5           length of one measurement
#   GATEWAY=…                a binary to measure; default: builds profile `dist`
#   CARGO_TARGET_DIR=…       where it is built
#   RUST_LOG=warn            `info` writes an access line per request, which nginx does not do here
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-5}
log_level=${RUST_LOG:-warn}
target=${CARGO_TARGET_DIR:-$PWD/target}
gateway=${GATEWAY:-$target/dist/magicapi-ai-gateway}
load=$target/bench/release/load
relay=$target/bench/release/relay
arms=(nginx relay off on)
[ -z "${BEFORE:-}" ] || arms=(nginx relay before-off off before-on on)

need() { command -v "$1" >/dev/null || { echo "missing: $1 (Debian package $2)" >&2 && lacking=1; }; }
lacking=0
need nginx nginx-light
need taskset util-linux
need cargo "rustup, https://rustup.rs"
need curl curl
[ "$(nproc)" -ge 2 ] || { echo "two cores are needed: one for what is measured, one for the rest" >&2 && lacking=1; }
[ -z "${BEFORE:-}" ] || [ -x "$BEFORE" ] || { echo "BEFORE=$BEFORE is no program" >&2 && lacking=1; }
[ $lacking = 0 ] || exit 2

[ -n "${GATEWAY:-}" ] || cargo build --quiet --profile dist -p magicapi-ai-gateway
cargo build --quiet --release --manifest-path bench/Cargo.toml --target-dir "$target/bench"

work=$(mktemp -d)
declare -A pid
stop() {
    kill "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

# ---- the programs -------------------------------------------------------------------------------------------------

declare -A port=([mock]=18400 [nginx]=18401 [relay]=18402 [off]=18403 [on]=18404 [before-off]=18405 [before-on]=18406)
upstream=127.0.0.1:${port[mock]}

# A buffered answer is a small one; a stream has 400 events of one token, 5 ms apart.
answer='{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":240,"completion_tokens":9,"total_tokens":249}}'
cat >"$work/script.json" <<EOF
{ "rules": [ { "match": { "header": { "x-bench": "stream" } },
               "script": { "chunks": 400, "gap_ms": 5 } } ],
  "default": { "body": $answer, "content_type": "application/json" } }
EOF

cat >"$work/nginx.conf" <<EOF
daemon off; master_process off; worker_processes 1; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_buffer_size 256k; client_max_body_size 64m;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy; fastcgi_temp_path $work/nginx-f;
  uwsgi_temp_path $work/nginx-u; scgi_temp_path $work/nginx-s; tcp_nodelay on;
  upstream mock { server $upstream; keepalive 256; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port[nginx]};
    location / { proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
EOF

for arm in on before-on; do
    cat >"$work/$arm.yaml" <<EOF
telemetry: { exporters: [ { type: file, path: $work/$arm.jsonl }, { type: prometheus } ] }
EOF
done
for arm in off before-off; do echo "store: { url: none }" >"$work/$arm.yaml"; done

# start_gateway ARM BINARY [VARIABLE=VALUE…]
start_gateway() {
    local arm=$1 binary=$2 admin=$((port[$1] + 10))
    shift 2
    mkdir -p "$work/$arm"
    env -i PATH="$PATH" RUST_LOG="$log_level" HOST=127.0.0.1 PORT="${port[$arm]}" ADMIN_LISTEN="127.0.0.1:$admin" \
        ADMIN_TOKEN=bench DATA_DIR="$work/$arm" OPENAI_BASE_URL="http://$upstream/v1" "$@" \
        taskset -c 0 "$binary" --config "$work/$arm.yaml" 2>"$work/$arm.log" &
    pid[$arm]=$!
}

wait_for() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    cat "$work"/*.log >&2
    exit 1
}

taskset -c 1 "$gateway" mock --listen "$upstream" --script "$work/script.json" >"$work/mock.log" 2>&1 &
pid[mock]=$!
taskset -c 0 nginx -c "$work/nginx.conf" 2>>"$work/nginx.log" &
pid[nginx]=$!
taskset -c 0 "$relay" "127.0.0.1:${port[relay]}" "$upstream" 2>"$work/relay.log" &
pid[relay]=$!
start_gateway off "$gateway" ENABLED_EXPORTERS=
start_gateway on "$gateway"
if [ -n "${BEFORE:-}" ]; then
    start_gateway before-off "$BEFORE" ENABLED_EXPORTERS=
    start_gateway before-on "$BEFORE"
fi
for arm in mock "${arms[@]}"; do wait_for "${port[$arm]}"; done

# ---- measuring ----------------------------------------------------------------------------------------------------

# User and system time of a process so far, in clock ticks.
cpu() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# Waits until the process has nothing left to do: records are written after the answer.
settle() {
    local before after=-1
    for _ in $(seq 60); do
        before=$after
        after=$(cpu "$1")
        [ "$before" != "$after" ] || return 0
        sleep 0.4
    done
}

memory() { awk -v key="$2:" '$1 == key { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# measure ROUND WORKLOAD ARM LOAD-ARGUMENTS…: one line `round workload arm microseconds units wrong requests`
measure() {
    local round=$1 workload=$2 arm=$3 before after result
    shift 3
    settle "${pid[$arm]}"
    before=$(cpu "${pid[$arm]}")
    result=$(taskset -c 1 "$load" --to "127.0.0.1:${port[$arm]}" --truth "$upstream" "$@")
    settle "${pid[$arm]}"
    after=$(cpu "${pid[$arm]}")
    read -r completed events wrong _ <<<"$result"
    [ "$workload" = chunk ] && units=$events || units=$completed
    echo "$round $workload $arm $(((after - before) * 1000000 / $(getconf CLK_TCK))) $units $wrong $completed"
}

for arm in "${arms[@]}"; do
    taskset -c 1 "$load" --to "127.0.0.1:${port[$arm]}" --truth "$upstream" \
        --connections 32 --seconds 1 --body 1024 --rate 2000 >/dev/null
done
declare -A fresh
for arm in "${arms[@]}"; do settle "${pid[$arm]}" && fresh[$arm]=$(memory "${pid[$arm]}" VmRSS); done

begun=$SECONDS
for round in $(seq "$rounds"); do
    for arm in "${arms[@]}"; do measure "$round" 1KB "$arm" --connections 32 --seconds "$seconds" --body 1024 --rate 3000; done
    for arm in "${arms[@]}"; do measure "$round" 100KB "$arm" --connections 32 --seconds "$seconds" --body 102400 --rate 600; done
    for arm in "${arms[@]}"; do measure "$round" chunk "$arm" --connections 40 --seconds "$seconds" --body 512 --stream; done
done | tee "$work/measured" >&2

# ---- what was recorded --------------------------------------------------------------------------------------------

lines=$(wc -l <"$work/on.jsonl")
# The first requests, before the measurement, are recorded too.
sent=$(awk '$3 == "on" { n += $7 } END { print n }' "$work/measured")
cut=$(grep -c '"content_dropped":"memory"' "$work/on.jsonl" || true)

# ---- the table ----------------------------------------------------------------------------------------------------

{
    echo "# What a request costs"
    echo
    echo "CPU time of the process on one core, user and system, before the same mock provider: median of $rounds rounds"
    echo "(lowest to highest), and the median of the ratios to nginx of the same round. \`bench/run.sh\` measures it anew."
    echo
    echo "| | 1 KB request, µs | x nginx | 100 KB request, µs | x nginx | stream event, µs | x nginx | memory, MiB | peak |"
    echo "|---|---|---|---|---|---|---|---|---|"
    for arm in "${arms[@]}"; do
        case $arm in
            nginx) name="nginx $(nginx -v 2>&1 | sed 's/.*nginx\///')" ;;
            relay) name="bare hyper relay" ;;
            off) name="gateway, recording off" ;;
            on) name="gateway, every request recorded whole" ;;
            before-off) name="before, recording off" ;;
            before-on) name="before, every request recorded whole" ;;
        esac
        awk -v arm="$arm" -v name="$name" -v fresh="${fresh[$arm]}" -v peak="$(memory "${pid[$arm]}" VmHWM)" '
            function median(list, n,   i, j, t) {
                for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
                return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
            }
            $3 == "nginx" { base[$1, $2] = $4 / $5 }
            $3 == arm { cost[$1, $2] = $4 / $5; if ($1 > rounds) rounds = $1 }
            END {
                printf "| %s |", name
                split("1KB 100KB chunk", workloads, " ")
                for (w = 1; w <= 3; w++) {
                    for (r = 1; r <= rounds; r++) { c[r] = cost[r, workloads[w]]; q[r] = c[r] / base[r, workloads[w]] }
                    m = median(c, rounds); ratio = median(q, rounds)
                    printf " %.1f (%.1f–%.1f) | %.2f |", m, c[1], c[rounds], ratio
                }
                printf " %s | %s |\n", fresh, peak
            }' "$work/measured"
    done
    echo
    echo "Load is steady and far below what any arm can take: 3000 requests of 1 KB per second on 32 connections, 600 of"
    echo "100 KB, and 40 streams at a time of 400 events 5 ms apart. Every answer was compared with the mock's own:"
    echo "$(awk '{ n += $6 } END { print n + 0 }' "$work/measured") of $(awk '{ n += $7 } END { print n }' "$work/measured") were wrong. Memory: after the first requests of 1 KB, and the most it ever was."
    echo "Recording on: $sent requests and some to begin with, $lines records in the file, $cut of them without bodies for want of memory. RUST_LOG=$log_level."
    echo
    [ -z "${BEFORE:-}" ] || echo "Before: $("$BEFORE" --version)."
    echo "Machine: $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) cores, Linux $(uname -r | cut -d- -f1); $("$gateway" --version)."
} >"$work/table.md"

cat "$work/table.md"
echo "measured in $((SECONDS - begun)) s" >&2
[ -z "${BEFORE:-}" ] || exit 0
notes=bench/notes.md
{ cat "$work/table.md"; [ ! -e "$notes" ] || { echo && cat "$notes"; }; } >bench/results.md
echo "written to bench/results.md" >&2
