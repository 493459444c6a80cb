"""Write tiny JPEGs of every subsampling and the pixels that Pillow decodes them to.

    python jpeg.py OUT      # crates/percept-image/tests/data
"""
import pathlib
import sys

import numpy as np
from PIL import Image

out = pathlib.Path(sys.argv[1])
y, x = np.mgrid[0:21, 0:33]
noise = np.random.default_rng(0).integers(0, 40, (21, 33, 3))
pattern = np.stack([x * 6, y * 10, (x * y) % 200], -1) % 216 + noise
photo = Image.fromarray(pattern.astype(np.uint8))
for name, image, options in [
    ("420", photo, {"subsampling": 2}),
    ("422", photo, {"subsampling": 1}),
    ("444", photo, {"subsampling": 0}),
    ("progressive", photo, {"subsampling": 2, "progressive": True}),
    ("grey", photo.convert("L"), {}),
]:
    path = out / f"jpeg-{name}.jpg"
    image.save(path, quality=80, **options)
    Image.open(path).convert("RGB").save(out / f"jpeg-{name}.png", optimize=True)
