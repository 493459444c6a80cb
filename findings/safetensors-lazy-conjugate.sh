#!/usr/bin/env bash
# safetensors 0.8.0 (Python, safetensors.torch), torch 2.15.0.
#
# What happens: PyTorch conjugates lazily: `x.conj()` is a view of the old values with a bit that says "conjugated". It is
# contiguous, so `safetensors.torch.save` takes it, writes the old values and loses the bit: in what is loaded, imaginary
# parts have the other sign. No error, no warning.
#
# Why one would expect otherwise: `torch.save` keeps the values, `torch.equal` and `print` see them, and
# `safetensors.torch.save` refuses other views that it cannot write as they are. Rotary position tables and Fourier
# filters are where vision models hold such tensors.
#
# Seen:
#   saved  tensor([1.-2.j, 3.+4.j])
#   loaded tensor([1.+2.j, 3.-4.j])
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.15.0 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'PY'
import io

import torch
from safetensors.torch import load, save

lazy = torch.tensor([1 + 2j, 3 - 4j]).conj()
assert lazy.is_contiguous() and lazy.is_conj()
loaded = load(save({"x": lazy}))["x"]
print("saved ", lazy)
print("loaded", loaded)
assert torch.equal(loaded, lazy.conj()), "the bit is no longer lost"
# PyTorch's own format keeps it.
file = io.BytesIO()
torch.save(lazy, file)
file.seek(0)
assert torch.equal(torch.load(file), lazy)
# So does safetensors, once the conjugate is computed.
assert torch.equal(load(save({"x": lazy.resolve_conj()}))["x"], lazy)
PY
