"""Small JPEGs that the Rust encoders cannot make, for percept-image's decoding tests.

    python tools/parity/photos.py      # from the repository's root

Made with Pillow 13.0.0. Writes into crates/percept-image/tests/data/decode a picture whose four
quarters are red, green / blue, white:

    cmyk.jpg       as CMYK (Adobe's inverted values, as Photoshop writes them)
    exif-N.jpg     N = 1..8: stored so that EXIF orientation N turns it upright
    animated.webp  two frames, the first being the picture
"""

from pathlib import Path

from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "crates/percept-image/tests/data/decode"
ORIENTATION = 0x0112

# What undoes each orientation, in Pillow's words (ImageOps.exif_transpose applies the inverse).
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quarters():
    img = Image.new("RGB", (48, 32), "white")
    img.paste("red", (0, 0, 24, 16))
    img.paste("lime", (24, 0, 48, 16))
    img.paste("blue", (0, 16, 24, 32))
    return img


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    img = quarters()
    img.convert("CMYK").save(OUT / "cmyk.jpg", quality=90, subsampling=0)
    for orientation, transpose in STORED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = img if transpose is None else img.transpose(transpose)
        stored.save(OUT / f"exif-{orientation}.jpg", quality=90, subsampling=0, exif=exif)
    black = Image.new("RGB", img.size, "black")
    img.save(OUT / "animated.webp", save_all=True, append_images=[black], lossless=True)


if __name__ == "__main__":
    main()
