"""Write tiny JPEGs of every subsampling, and the pixels that Pillow decodes them to.

    python jpeg.py crates/percept-image/tests/data/decode
"""
import pathlib
import sys

import numpy as np
from PIL import Image

out = pathlib.Path(sys.argv[1])
y, x = np.mgrid[0:21, 0:33]
smooth = np.stack([127 + 110 * np.sin(x / 5 + y / 9), 127 + 110 * np.cos(x / 7 - y / 4), (x * 9 + y * 5) % 256], -1)
noisy = np.clip(smooth + np.random.default_rng(0).normal(0, 25, smooth.shape), 0, 255).astype("uint8")
photo = Image.fromarray(noisy)
for name, source, options in [
    ("444", photo, {"subsampling": 0}),
    ("422", photo, {"subsampling": 1}),
    ("420", photo, {"subsampling": 2}),
    ("420-progressive", photo, {"subsampling": 2, "progressive": True}),
    ("grey", photo.convert("L"), {}),
    ("cmyk", photo.convert("CMYK"), {"subsampling": 0}),
]:
    path = out / f"pillow-{name}.jpg"
    source.save(path, quality=85, **options)
    Image.open(path).convert("RGB").save(path.with_suffix(".png"), optimize=True)
