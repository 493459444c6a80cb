"""Goldens for percept-eval's PAMR: pixel-adaptive mask refinement in PyTorch, 64 bits.

    python tools/parity/pamr.py      # from the repository's root

Made with numpy 2.4.6 and torch 2.15.0. Written from the equations of Araslanov and Roth (2020),
section 3.3, with the constants of their experiments: the weights are

    softmax over n of  -mean over channels of |x_p - x_n| / (1e-8 + 0.1 sigma_p)

for the eight neighbours n of pixel p at every dilation, sigma_p being the standard deviation
(n - 1) over the 3 x 3 pixels at every dilation. Pixels beyond the border are those at it.

Writes crates/percept-eval/tests/goldens/metrics_pamr.json: per case the photo row by row, the
maps `[classes, height, width]`, the settings and the refined maps.
"""

import json
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).resolve().parents[2] / "crates/percept-eval/tests/goldens/metrics_pamr.json"


def neighbours(x, dilations, with_centre):
    """`[C, H, W]` to `[N, C, H, W]`."""
    _, height, width = x.shape
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if with_centre or dy or dx]
    shifted = []
    for dilation in dilations:
        for dy, dx in steps:
            rows = (torch.arange(height) + dy * dilation).clamp(0, height - 1)
            columns = (torch.arange(width) + dx * dilation).clamp(0, width - 1)
            shifted.append(x[:, rows][:, :, columns])
    return torch.stack(shifted)


def pamr(photo, maps, dilations, iterations):
    """Refines `maps` `[C, H, W]` by `photo` `[3, H, W]`."""
    deviation = neighbours(photo, dilations, True).std(0, correction=1)
    difference = (neighbours(photo, dilations, False) - photo).abs()
    affinity = torch.softmax(-(difference / (1e-8 + 0.1 * deviation)).mean(1, keepdim=True), 0)
    for _ in range(iterations):
        maps = (affinity * neighbours(maps, dilations, False)).sum(0)
    return maps


def cases():
    rng = np.random.default_rng(23)
    usual = [1, 2, 4, 8, 12, 24]

    def surfaces(height, width):
        y, x = np.indices((height, width))
        inside = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 3) ** 2
        colours = np.where(inside[..., None], [200, 60, 40], [50, 90, 160])
        return np.clip(colours + rng.normal(0, 12, (height, width, 3)), 0, 255)

    yield surfaces(21, 26), 2, usual, 10
    yield surfaces(21, 26), 1, [1, 3], 3
    yield rng.integers(0, 256, (9, 7, 3)), 3, usual, 10
    yield np.full((6, 5, 3), 77), 1, [2], 2
    yield rng.integers(0, 256, (1, 9, 3)), 1, [1, 24], 2
    yield rng.integers(0, 256, (8, 1, 3)), 1, [1, 24], 2
    yield rng.integers(0, 256, (1, 1, 3)), 2, usual, 10


def main():
    rng = np.random.default_rng(24)
    written = []
    for photo, classes, dilations, iterations in cases():
        photo = photo.astype(np.uint8)
        height, width, _ = photo.shape
        maps = rng.normal(0, 1, (classes, height, width)).round(2)
        chw = torch.from_numpy(photo).permute(2, 0, 1).double() / 255
        refined = pamr(chw, torch.from_numpy(maps), dilations, iterations)
        written.append({
            "height": height,
            "width": width,
            "dilations": dilations,
            "iterations": iterations,
            "photo": photo.ravel().tolist(),
            "maps": maps.ravel().tolist(),
            "refined": [round(v, 6) for v in refined.ravel().tolist()],
        })
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(written, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(written)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
