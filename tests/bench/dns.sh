#!/usr/bin/env bash
# The DNS server against dnsmasq: the same 100 names, the same load by dnsperf, the server on one core and dnsperf on another.
#
#   tests/bench/dns.sh [SECONDS]
#
# Prints questions answered per second, of hits alone and of hits mixed with as many names that are not there, three turns each.
# Needs dnsperf and dnsmasq-base, and two cores with nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-5}
export CARGO_TERM_COLOR=never
cargo build --quiet --release --example dns-server
server=$(realpath target/*/release/examples/dns-server)
dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap finish EXIT

for n in $(seq 0 99); do
    echo "vm-$n 172.16.0.$((n + 2))" >>"$dir/names"
    echo "172.16.0.$((n + 2)) vm-$n.vm" >>"$dir/hosts"
    echo "vm-$n.vm A" >>"$dir/hits"
    printf 'vm-%s.vm A\nno-%s.vm A\n' "$n" "$n" >>"$dir/mixed"
done
taskset -c 0 "$server" serve vm 42071 <"$dir/names" >/dev/null &
pids+=($!)
taskset -c 0 dnsmasq --keep-in-foreground --conf-file=/dev/null --user= --port=42072 --listen-address=127.0.0.1 --bind-interfaces \
    --no-resolv --no-hosts --local=/vm/ --local-ttl=5 --addn-hosts="$dir/hosts" --pid-file="$dir/pid" &
pids+=($!)
for port in 42071 42072; do
    for _ in $(seq 50); do dig +short +tries=1 +time=1 @127.0.0.1 -p "$port" vm-7.vm | grep -qx 172.16.0.9 && continue 2; sleep 0.1; done
    echo "nobody answers at port $port" >&2
    exit 1
done

# What one turn says: questions per second, and of 100 how many were lost.
turn() {
    taskset -c 1 dnsperf -s 127.0.0.1 -p "$1" -d "$2" -l "$seconds" -c 8 -q 200 2>/dev/null |
        awk '/Queries per second/ {rate = $4} /Queries lost/ {gsub(/[(%)]/, "", $4); lost = $4} END {printf "%d (lost %s%%)", rate, lost}'
}
printf '%-8s %-28s %-28s\n' load banger dnsmasq
for load in hits mixed; do
    for _ in 1 2 3; do
        banger=$(turn 42071 "$dir/$load")
        dnsmasq=$(turn 42072 "$dir/$load")
        printf '%-8s %-28s %-28s\n' "$load" "$banger" "$dnsmasq"
    done
done
