"""Goldens for percept-data's COCO reader: what pycocotools makes of random and awkward polygons, and
of the objects of a small COCO.

    python tools/parity/polygons.py ../shared/data/coco      # from the repository's root

Made with numpy 2.4.6 and pycocotools 2.0.11. Writes crates/percept-data/tests/goldens/polygons.json.
Of the real annotations it holds areas and hashes only.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

OUT = Path(__file__).resolve().parents[2] / "crates/percept-data/tests/goldens/polygons.json"


def draw(polygons, height, width):
    """The mask as `COCO.annToRLE` makes it."""
    return coco.merge(coco.frPyObjects(polygons, height, width))


def case(name, height, width, *polygons):
    polygons = [[float(v) for v in polygon] for polygon in polygons]
    return {
        "name": name,
        "size": [height, width],
        "polygons": [[int(v) if v == int(v) else v for v in p] for p in polygons],
        "rle": draw(polygons, height, width)["counts"].decode(),
    }


def rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def star(points, step, x, y, radius):
    turns = [2 * math.pi * (i * step % points) / points for i in range(points)]
    return [v for t in turns for v in (x + radius * math.sin(t), y - radius * math.cos(t))]


def awkward():
    yield case("whole picture", 5, 6, rectangle(0, 0, 6, 5))
    yield case("last pixel", 5, 6, rectangle(5, 4, 6, 5))
    yield case("last column", 5, 6, rectangle(5, 0, 6, 5))
    yield case("larger than the picture", 5, 6, rectangle(-9, -9, 99, 99))
    yield case("one pixel picture", 1, 1, rectangle(0, 0, 1, 1))
    yield case("one pixel picture, a corner of it", 1, 1, [0, 0, 1, 0, 0, 1])
    yield case("one row", 1, 30, star(5, 2, 15.2, 0.4, 9.7))
    yield case("one column", 30, 1, star(5, 2, 0.6, 14.9, 9.7))
    for name, x, y in [("left", -8, 1), ("right", 7, 1), ("above", 1, -8), ("below", 1, 7)]:
        yield case(f"outside, {name}", 5, 6, rectangle(x, y, x + 4, y + 3))
        near = rectangle(x * 0.45, y * 0.45, x * 0.45 + 4, y * 0.45 + 3)
        yield case(f"over the edge, {name}", 5, 6, near)
    yield case("corner over the edge", 7, 9, star(3, 1, 0, 0, 5.3))
    yield case("other corner over the edge", 7, 9, star(3, 1, 9, 7, 5.3))
    # Truncation rounds negative numbers up.
    for shift in [0.1, 0.3, 0.5, 0.7, 0.9]:
        corners = [-shift, -shift, 4.2, 1 - shift, 2.6 - shift, 5.5]
        yield case(f"negative by {shift}", 6, 6, corners)
        yield case(f"negative by {1 + shift}", 6, 6, [v - 1 for v in corners])
    yield case("far vertices", 40, 50, [-99999.5, -99999, 99999, 3.3, -5, 99999.25])
    yield case("far vertices, thin", 40, 50, [-100000, 20, 100000, 21.5, 100000, 24])

    yield case("a point", 5, 6, [2, 2] * 3)
    yield case("a point outside", 5, 6, [-2, -2] * 3)
    yield case("a point in the middle of a pixel", 5, 6, [2.5, 2.5] * 4)
    yield case("a horizontal line", 5, 6, [0, 2, 3, 2, 6, 2])
    yield case("a vertical line", 5, 6, [2, 0, 2, 3, 2, 5])
    yield case("a diagonal line", 9, 9, [0, 0, 4.5, 4.5, 9, 9])
    yield case("a steep line, there and back", 20, 9, [1, 0, 7.3, 19.6, 1, 0])
    yield case("repeated vertices", 9, 9, [1, 1, 1, 1, 7, 1, 7, 1, 7, 6, 7, 6, 7, 6, 1, 1])
    yield case("repeated vertices outside", 9, 9, [-3, -3, -3, -3, 12, -4, 12, -4, 5, 12, 5, 12])
    yield case("repeated vertices at the edge", 9, 9, [0, 0, 0, 0, 9, 0, 9, 0, 9, 9, 9, 9, 0, 9])
    yield case("closed by hand", 9, 9, rectangle(1.2, 1.7, 7.9, 6.4) + [1.2, 1.7])
    yield case("clockwise and back", 9, 9, rectangle(1, 1, 7, 6) + rectangle(1, 1, 7, 6)[::-1])
    yield case("round twice", 9, 9, rectangle(1, 1, 7, 6) * 2)
    yield case("bow tie", 12, 14, [1, 1, 13, 11, 13, 1, 1, 11])
    yield case("pentagram", 31, 33, star(5, 2, 16.3, 15.1, 14.2))
    yield case("star of eleven", 40, 40, star(11, 5, 20, 20, 19.5))
    yield case("star of eleven, over the edges", 40, 40, star(11, 4, 19, 22.2, 27))
    comb = [v for i in range(24) for v in (i * 1.3, 1.1 if i % 2 else 17.7)]
    yield case("comb", 20, 32, [0, 19, *comb, 31, 19])
    spiral = [
        v for i in range(60) for v in (20 + i / 3.2 * math.cos(i / 3), 20 + i / 3.2 * math.sin(i / 3))
    ]
    yield case("spiral", 40, 40, spiral)
    round_ = [v for i in range(360) for v in (25 + 21.4 * math.cos(i / 57.3), 24 + 21.4 * math.sin(i / 57.3))]
    yield case("circle of 360", 48, 50, [round(v, 2) for v in round_])

    yield case("tiny, off the middle", 5, 6, [2.0, 2.0, 2.2, 2.0, 2.1, 2.2])
    yield case("tiny, around the middle", 5, 6, [2.4, 2.4, 2.7, 2.4, 2.5, 2.7])
    yield case("tiny, a step wide", 5, 6, rectangle(2.4, 2.4, 2.6, 2.6))
    yield case("sliver", 30, 40, [0.3, 0.2, 39.6, 29.1, 39.7, 29.4])
    yield case("upright sliver", 30, 40, [12.1, 0, 12.9, 29.9, 12.4, 30])
    # A fifth of a pixel and a tenth are where rounding turns.
    for turn in [0.1, 0.3, 0.5, 0.7, 0.9]:
        for name, near in [
            ("at", lambda v: v),
            ("just below", lambda v: math.nextafter(v, -9)),
            ("just above", lambda v: math.nextafter(v, 99)),
        ]:
            x0, y0, x1, y1 = (near(v + turn) for v in (1, 2, 6, 5))
            yield case(f"{name} {turn}", 8, 9, [x0, y0, x1, y0, x1, y1, x0 + 1, y1])

    yield case("two apart", 12, 16, rectangle(1, 1, 5, 6), rectangle(8.5, 2, 14, 11))
    yield case("two that overlap", 12, 16, rectangle(1, 1, 9, 8), rectangle(5.5, 4, 14, 11))
    yield case("two that touch", 12, 16, rectangle(1, 1, 5, 8), rectangle(5, 1, 9, 8))
    yield case("one above the other", 12, 16, rectangle(1, 1, 5, 4), rectangle(1, 4, 5, 9))
    yield case("the same twice", 12, 16, star(5, 2, 8, 6, 5), star(5, 2, 8, 6, 5))
    yield case("one in the other", 12, 16, rectangle(1, 1, 14, 11), rectangle(4, 4, 7, 7))
    yield case("one outside", 12, 16, rectangle(1, 1, 5, 6), rectangle(30, 30, 40, 40))
    yield case("all outside", 12, 16, rectangle(-9, 1, -5, 6), rectangle(30, 30, 40, 40))
    yield case("from the first pixel, twice", 6, 6, rectangle(0, 0, 2, 3), rectangle(0, 0, 4, 2))
    yield case("to the last pixel, twice", 6, 6, rectangle(4, 3, 6, 6), rectangle(2, 5, 6, 6))
    yield case("halves of the picture", 6, 6, rectangle(0, 0, 3, 6), rectangle(3, 0, 6, 6))
    parts = [star(3, 1, 5 + 6 * (i % 5), 5 + 7 * (i // 5), 3.9) for i in range(20)]
    yield case("twenty parts", 33, 37, *parts)


def random(rng):
    roundings = {
        "whole": lambda v: v.round(),
        "halves": lambda v: (v * 2).round() / 2,
        "tenths": lambda v: v.round(1),
        "hundredths": lambda v: v.round(2),
        "any": lambda v: v,
    }
    for name, rounded in roundings.items():
        for i in range(60):
            height, width = (int(v) for v in rng.integers(1, 48, 2))
            parts = []
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                vertices = int(rng.choice([3, 3, 4, 6, 12]))
                if i % 3 == 0:  # mostly over the edges
                    low, high = -max(height, width), 2 * max(height, width)
                    points = rng.uniform(low, high, (vertices, 2))
                elif i % 3 == 1:  # inside
                    points = rng.uniform(0, 1, (vertices, 2)) * [width, height]
                else:  # small, anywhere near
                    middle = rng.uniform(-2, 2 + max(height, width), 2)
                    points = middle + rng.normal(0, 1.5, (vertices, 2))
                parts.append(rounded(points).ravel().tolist())
            yield case(f"random {name} {i}", height, width, *parts)


def fnv1a(texts):
    """FNV-1a of 64 bits over the lines."""
    value = 0xCBF29CE484222325
    for byte in "".join(f"{text}\n" for text in texts).encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def real(folder):
    """The small COCO: areas and masks of all annotations by photo, crowds included, and the truth
    maps, into which larger masks are painted first and of equals the later one last."""
    file = json.loads((folder / "annotations/instances_val2017.json").read_text())
    index = {c: i + 1 for i, c in enumerate(sorted(c["id"] for c in file["categories"]))}
    areas, masks, maps = [], [], []
    for image in file["images"]:
        height, width = image["height"], image["width"]
        drawn = []
        for entry in file["annotations"]:
            if entry["image_id"] != image["id"]:
                continue
            pixels = entry["segmentation"]
            if isinstance(pixels, list):
                mask = draw(pixels, height, width)
            else:
                mask = coco.frPyObjects(pixels, height, width)
            areas.append(int(coco.area(mask)))
            masks.append(mask["counts"].decode())
            drawn.append((mask, index[entry["category_id"]]))
        truth = np.zeros((height, width), np.uint8)
        for mask, label in sorted(drawn, key=lambda d: -int(coco.area(d[0]))):
            truth[coco.decode(mask) == 1] = label
        for label in np.unique(truth):
            of_label = np.asfortranarray((truth == label).astype(np.uint8))
            maps.append(f"{label} " + coco.encode(of_label)["counts"].decode())
    return {"areas": areas, "masks": fnv1a(masks), "maps": fnv1a(maps)}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    written = {
        "cases": [*awkward(), *random(np.random.default_rng(1))],
        "real": real(Path(sys.argv[1])),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(written, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(written['cases'])} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
