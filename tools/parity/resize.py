"""Goldens for percept-image's resize: what Pillow makes of known inputs.

    python tools/parity/resize.py      # from the repository's root

Made with Pillow 13.0.0 and NumPy 2.4.6. Pillow up to 12 is refused: it always takes width before
height, 13 the other way where more than twice as many rows as columns go. Writes, under crates/percept-image/tests/data:

    resize/{chelsea,coffee}.png  crops of examples/photos as PNG: JPEG decoders differ by a level
    resize.json                  cases; of each result every `step`-th pixel, as hex RGB

Noise is not stored. It comes from a generator that the Rust test has too.
"""

import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "crates/percept-image/tests/data"
SAMPLES = 400  # pixels kept of a result

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def noise(width, height):
    """Bytes of Knuth's 64-bit linear congruential generator, seeded with the sides."""
    state, out = width << 32 | height, bytearray()
    for _ in range(width * height * 3):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 56)
    return Image.frombytes("RGB", (width, height), bytes(out))


def crop(name, box):
    img = Image.open(ROOT / "examples/photos" / f"{name}.jpg").crop(box)
    (DATA / "resize").mkdir(parents=True, exist_ok=True)
    img.save(DATA / "resize" / f"{name}.png", optimize=True)
    return img


def step_for(pixels):
    """The largest odd step that keeps SAMPLES pixels; odd, so that columns alternate."""
    step = max(1, pixels // SAMPLES)
    return step if step % 2 else step - 1


def main():
    if int(PIL.__version__.split(".")[0]) < 13:
        raise SystemExit(f"Pillow 13 is needed, not {PIL.__version__}: see the top of this file")
    photos = {
        "chelsea": crop("chelsea", (120, 60, 280, 180)),
        "coffee": crop("coffee", (250, 130, 390, 250)),
    }
    up_and_down = [(224, 224), (37, 53), (448, 336), (96, 120), (161, 121), (320, 60), (150, 40), (8, 8), (1, 1)]
    cases = []
    for name in photos:
        cases += [(name, size, "bicubic") for size in up_and_down]
        cases += [(name, (70, 45), f) for f in FILTERS]
        cases += [(name, (333, 251), f) for f in FILTERS]
    for sides, size in [
        ((640, 480), (224, 224)),
        ((640, 480), (602, 448)),
        ((500, 375), (224, 224)),
        ((375, 500), (448, 597)),
        ((97, 61), (224, 224)),
        ((97, 61), (96, 61)),
        ((97, 61), (97, 60)),
        ((64, 64), (640, 7)),
        ((1, 1), (5, 3)),
        ((1, 40), (13, 9)),
        ((2, 3), (448, 448)),
        ((1200, 30), (224, 224)),
    ]:
        cases.append((sides, size, "bicubic"))
    for f in FILTERS:
        cases += [((211, 173), (64, 90), f), ((31, 47), (200, 101), f)]

    written, made = [], {}
    for source, (width, height), name in cases:
        img = photos[source] if source in photos else made.setdefault(source, noise(*source))
        result = img.resize((width, height), FILTERS[name])
        pixels = np.asarray(result).reshape(-1, 3)
        step = step_for(len(pixels))
        case = {"noise": list(source)} if source in made else {"photo": source}
        case |= {"size": [width, height], "filter": name, "step": step}
        written.append(case | {"pixels": pixels[::step].tobytes().hex()})

    lines = ",\n".join(json.dumps(case) for case in written)
    (DATA / "resize.json").write_text(f'{{"pillow": "{PIL.__version__}", "cases": [\n{lines}\n]}}\n')
    print(len(written), "cases")


if __name__ == "__main__":
    main()
