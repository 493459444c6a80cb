#!/usr/bin/env bash
# The parity tests on a Vulkan device. Without a GPU, on Mesa's software device:
#     apt-get install mesa-vulkan-drivers
# Only the small cases: a ViT-B takes minutes there. From a cold cache about 8 minutes on one core,
# most of it compiling without optimisation, which is enough here.
set -euo pipefail
cd "$(dirname "$0")/../.."
lavapipe=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -1 || true)
if [ -z "${VK_ICD_FILENAMES:-}" ] && [ -n "$lavapipe" ] && [ -z "${PERCEPT_REAL_GPU:-}" ]; then
    export VK_ICD_FILENAMES=$lavapipe
fi
# The loader warns without a folder of its own.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}
PERCEPT_TEST_DEVICE=vulkan cargo test -p percept-model --features vulkan --test parity \
    --target-dir target/vulkan --config 'profile.dev.package."*".opt-level=0' -- \
    --nocapture --test-threads 1
