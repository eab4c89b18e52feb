#!/usr/bin/env bash
# The compiler, as cargo's RUSTC_WRAPPER: our own crates are built so that libFuzzer sees which way an input goes through them.
set -euo pipefail

compiler=$1
shift
crate=
previous=
for argument in "$@"; do
    [ "$previous" != --crate-name ] || crate=$argument
    previous=$argument
done
case $crate in
weir | weir_model | weir_mysql | snapshot_loader | fuzz_*)
    set -- "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$compiler" "$@"
