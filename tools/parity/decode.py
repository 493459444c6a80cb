"""Write tiny images that are odd in the ways of the wild, and what Pillow makes of them.

    python decode.py crates/percept-image/tests/data/pillow

`expected.json` has for each file the size and the SHA-256 of the RGB pixels after `exif_transpose`, with
transparent pixels on white; or null where Pillow refuses the file.
"""
import hashlib
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
y, x = np.mgrid[0:9, 0:14]
colours = np.stack([x * 18, y * 28, (x + y) * 11], -1).astype("uint8")
photo = Image.fromarray(colours)
seen = Image.fromarray(np.dstack([colours, (x * 19).astype("uint8")]))
grey = photo.convert("L")
files = {}


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(value, kind=3, order="<"):
    """An EXIF block with an orientation alone."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return head + struct.pack(order + "IHHHI", 8, 1, 0x112, kind, 1) + value + bytes(4)


def xmp(value):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{value}"/></x:xmpmeta>'.encode()


XMP_ELEMENT = b"<x:xmpmeta><rdf:Description><tiff:Orientation>8</tiff:Orientation></rdf:Description></x:xmpmeta>"
six, three = exif(b"\6\0\0\0"), exif(b"\3\0\0\0")

# --- JPEG: where the orientation stands
jpeg = encoded(photo, "JPEG", quality=60, optimize=True)


def app1(*segments):
    parts = [b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


E, X = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
files |= {
    "xmp.jpg": app1(X + xmp(6)),
    "xmp-element.jpg": app1(X + XMP_ELEMENT),
    "xmp-twice.jpg": app1(X + xmp(6), X + xmp(3)),
    "xmp-then-exif.jpg": app1(X + xmp(8), E + six),
    "exif-of-0-then-xmp.jpg": app1(E + exif(bytes(4)), X + xmp(8)),
    "exif-of-9-then-xmp.jpg": app1(E + exif(b"\x09\0\0\0"), X + xmp(8)),
    "exif-without-then-xmp.jpg": app1(E + six.replace(b"\x12\x01", b"\x0f\x01"), X + xmp(8)),
    "exif-long.jpg": app1(E + exif(b"\6\0\0\0", 4)),
    "exif-byte-then-xmp.jpg": app1(E + exif(b"\6\0\0\0", 1), X + xmp(8)),
    "exif-big-endian.jpg": app1(E + exif(b"\0\6\0\0", order=">")),
    "exif-in-exif.jpg": app1(E + E + six),
    "exif-in-parts.jpg": app1((E + six)[:20], E + (E + six)[20:]),
    "exif-cut.jpg": app1((E + six)[:-8]),
}

# --- JPEG: ends
progressive = encoded(photo, "JPEG", quality=60, progressive=True)
for name, file in (("baseline", jpeg), ("progressive", progressive)):
    files |= {
        f"{name}-without-end.jpg": file[:-2],
        f"{name}-cut.jpg": file[: -len(file) // 8],
        f"{name}-with-zeros-for-end.jpg": file[:-2] + bytes(64),
        f"{name}-with-text-for-end.jpg": file[:-2] + b"a trailer of somebody's " * 3,
        f"{name}-cut-with-zeros.jpg": file[:-20] + bytes(64),
        f"{name}-twice.jpg": file + file,
    }

# --- PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


png = encoded(photo, "PNG")
head, idat, end = png[:33], png[33:-12], png[-12:]
assert idat[4:8] == b"IDAT" and idat.count(b"IDAT") == 1


def profile(block):
    digits = block.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return f"\nexif\n{len(block):8}\n".encode() + "\n".join(lines).encode() + b"\n"


RAW, ITXT = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
files |= {
    "exif-before.png": head + chunk(b"eXIf", six) + idat + end,
    "exif-behind.png": head + idat + chunk(b"eXIf", six) + end,
    "exif-on-both-sides.png": head + chunk(b"eXIf", three) + idat + chunk(b"eXIf", six) + end,
    "xmp.png": head + chunk(b"iTXt", ITXT + bytes(4) + xmp(8)) + idat + end,
    "xmp-compressed.png": head + chunk(b"iTXt", ITXT + b"\1\0\0\0" + zlib.compress(xmp(8))) + idat + end,
    "xmp-behind.png": head + idat + chunk(b"iTXt", ITXT + bytes(4) + xmp(8)) + end,
    "xmp-in-text.png": head + chunk(b"tEXt", ITXT + xmp(8)) + idat + end,
    "profile.png": head + chunk(b"tEXt", RAW + profile(six)) + idat + end,
    "profile-compressed.png": head + chunk(b"zTXt", RAW + b"\0" + zlib.compress(profile(E + six))) + idat + end,
    "profile-behind.png": head + idat + chunk(b"tEXt", RAW + profile(six)) + end,
    "profile-and-exif.png": head + chunk(b"tEXt", RAW + profile(three)) + chunk(b"eXIf", six) + idat + end,
    "profile-and-xmp.png": head + chunk(b"tEXt", RAW + profile(six)) + chunk(b"iTXt", ITXT + bytes(4) + xmp(8)) + idat + end,
    "profile-app1.png": head + chunk(b"tEXt", RAW.replace(b"exif", b"APP1") + profile(six)) + idat + end,
    "exif-in-text.png": head + chunk(b"tEXt", b"exif\0" + six) + idat + end,
    "without-end.png": head + idat,
    "without-end-in-parts.png": head + chunk(b"IDAT", idat[8:60]) + chunk(b"IDAT", idat[60:-4]),
    "with-text-for-end.png": head + idat + b"a trailer of somebody's " * 3,
    "cut-in-checksum.png": head + idat[:-2],
    "cut-in-inner-checksum.png": head + idat[:-6],
    "cut-in-pixels.png": head + idat[:-12],
    "wrong-checksum.png": head + idat[:-4] + b"abcd" + end,
}

# --- others
tag, packet = TiffImagePlugin.ImageFileDirectory_v2(), TiffImagePlugin.ImageFileDirectory_v2()
tag[0x112] = 6
packet[700], packet.tagtype[700] = xmp(8), 1
files |= {
    "exif.webp": encoded(photo, "WEBP", lossless=True, exif=E + six),
    "xmp.webp": encoded(photo, "WEBP", lossless=True, xmp=xmp(8)),
    "cut.webp": encoded(photo, "WEBP", lossless=True)[:-2],
    "tag.tif": encoded(photo, "TIFF", tiffinfo=tag),
    "xmp.tif": encoded(photo, "TIFF", tiffinfo=packet),
    "cut.tif": encoded(photo, "TIFF")[:-2],
    "cmyk.tif": encoded(photo.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "cut.gif": encoded(photo, "GIF")[:-8],
    "cut.bmp": encoded(photo, "BMP")[:-8],
    "two.mpo.jpg": encoded(photo, "MPO", save_all=True, append_images=[photo.rotate(180)], quality=60),
}

# --- alpha
files |= {
    "rgba.png": encoded(seen, "PNG"),
    "la.png": encoded(Image.merge("LA", [grey, seen.getchannel("A")]), "PNG"),
    "palette.png": encoded(photo.quantize(8), "PNG", transparency=bytes(range(0, 256, 32))),
    "grey-key.png": encoded(grey, "PNG", transparency=int(np.array(grey)[3, 3])),
    "rgba.webp": encoded(seen, "WEBP", lossless=True, exact=True),
    "palette.gif": encoded(photo.quantize(8), "GIF", transparency=3),
    "rgba.tif": encoded(seen, "TIFF", compression="tiff_lzw"),
}


def reading(path):
    try:
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode in ("RGBA", "LA") or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            image = white
        image = image.convert("RGB")
    except (OSError, SyntaxError):
        return None
    return {"size": image.size, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}


for name, file in files.items():
    (out / name).write_bytes(file)
expected = {name: reading(out / name) for name in sorted(files)}
lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items()]
(out / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
