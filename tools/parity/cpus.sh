#!/usr/bin/env bash
# The CPU engine's kernels on CPUs that this machine is not: x86 without AVX-512, x86 without AVX, and ARM.
# QEMU plays them (Debian: qemu-user, and for ARM gcc-aarch64-linux-gnu libc6-dev-arm64-cross, with
# `rustup target add aarch64-unknown-linux-gnu`). What is not installed is skipped, and said.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_INCREMENTAL=0
arm=aarch64-unknown-linux-gnu

# The path of the test program that cargo has built.
program() {
    cargo test -p percept-cpu --test scalar --locked --no-run --message-format=json "$@" 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*scalar[^"]*\)".*/\1/p'
}

# Names the kernels that were tested, and fails if a test did.
run() {
    printf '%s: ' "$1"
    shift
    local said
    said=$("$@" --nocapture 2>/dev/null) || { echo "$said"; exit 1; }
    grep -h '^tested: \|^test result' <<<"$said" | sort -u | paste -sd ';'
}

native=$(program)
run "this CPU" "$native"
if command -v objdump >/dev/null && [ "$(uname -m)" = x86_64 ]; then
    python3 tools/loops.py "$native"
else
    echo "SKIPPED: what the compiler made of the products needs objdump, and x86"
fi
if command -v qemu-x86_64 >/dev/null; then
    run "x86 with AVX2 (Haswell)" qemu-x86_64 -cpu Haswell "$native"
    run "x86 with SSE4 (Nehalem)" qemu-x86_64 -cpu Nehalem "$native"
else
    echo "SKIPPED: other x86 CPUs need qemu-x86_64"
fi
if command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null &&
    [ -d "$(rustc --print target-libdir --target $arm)" ]; then
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    run "ARM (Cortex-A72)" qemu-aarch64 -cpu cortex-a72 -L /usr/aarch64-linux-gnu "$(program --target $arm)"
else
    echo "SKIPPED: ARM needs qemu-aarch64, aarch64-linux-gnu-gcc and the Rust target $arm"
fi
