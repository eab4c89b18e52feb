#!/usr/bin/env bash
# Runs each target for FUZZ_SECONDS, from seeds that are made of the recorded fixtures; FUZZ_TARGETS names some of them. What breaks
# one is kept in target/fuzz/found, and the run goes on with the next; exit 1 if there was such.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${FUZZ_SECONDS:-60}
targets=${FUZZ_TARGETS:-binlog_file rows json statement config message delta_log}
corpus=target/fuzz/corpus
found=target/fuzz/found

RUSTC_WRAPPER=$PWD/fuzz/instrumented.sh ${CARGO:-cargo} build --locked --manifest-path fuzz/Cargo.toml --target-dir target
mkdir -p "$corpus" "$found"
if ! target/debug/fuzz_seeds -runs=0 >target/fuzz/seeds.log 2>&1; then
    cat target/fuzz/seeds.log
    exit 1
fi
broken=0
for target in $targets; do
    log=target/fuzz/$target.log
    echo "$target: $seconds s"
    # A few seconds are long for 64 KiB, and a gigabyte is much.
    if ! nice "target/debug/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -timeout=5 -rss_limit_mb=1024 \
        -artifact_prefix="$found/$target-" -print_final_stats=1 "$corpus/$target" >"$log" 2>&1; then
        broken=1
        grep -E 'panicked at|ERROR: libFuzzer|Test unit written' "$log" | sed 's/^/  /' || tail -n 5 "$log"
    fi
    sed -n 's/^stat::number_of_executed_units: */  executions: /p; s/^stat::average_exec_per_sec: */  a second: /p; s/^stat::peak_rss_mb: */  MB at most: /p' "$log"
done
rm -rf /dev/shm/weir-fuzz-*
exit "$broken"
