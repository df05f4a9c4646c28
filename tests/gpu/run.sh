#!/usr/bin/env bash
# Shows on a machine with a GPU that the kernels are right, and what drafting costs there; the table comes last.
#
#   tests/gpu/run.sh [--dry-run] [--binary FILE] [--tests FILE] [--libraries DIR] [--model DIR]
#
# Needs a driver and NVRTC of CUDA 13; no Rust, no network. The files are sidedraft itself and the library's test binary,
# which `make gpu-tests` builds and puts where they are looked for: target/gpu/sidedraft and target/gpu/tests. DIR holds
# NVRTC's libraries where the loader does not find them, such as the one of PyTorch's packages. Positions are compared,
# and costs measured, for a model of random weights, or for that of a Hugging Face folder. The memory check is left out,
# and said to be, where there is no compute-sanitizer. Everything together has eight minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=target/gpu/sidedraft
tests=target/gpu/tests
libraries=
model=
dry=
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=1 ;;
        --binary) binary=${2:?--binary wants a file}; shift ;;
        --tests) tests=${2:?--tests wants a file}; shift ;;
        --libraries) libraries=${2:?--libraries wants a folder}; shift ;;
        --model) model=${2:?--model wants a folder}; shift ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ -z "$libraries" ] || export SIDEDRAFT_CUDA_LIBRARIES=$libraries
[ -z "$model" ] || export SIDEDRAFT_GPU_MODEL=$model

room=model::cuda::tests::gpu
small=$room::drafts_follow_the_model
positions=$room::two_thousand_positions_agree_with_the_reference
reading=$room::what_reading_costs

say() { printf 'gpu: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# step SECONDS WORDS...: runs a command, or says it.
step() {
    local seconds=$1
    shift
    say "at most $seconds s: $*"
    [ -n "$dry" ] || timeout --signal=KILL "$seconds" "$@" || fail "failed or took too long: $*"
}

[ -x "$tests" ] || fail "no test binary at $tests: make gpu-tests"
[ -x "$binary" ] || fail "no sidedraft at $binary: make gpu-tests"
known=$("$tests" --ignored --list)
for test in "$small" "$positions" "$reading"; do
    grep -qx "$test: test" <<<"$known" || fail "$tests has no test $test: it is of another version"
done
if [ -n "$libraries" ]; then
    for library in libnvrtc.so libnvrtc-builtins.so; do
        compgen -G "$libraries/$library*" >/dev/null || fail "no $library in $libraries"
    done
fi
[ -z "$model" ] || [ -f "$model/config.json" ] || fail "no config.json in $model"

run=("$tests" --ignored --exact --nocapture --test-threads 1)
bench=("$binary" bench draft --device cuda --threads "$(nproc)" --check 512 --most-error 2e-2 --seconds 90)
# Help comes instead of a refusal only if each word before it is known.
"${bench[@]}" --help >/dev/null || fail "it is of another version, and does not take: ${bench[*]}"
if [ -n "$model" ]; then bench+=(--model "$model"); else bench+=(--shape qwen3-0.6b); fi

if [ -z "$dry" ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || fail "no GPU"
fi
step 60 "${run[@]}" "$small"
step 100 "${run[@]}" "$positions"
if [ -n "$dry" ] || command -v compute-sanitizer >/dev/null; then
    for tool in memcheck initcheck; do
        step 40 compute-sanitizer --tool "$tool" --error-exitcode 9 "${run[@]}" "$small"
    done
else
    say "NOT CHECKED: there is no compute-sanitizer"
fi
step 25 "${run[@]}" "$reading"
step 210 "${bench[@]}"
[ -z "$dry" ] || say "all pieces are there"
