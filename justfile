# One command for each chore; `just` lists them.

default:
    @just --list

# All tests; those on real weights need target/backbones and ../shared
test:
    cargo test --workspace --locked

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# What must pass before a change lands
ci:
    bash .ci/run

deny:
    cargo deny check

# The goldens that need no data (needs tools/parity/requirements.txt); its README has the others
goldens:
    python tools/parity/cases.py crates/percept-model/tests/goldens
    python tools/parity/pos_embed.py crates/percept-model/tests/goldens/pos_embed.safetensors
    python tools/parity/train.py crates/percept-train/tests/goldens/train-tiny
    python tools/parity/metrics.py
    python tools/parity/pamr.py

# The runs behind docs/results.md (needs ../shared, target/backbones and a release build)
results:
    bash tools/results.sh

# The ablations of training (the same needs; hours)
ablations:
    bash tools/ablations.sh

# What the evaluation harness adds to the forward passes
overhead:
    cargo bench -p percept-eval --bench overhead -- target/pilot ../shared/data/VOCdevkit

# The CPU engine's kernels on other CPUs (Debian: qemu-user, gcc-aarch64-linux-gnu)
cpus:
    bash tools/parity/cpus.sh

# Parity on Mesa's software Vulkan (Debian: mesa-vulkan-drivers)
vulkan:
    bash tools/parity/vulkan.sh

# One fuzz target for ten minutes, such as `just fuzz pickle`
fuzz target:
    cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run {{target}} -- -max_total_time=600

# Side by side with PyTorch; paths by flags, see `python benches/peers/run.py --help`
peers *flags:
    python benches/peers/run.py {{flags}}

# The page in headless Chromium, against `percept serve` on port 8099 (needs npm; Debian: chromium)
page:
    cd tools/page && npm install --no-audit --no-fund && node test.mjs http://127.0.0.1:8099

# What the description of the API allows and forbids, against `percept serve` (needs schemathesis)
schema:
    cd crates/percept-serve/tests && schemathesis --config-file schemathesis.toml \
        run http://127.0.0.1:8080/openapi.json
