"""Segment a folder of photos by words, the way a researcher would write it in PyTorch; prints JSON.

    python torch_segment.py PHOTOS --vit image.safetensors --text minilm --labels "dog, grass, sky" \
        --size 448 --out masks

One photo after another: PIL, timm ViT in f32, sentence-transformers, cosine, bilinear upsampling to the
photo's own size, argmax, palette PNG. `images_per_s` leaves out imports and loading (`import_s`,
`load_s`); `first_mask_s` counts from the first line of this file to the first mask on disk.
"""
import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import logging  # noqa: E402

logging.disable_progress_bar()
MEAN = torch.tensor((0.485, 0.456, 0.406))
STD = torch.tensor((0.229, 0.224, 0.225))
IMPORTED = time.perf_counter()


def load_vit(path: str) -> VisionTransformer:
    """A ViT of timm's layout, bare or under `visual.trunk.`; its shape is read from the tensors."""
    state = load_file(path)
    if any(k.startswith("visual.trunk.") for k in state):
        state = {k.removeprefix("visual.trunk."): v for k, v in state.items() if k.startswith("visual.trunk.")}
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    model = VisionTransformer(
        img_size=grid * patch, patch_size=patch, embed_dim=dim, num_heads=dim // 64,
        depth=1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks.")),
        init_values=1e-5 if "blocks.0.ls1.gamma" in state else None,
        num_classes=0, global_pool="", fc_norm=False, dynamic_img_size=True)  # fmt: skip
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval()


def palette() -> list:
    """The VOC palette: the bits of the index, spread over the high bits of r, g and b."""
    return [
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for index in range(256)
        for channel in range(3)
    ]


def segment(model, text: torch.Tensor, image: Image.Image, size: int) -> np.ndarray:
    """The label index of every pixel: [height, width] uint8."""
    patch = model.patch_embed.patch_size[0]
    scale = size / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    x = ((torch.from_numpy(pixels.copy()) / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    tokens = F.normalize(model(x)[0, model.num_prefix_tokens :], dim=-1)
    maps = (text @ tokens.T).reshape(1, len(text), height // patch, width // patch)
    maps = F.interpolate(maps, size=(image.height, image.width), mode="bilinear", align_corners=False)
    return maps[0].argmax(0).to(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=pathlib.Path, help="folder of photos, or one photo")
    parser.add_argument("--vit", required=True, help="timm-layout safetensors")
    parser.add_argument("--text", required=True, help="sentence-transformers folder")
    parser.add_argument("--labels", required=True, help="comma-separated")
    parser.add_argument("--size", type=int, default=448, help="short side")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    model = load_vit(args.vit)
    encoder = SentenceTransformer(args.text, device="cpu")
    loaded = time.perf_counter()

    labels = [label.strip() for label in args.labels.split(",")]
    prompts = [f"a photo of {'an' if label[0].lower() in 'aeiou' else 'a'} {label}" for label in labels]
    photos = [args.input]
    if args.input.is_dir():
        photos = sorted(p for p in args.input.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    args.out.mkdir(parents=True, exist_ok=True)
    colours = palette()
    first = None
    with torch.inference_mode():
        text = F.normalize(encoder.encode(prompts, convert_to_tensor=True, show_progress_bar=False), dim=-1)
        for path in photos:
            image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            mask = Image.fromarray(segment(model, text, image, args.size))
            mask.putpalette(colours)
            mask.save(args.out / f"{path.stem}.png")
            first = first or time.perf_counter() - START
    seconds = time.perf_counter() - loaded
    print(json.dumps({
        "images": len(photos), "images_per_s": round(len(photos) / seconds, 3),
        "import_s": round(IMPORTED - START, 3), "load_s": round(loaded - start, 3), "first_mask_s": round(first, 3),
        "labels": labels, "threads": args.threads, "torch": torch.__version__, "timm": timm.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
