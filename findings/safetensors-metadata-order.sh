#!/usr/bin/env bash
# safetensors 0.8.0 (Python, safetensors.numpy), numpy 2.4.6.
#
# What happens: entries of a file's `__metadata__` are written in an order that differs from call to call. The same
# tensors with the same metadata, saved again in the same process, are another file: its SHA-256 changes, though each
# tensor is at the same offset and every value equal.
#
# Why one would expect otherwise: tensors are put into a defined order by the writer, dictionaries of Python keep theirs,
# and the format is used where files are named by their hash (hub caches, Git LFS, signatures, reproducible builds).
#
# Seen (the first number varies, and is never 1):
#   20 saves of one tensor with 8 entries of metadata: 20 different files
#   20 saves of one tensor with 1 entry: 1 file
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'PY'
import hashlib

import numpy as np
from safetensors.numpy import load, save

tensors = {"x": np.arange(4, dtype=np.float32)}


def files(metadata):
    saved = [save(tensors, metadata=metadata) for _ in range(20)]
    assert all((load(file)["x"] == tensors["x"]).all() for file in saved)
    return len({hashlib.sha256(file).hexdigest() for file in saved})


many = files({letter: letter for letter in "abcdefgh"})
one = files({"format": "np"})
print("20 saves of one tensor with 8 entries of metadata:", many, "different files")
print("20 saves of one tensor with 1 entry:", one, "file")
assert many > 1, "metadata now has an order"
assert one == 1
PY
