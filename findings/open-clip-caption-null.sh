#!/usr/bin/env bash
# open_clip_torch 3.3.0 (open_clip_train.data.CsvDataset), pandas 3.1.1.
#
# What happens: the training code reads captions with `pandas.read_csv`, which takes "null", "None", "NA", "n/a" and an
# empty field for missing, and then makes text of what came out. Each of these captions is trained as the one word "nan".
# No warning, and the number of rows stays what it was.
#
# Why one would expect otherwise: the column is text, `open_clip.get_tokenizer` itself keeps these words apart, and a
# missing caption is usually skipped (img2dataset, webdataset pipelines) rather than turned into a word.
#
# Seen:
#   'null' 'None' 'NA' 'n/a' '' are all trained as 49406 7750 49407, which is 'nan'
#   'a null island' is trained as it stands
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.1.1 pillow==13.0.0 torch==2.15.0 \
    torchvision==0.29.2 webdataset==1.0.2 open_clip_torch==3.3.0
cd "$folder"
venv/bin/python - <<'PY'
import csv

import open_clip
from open_clip_train.data import CsvDataset
from PIL import Image

Image.new("RGB", (8, 8)).save("a.jpg")
missing = ["null", "None", "NA", "n/a", ""]
with open("pairs.tsv", "w", newline="") as file:
    rows = csv.writer(file, delimiter="\t")
    rows.writerow(["filepath", "title"])
    rows.writerows(["a.jpg", caption] for caption in [*missing, "a null island"])
tokenizer = open_clip.get_tokenizer("ViT-B-32")
pairs = CsvDataset("pairs.tsv", lambda photo: photo, "filepath", "title", sep="\t", tokenizer=tokenizer)
ids = [[i for i in pairs[n][1].tolist() if i] for n in range(len(pairs))]
nan = [i for i in tokenizer(["nan"])[0].tolist() if i]
print(*map(repr, missing), "are all trained as", *nan, "which is 'nan'")
assert len(pairs) == 6
assert all(of_row == nan for of_row in ids[:5]), "such captions are no longer 'nan'"
assert ids[5] == [i for i in tokenizer(["a null island"])[0].tolist() if i]
# The tokenizer alone would have told them apart.
assert len({tuple(tokenizer([caption])[0].tolist()) for caption in missing}) == 5
print("'a null island' is trained as it stands")
PY
