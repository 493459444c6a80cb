#!/usr/bin/env bash
# Pillow 13.0.0 (ImageOps.exif_transpose, JPEG and PNG).
#
# What happens: where EXIF has no orientation, exif_transpose takes that of XMP. With an EXIF block that cannot be parsed
# a JPEG is not turned, though its XMP asks for it: opening the file has already tried to read EXIF (for the resolution),
# hid the error, and left an empty result behind that counts as loaded, so XMP is not asked any more. A PNG with the same
# two blocks raises SyntaxError from the same call.
#
# Why one would expect otherwise: the same metadata give three different answers, by container and by what was asked
# before: turned by XMP alone, silently upright, or an error.
#
# Seen (a photo of 4 x 2 pixels that XMP turns by a quarter):
#   JPEG, XMP alone              (2, 4)
#   JPEG, XMP and damaged EXIF   (4, 2)
#   PNG, XMP alone               (2, 4)
#   PNG, XMP and damaged EXIF    SyntaxError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PY'
import io
import struct
import zlib

from PIL import Image, ImageOps

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
DAMAGED = b"this is no TIFF header"


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (4, 2)).save(file, kind)
    return file.getvalue()


def jpeg(*payloads):
    start, rest = encoded("JPEG")[:2], encoded("JPEG")[2:]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 2) + p for p in payloads)
    return start + segments + rest


def png(*chunks):
    whole = encoded("PNG")
    made = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return whole[:33] + made + whole[33:]


def turned(name, data):
    try:
        seen = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size
    except SyntaxError:
        seen = "SyntaxError"
    print(f"{name:28} {seen}")
    return seen


of_jpeg = b"http://ns.adobe.com/xap/1.0/\0" + XMP
of_png = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
assert turned("JPEG, XMP alone", jpeg(of_jpeg)) == (2, 4)
assert turned("JPEG, XMP and damaged EXIF", jpeg(b"Exif\0\0" + DAMAGED, of_jpeg)) == (4, 2), "now turned"
assert turned("PNG, XMP alone", png(of_png)) == (2, 4)
assert turned("PNG, XMP and damaged EXIF", png((b"eXIf", DAMAGED), of_png)) == "SyntaxError"
PY
