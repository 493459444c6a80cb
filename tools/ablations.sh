#!/usr/bin/env bash
# The ablations behind docs/results.md: one budget, one thing changed at a time.
#
#     bash tools/ablations.sh [OUT]          (default target/ablations)
#
# Needs ../shared, target/backbones and a release build. STEPS (default 170, two epochs of 64 pairs) is the
# budget of each run: about 13 minutes on two cores. What is done is not repeated; a run that was interrupted
# goes on where it was. `python3 tools/ablations_table.py OUT` prints the table.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/ablations}
percept=${PERCEPT:-target/release/percept}
steps=${STEPS:-170}
data=../shared/data
export HF_HUB_OFFLINE=1 MIMALLOC_PURGE_DELAY=-1
mkdir -p "$out"

# train NAME STEPS FLAG…: a run of the pilot's recipe whose text tower and last three blocks learn, and what
# it is worth
train() {
    local name=$1 length=$2 folder=$out/$1 resume=()
    shift 2
    [ -f "$folder/imagenette/result.json" ] && return
    echo "== $name"
    [ -d "$folder/run/checkpoints" ] && resume=(--resume latest)
    [ -f "$folder/run/model/config.json" ] ||
        "$percept" train --recipe pilot --train-data "$data/train/{00000..00011}.tar" \
            --init-image target/backbones/vit_small_patch14.safetensors --init-text target/backbones/minilm \
            --lock-image --lock-image-unlocked-groups 3 --lock-text=false --text-lr 2e-5 --warmup 20 --chunk 64 \
            --steps "$length" --save-steps 50 --logs "$folder" --name run "${resume[@]}" "$@" --quiet
    local model=$folder/run/model
    for protocol in clippy clippy-448; do
        "$percept" eval voc --data $data/VOCdevkit --model "$model" --protocol $protocol \
            --out "$folder/$protocol" --resume --quiet >/dev/null
    done
    "$percept" eval voc --data $data/VOCdevkit --model "$model" --protocol clippy-448 --grouping \
        --out "$folder/grouping" --resume --quiet >/dev/null
    "$percept" eval folder --data $data/imagenette --model "$model" --out "$folder/imagenette" --resume --quiet \
        >/dev/null
}

patches="--object-weight 0.5 --surroundings-weight 1 --coverage-weight 0.5"
for seed in 0 1; do
    for pool in cls max avg; do
        train $pool-$seed "$steps" --pool $pool --seed $seed
    done
    # shellcheck disable=SC2086
    train cls-patches-$seed "$steps" --pool cls --seed $seed $patches
done
train cls-text-locked "$steps" --pool cls --lock-text=true
train max-text-locked "$steps" --pool max --lock-text=true
train cls-all-patches "$steps" --pool cls --force-patch-dropout 0
train max-all-patches "$steps" --pool max --force-patch-dropout 0
# Max pooling, followed: each of these is a whole run, with a schedule of its own.
for times in 2 4; do
    train max-times-$times $((times * steps)) --pool max
done
