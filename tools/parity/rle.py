"""Goldens for percept-image's run-length encoding: what pycocotools makes of known masks.

    python tools/parity/rle.py      # from the repository's root

Made with pycocotools 2.0.11. Writes
crates/percept-image/tests/data/rle.json: per mask its size, its pixels row by row ("0" and "1"),
and pycocotools' string, area and box.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

OUT = Path(__file__).resolve().parents[2] / "crates/percept-image/tests/data/rle.json"


def masks():
    rng = np.random.default_rng(7)
    for height, width in [(1, 1), (1, 9), (9, 1), (2, 3), (7, 5), (16, 16), (33, 21)]:
        yield np.zeros((height, width), bool)
        yield np.ones((height, width), bool)
        for density in (0.02, 0.5, 0.95):
            yield rng.random((height, width)) < density
    checkers = np.indices((12, 13)).sum(0) % 2 == 0
    yield checkers
    yield ~checkers
    # Stripes: every run equal, so every difference zero; and runs over the ends of columns.
    yield np.tile([True, False], (10, 8))
    yield np.tile([[True], [False]], (8, 10))
    columns = np.zeros((6, 9), bool)
    columns[3:, 2] = columns[:2, 3] = True
    yield columns
    corners = np.zeros((30, 40), bool)
    corners[0, 0] = corners[-1, -1] = corners[0, -1] = corners[-1, 0] = True
    yield corners
    # Long runs beside short ones: differences of several groups, of both signs.
    blob = np.zeros((90, 110), bool)
    blob[20:70, 30:80] = True
    blob[40, 50] = False
    yield blob
    for edge in (15, 16, 17, 31, 32, 33, 511, 512, 513):  # around the ends of 5-bit groups
        row = np.zeros((1, 1100), bool)
        row[0, edge : 2 * edge] = True
        yield row


def main():
    cases = []
    for mask in masks():
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        cases.append({
            "size": list(mask.shape),
            "mask": "".join("01"[int(pixel)] for pixel in mask.ravel()),
            "counts": rle["counts"].decode(),
            "area": int(coco.area(rle)),
            "bbox": coco.toBbox(rle).tolist(),
        })
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f'{{"pycocotools": "{version("pycocotools")}", "cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
