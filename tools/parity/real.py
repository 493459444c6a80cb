"""Write what PyTorch gives for the real backbones and the pilot on real photos and sentences.

    python real.py OUT --backbones DIR --pilot DIR --photos A.jpg B.jpg C.jpg

OUT/real.safetensors, for tower in (vit, pilot), each photo's stem and each size WxH:
    TOWER.STEM.WxH.cls [384], TOWER.STEM.WxH.tokens_every_16th [n, 384]    after the final norm
    TOWER.STEM.WxH.embedding.{max,max-with-cls,avg,cls} [384]              L2-normalised
and `minilm.text_embeddings` [20, 384]. OUT/real.json: sentences, photos with their SHA-256, versions.
Photos are squashed to the size with Pillow's bicubic and normalised with ImageNet's mean and std.
Compares with the pilot's own goldens where DIR has them for the same photos.
"""
import argparse
import hashlib
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import PIL
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import logging

import common

logging.disable_progress_bar()

SIZES = ((224, 224), (336, 252))  # width, height
VIT_S14 = dict(dim=384, depth=12, heads=6, patch=14, grid=37, init_values=1e-5)
SENTENCES = [
    "a photo of a dog", "a photo of a cat", "a photo of an aeroplane", "a photo of a potted plant", "sky", "grass",
    "background", "Two sheep stand on a hill under a grey sky.", "a man riding a horse along the beach",
    "A PHOTO OF A COW",
    "itap of a television monitor.", "a bad photo of the motorbike.", "ein Hund auf dem Sofa", "café, naïve façade",
    "犬の写真", "a dog 🐶 and a cat 🐱", "3 dogs, 12 cats & a horse!", "", "unbelievably", "a photo of a dog, " * 60,
]  # fmt: skip


def pixels(path: pathlib.Path, size: tuple) -> torch.Tensor:
    """[1, 3, H, W] of a photo squashed to (width, height)."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    x = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3)
    mean, std = (torch.tensor(v) for v in common.MEAN_STD["imagenet"])
    return ((x / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--backbones", type=pathlib.Path, required=True, help="what fetch_backbones.py wrote")
    parser.add_argument("--pilot", type=pathlib.Path, required=True, help="folder with image.safetensors")
    parser.add_argument("--photos", type=pathlib.Path, nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)

    prefix = "visual.trunk."
    pilot = load_file(args.pilot / "image.safetensors")
    towers = {
        "vit": load_file(args.backbones / "vit_small_patch14.safetensors"),
        "pilot": {k.removeprefix(prefix): v.float() for k, v in pilot.items() if k.startswith(prefix)},
    }
    tensors = {}
    for tower, state in towers.items():
        for photo in args.photos:
            for size in SIZES:
                tokens = common.vit_tokens(VIT_S14, state, pixels(photo, size), "timm")
                key = f"{tower}.{photo.stem}.{size[0]}x{size[1]}"
                tensors[f"{key}.cls"] = tokens[0, 0]
                tensors[f"{key}.tokens_every_16th"] = tokens[0, 1::16]
                for pool, value in common.pooled(tokens).items():
                    tensors[f"{key}.embedding.{pool}"] = value[0]
    minilm = SentenceTransformer(str(args.backbones / "minilm"), device="cpu")
    tensors["minilm.text_embeddings"] = torch.tensor(minilm.encode(SENTENCES))

    goldens = args.pilot / "goldens.safetensors"
    if goldens.exists():
        known = {k: v for k, v in load_file(goldens).items() if f"pilot.{k}" in tensors}
        diff = max((tensors[f"pilot.{k}"] - v).abs().max().item() for k, v in known.items())
        print(f"pilot goldens: {len(known)} tensors, max difference {diff:.1e}")

    args.out.mkdir(parents=True, exist_ok=True)
    common.write_tensors(args.out / "real.safetensors", tensors)
    common.write_json(args.out / "real.json", {
        "sizes": [f"{w}x{h}" for w, h in SIZES],
        "photos": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in args.photos},
        "sentences": SENTENCES,
        "config": {"num_heads": 6, "patch_size": 14, "grid": 37, "pos_interpolation": "timm", "layer_norm_eps": 1e-6},
        "versions": common.versions() | {"pillow": PIL.__version__},
        "tolerance": 1e-3,
    })  # fmt: skip
    print(f"{len(tensors)} tensors, {(args.out / 'real.safetensors').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
