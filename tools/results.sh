#!/usr/bin/env bash
# Every run behind docs/results.md on the data at hand, into OUT (default target/results):
#
#     bash tools/results.sh [OUT]
#
# Needs ../shared, target/backbones (../shared/tools/fetch_backbones.py) and a release build. Runs
# that are done are not repeated; an interrupted one goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/results}
percept=${PERCEPT:-target/release/percept}
data=../shared/data
vit=target/backbones/vit_small_patch14.safetensors
pilot=target/pilot
mkdir -p "$out"

[ -d $pilot ] || $percept convert --image ../shared/models/pilot/image.safetensors \
    --text target/backbones/minilm --pool cls $pilot

# run NAME TASK --data DIR …: one evaluation, kept in OUT/NAME
run() {
    local folder=$out/$1
    shift
    [ -f "$folder/result.json" ] && return
    echo "== $folder"
    "$percept" eval "$@" --out "$folder" --resume --quiet | sed -n '/^| metric/,/^$/p'
}

# By words
for protocol in clippy clippy-448; do
    run voc-$protocol voc --data $data/VOCdevkit --model $pilot --protocol $protocol
done
run coco-object-clippy coco-object --data $data/coco --model $pilot --protocol clippy
run coco-object-clippy-448 coco-object --data $data/coco --model $pilot --protocol clippy-448

# Whole photos
run imagenette folder --data $data/imagenette --model $pilot
run retrieval retrieval --data $data/coco --model $pilot

# Cats and cows on a church's square or under a parachute: places that neither kind belongs to more
for pair in cat,cow dog,horse; do
    set=$out/spurious-${pair/,/-}
    [ -d "$set" ] || "$percept" data spurious voc --data $data/VOCdevkit --objects $pair \
        --place "a church=$data/imagenette/val/n03028079" \
        --place "a parachute=$data/imagenette/val/n03888257" --per-group 40 --out "$set"
    run waterbirds-${pair/,/-} waterbirds --data "$set" --model $pilot --protocol clippy-448
done

# Without words
sweep=grouping.sweep=[2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]
for centering in raw centered; do
    for model in pilot vit; do
        [ $model = pilot ] && path=$pilot || path=$vit
        run voc-groups-$model-$centering voc --data $data/VOCdevkit --model $path \
            --protocol clippy-448 --grouping --set $sweep --set grouping.centering=$centering
    done
done
run coco-groups-pilot coco-object --data $data/coco --model $pilot --protocol clippy-448 --grouping
run coco-groups-vit coco-object --data $data/coco --model $vit --protocol clippy-448 --grouping

# By words, as others do it: windows, which take their time
for protocol in sclip tcl groupvit; do
    run coco-object-$protocol coco-object --data $data/coco --model $pilot --protocol $protocol
    run voc-$protocol voc --data $data/VOCdevkit --model $pilot --protocol $protocol
done
run voc-clippy-448-pamr voc --data $data/VOCdevkit --model $pilot --protocol clippy-448 \
    --set refine.method=pamr
