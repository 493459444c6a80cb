#!/usr/bin/env bash
# datasets 5.2.0 (imagefolder with metadata.jsonl), Pillow 13.0.0.
#
# What happens: the Image feature of `datasets` applies the EXIF orientation when it decodes. A mask is drawn on the
# stored pixels and is a PNG without EXIF, so it stays as it is. With a photo that lies upside down (orientation 3) or is
# mirrored, both have the same size: photo and mask no longer belong together, and nothing can notice.
#
# Why one would expect otherwise: the two columns have one feature type and one row, the files fit together as they lie on
# disk, and what reads VOC or COCO elsewhere (torchvision, Pillow's `Image.open`, pycocotools) leaves stored pixels alone.
#
# Seen:
#   photo (40, 60), mask (40, 60)
#   brightness of the object under its mask: 255 on disk, 0 in the dataset
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PY'
import json
import pathlib

import numpy as np
from PIL import Image

train = pathlib.Path("set/train")
train.mkdir(parents=True)
photo = np.zeros((40, 60, 3), np.uint8)
mask = np.zeros((40, 60), np.uint8)
photo[:10, :10] = 255
mask[:10, :10] = 1
exif = Image.Exif()
exif[0x0112] = 3
Image.fromarray(photo).save(train / "a.jpg", quality=100, exif=exif)
Image.fromarray(mask).save(train / "a.mask.png")
row = {"image_file_name": "a.jpg", "label_file_name": "a.mask.png"}
(train / "metadata.jsonl").write_text(json.dumps(row) + "\n")

import datasets

row = datasets.load_dataset("imagefolder", data_dir="set", split="train", cache_dir="cache")[0]
turned = np.array(row["image"].convert("L"))
label = np.array(row["label"])
stored = np.array(Image.open(train / "a.jpg").convert("L"))
print(f"photo {turned.shape}, mask {label.shape}")
on_disk, in_set = stored[label == 1].mean(), turned[label == 1].mean()
print(f"brightness of the object under its mask: {on_disk:.0f} on disk, {in_set:.0f} in the dataset")
assert turned.shape == label.shape
assert on_disk > 250 and in_set < 5, "photo and mask belong together again"
PY
