"""Segment a VOC split the way the public demo notebook does, and count a confusion matrix.

    python notebook.py OUT.json --voc VOC2012 --split val --backbones DIR --pilot DIR [--compare result.json]

Step by step: the photo's short side to 224 and its middle square; the mask squashed to 224 x 224 by
nearest neighbour; 60 names in "a photo of a(n) {}"; tokens normalised, upsampled to 224 x 224, then
compared with the texts; names beyond the 21 count as background; one confusion matrix, 255 left out.
`--compare` holds it against what `percept eval voc --protocol clippy-notebook` wrote and says which
share of the pixels is counted elsewhere.
"""
import argparse
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import common
from real import VIT_S14

NAMES = (
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, "
    "person, potted plant, sheep, sofa, train, television monitor, bag, bed, bench, book, building, cabinet, "
    "ceiling, cloth, computer, cup, door, fence, floor, flower, food, grass, ground, keyboard, light, mountain, "
    "mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk, sky, snow, bedclothes, track, tree, "
    "truck, wall, water, window, wood"
).split(", ")
CLASSES = 21
SIDE = 224


def middle_square(photo: Image.Image) -> torch.Tensor:
    """[1, 3, 224, 224], as torchvision's Resize(224), CenterCrop(224), ToTensor and Normalize give."""
    width, height = photo.size
    short = min(width, height)
    photo = photo.resize((int(SIDE * width / short), int(SIDE * height / short)), Image.Resampling.BICUBIC)
    left, top = round((photo.width - SIDE) / 2), round((photo.height - SIDE) / 2)
    pixels = np.asarray(photo.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float32) / 255
    mean, std = (np.array(v, dtype=np.float32) for v in common.MEAN_STD["imagenet"])
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--voc", type=pathlib.Path, required=True, help="folder with JPEGImages")
    parser.add_argument("--split", default="train")
    parser.add_argument("--backbones", type=pathlib.Path, required=True, help="what fetch_backbones.py wrote")
    parser.add_argument("--pilot", type=pathlib.Path, required=True, help="folder with image.safetensors")
    parser.add_argument("--compare", type=pathlib.Path, help="result.json of percept eval")
    args = parser.parse_args()

    prefix = "visual.trunk."
    state = load_file(args.pilot / "image.safetensors")
    state = {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}
    minilm = SentenceTransformer(str(args.backbones / "minilm"), device="cpu")
    prompts = [f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in NAMES]
    texts = F.normalize(torch.tensor(minilm.encode(prompts)), dim=-1)

    ids = (args.voc / "ImageSets/Segmentation" / f"{args.split}.txt").read_text().split()
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for number, name in enumerate(ids, 1):
        photo = Image.open(args.voc / "JPEGImages" / f"{name}.jpg").convert("RGB")
        mask = Image.open(args.voc / "SegmentationClass" / f"{name}.png").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        truth = np.asarray(mask).reshape(-1).astype(np.int64)
        with torch.inference_mode():
            tokens = F.normalize(common.vit_tokens(VIT_S14, state, middle_square(photo), "timm")[0, 1:], dim=-1)
            side = SIDE // VIT_S14["patch"]
            grid = tokens.T.reshape(1, -1, side, side)
            dense = F.interpolate(grid, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]
            best = torch.einsum("kd,dhw->khw", texts, dense).argmax(0).numpy().reshape(-1)
        best[best >= CLASSES] = 0
        counted = truth != 255
        counts += np.bincount(CLASSES * truth[counted] + best[counted], minlength=CLASSES**2).reshape(CLASSES, -1)
        if number % 50 == 0:
            print(f"{number} of {len(ids)}")

    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = np.divide(counts.diagonal(), union, out=np.zeros(CLASSES), where=union > 0)
    args.out.write_text(json.dumps({"classes": NAMES[:CLASSES], "counts": counts.tolist(), "miou": iou.mean()}))
    print(f"miou {100 * iou.mean():.3f} over {len(ids)} photos")
    if args.compare:
        ours = np.array(json.loads(args.compare.read_text())["confusion"]["counts"])
        assert ours.sum() == counts.sum(), f"{ours.sum()} pixels, not {counts.sum()}"
        moved = np.abs(ours - counts).sum() / 2 / counts.sum()
        print(f"{100 * moved:.4f} % of the pixels are counted elsewhere")
        assert moved < 5e-4, "more than 0.05 %"


if __name__ == "__main__":
    main()
