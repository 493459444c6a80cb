#!/usr/bin/env bash
# safetensors 0.8.0 (Python, safetensors.numpy), numpy 2.4.6.
#
# What happens: `safetensors.numpy.save` writes the bytes of an array as they lie in memory, under the array's shape.
# An array in column order (`numpy.asfortranarray`, the order that pycocotools' masks have and need) or any other view
# that is not contiguous comes back with the right shape, the right type and its values in other places. No error, no
# warning.
#
# Why one would expect otherwise: `numpy.save` keeps such arrays whole, and `safetensors.torch.save` refuses tensors
# that are not contiguous, with a message that says so.
#
# Seen:
#   saved   [[0, 1, 2], [3, 4, 5]]
#   loaded  [[0, 3, 1], [4, 2, 5]]
#   a mask of 6 pixels in pycocotools' order overlaps itself, once saved and loaded, in 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from safetensors.numpy import load, save

rows_first = np.arange(6, dtype=np.float32).reshape(2, 3)
columns_first = np.asfortranarray(rows_first)
assert (columns_first == rows_first).all()
loaded = load(save({"x": columns_first}))["x"]
print("saved  ", rows_first.astype(int).tolist())
print("loaded ", loaded.astype(int).tolist())
assert loaded.shape == rows_first.shape
assert loaded.tolist() == [[0, 3, 1], [4, 2, 5]], "the values are no longer in other places"
# The same array, copied into row order first, survives.
assert (load(save({"x": np.ascontiguousarray(columns_first)}))["x"] == rows_first).all()

mask = np.zeros((4, 8), np.uint8, order="F")
mask[1, 1:7] = 1
again = load(save({"mask": mask}))["mask"]
print("a mask of", int(mask.sum()), "pixels in pycocotools' order overlaps itself, once saved and loaded, in",
      int((mask & again).sum()))
assert int((mask & again).sum()) < int(mask.sum())
PY
