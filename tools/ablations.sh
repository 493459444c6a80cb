#!/usr/bin/env bash
# The ablations behind docs/results.md: one budget, one thing changed at a time.
#
#     bash tools/ablations.sh [OUT]          (default target/ablations)
#
# Needs ../shared, target/backbones and a release build. STEPS (default 90, an epoch of 64 pairs) is the budget of
# each run. All runs see the same view of each photo, and share what the locked blocks make of it (1 GB in OUT/cache,
# more with the last runs): the first one takes a quarter of an hour on two cores, the others five minutes. What is
# done is not repeated; a run that was interrupted goes on where it was. `python3 tools/ablations_table.py OUT` prints
# the tables.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/ablations}
percept=${PERCEPT:-target/release/percept}
steps=${STEPS:-90}
data=../shared/data
voc=$data/VOCdevkit
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
            --views 1 --locked-cache "$out/cache" --val-fraction 0 --steps "$length" --save-steps 50 --keep 1 \
            --logs "$folder" --name run "${resume[@]}" "$@" --quiet
    local model=$folder/run/model
    "$percept" eval voc --data $voc --model "$model" --protocol clippy --out "$folder/clippy" --resume --quiet >/dev/null
    "$percept" eval voc --data $voc --model "$model" --protocol clippy --grouping --out "$folder/grouping" --resume \
        --quiet >/dev/null
    "$percept" eval folder --data $data/imagenette --model "$model" --out "$folder/imagenette" --resume --quiet \
        >/dev/null
    rm -rf "$folder/run/checkpoints"
}

for seed in 0 1; do
    for pool in cls max avg; do
        train $pool-$seed "$steps" --pool $pool --seed $seed
    done
done
train cls-text-locked "$steps" --pool cls --lock-text=true
train max-text-locked "$steps" --pool max --lock-text=true
train cls-all-patches "$steps" --pool cls --force-patch-dropout 0
train max-all-patches "$steps" --pool max --force-patch-dropout 0
# Max pooling, followed: one run of four budgets, measured on the way.
train max-followed $((4 * steps)) --pool max --eval voc=$voc --eval-steps "$steps"
# Patches in the loss beside the pooled photo, as the model that ships has them.
for seed in 0 1; do
    train cls-patches-$seed "$steps" --pool cls --seed $seed \
        --object-weight 0.5 --surroundings-weight 1 --coverage-weight 0.5
done
