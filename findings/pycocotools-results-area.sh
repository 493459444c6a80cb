#!/usr/bin/env bash
# pycocotools 2.0.11 (COCO.loadRes, COCOeval with iouType "segm"), numpy 2.4.6.
#
# What happens: if the first result has a `bbox`, loadRes takes every result's area from its box, even where the result
# has a mask too. COCOeval sorts unmatched masks into small, medium and large by this area, so that a thin object that
# is missed counts as a mistake of another size than its pixels say, and AP by size changes. The field `bbox` decides,
# though masks are what is compared; and it decides for all results by the first of them.
#
# Why one would expect otherwise: the ground truth's area is that of the mask, `mask.area` is one call away and is what
# loadRes uses where there is no box, and an extra field that the evaluation does not read should not change its result.
#
# Seen:
#   a mask of 40 pixels: area 40 without a box, 1600 with one
#   AP of small objects: 0.50 without boxes, 1.00 with them
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
cd "$folder"
venv/bin/python - <<'PY'
import contextlib
import io

import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 100, 100


def encode(array):
    rle = masks.encode(np.asfortranarray(array))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


square = np.zeros((HEIGHT, WIDTH), np.uint8)
square[80:90, 80:90] = 1
thin = np.zeros((HEIGHT, WIDTH), np.uint8)
thin[np.arange(40), np.arange(40)] = 1

truth = COCO()
truth.dataset = {
    "info": {},
    "images": [{"id": 1, "width": WIDTH, "height": HEIGHT}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100,
                     "bbox": [80, 80, 10, 10], "segmentation": encode(square)}],
}


def measure(with_boxes):
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": encode(thin), "bbox": [0, 0, 40, 40]},
        {"image_id": 1, "category_id": 1, "score": 0.8, "segmentation": encode(square), "bbox": [80, 80, 10, 10]},
    ]
    if not with_boxes:
        for result in results:
            del result["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(results)
        evaluation = COCOeval(truth, loaded, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(loaded.anns[1]["area"]), float(evaluation.stats[3])


area, small = measure(with_boxes=False)
area_of_box, small_by_box = measure(with_boxes=True)
print(f"a mask of 40 pixels: area {area:.0f} without a box, {area_of_box:.0f} with one")
print(f"AP of small objects: {small:.2f} without boxes, {small_by_box:.2f} with them")
assert (area, area_of_box) == (40, 1600), "the area is now the mask's"
assert small != small_by_box
PY
