"""Makes training checkpoints with a tower of a few numbers, and what trainers put beside it.

    python tools/parity/trained.py crates/percept-model/tests/goldens/trained

Plain numbers and namespaces stand where tensors and dictionaries may; 8-bit floats are what percept cannot read.
"""

import sys
from argparse import Namespace
from pathlib import Path

import torch

DIM, HIDDEN, PATCH, GRID = 8, 16, 4, 2


def tower():
    """A ViT of one block in timm's names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": [1, 1, DIM],
        "pos_embed": [1, 1 + GRID * GRID, DIM],
        "patch_embed.proj.weight": [DIM, 3, PATCH, PATCH],
        "patch_embed.proj.bias": [DIM],
        "blocks.0.norm1.weight": [DIM],
        "blocks.0.norm1.bias": [DIM],
        "blocks.0.attn.qkv.weight": [3 * DIM, DIM],
        "blocks.0.attn.qkv.bias": [3 * DIM],
        "blocks.0.attn.proj.weight": [DIM, DIM],
        "blocks.0.attn.proj.bias": [DIM],
        "blocks.0.norm2.weight": [DIM],
        "blocks.0.norm2.bias": [DIM],
        "blocks.0.mlp.fc1.weight": [HIDDEN, DIM],
        "blocks.0.mlp.fc1.bias": [HIDDEN],
        "blocks.0.mlp.fc2.weight": [DIM, HIDDEN],
        "blocks.0.mlp.fc2.bias": [DIM],
        "norm.weight": [DIM],
        "norm.bias": [DIM],
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    eighths = torch.ones(DIM).to(torch.float8_e4m3fn)
    for name, beside in {
        # What percept cannot read stands beside the tower, or in it.
        "beside.pt": {"head.scale": eighths},
        "inside.pt": {"visual.trunk.norm_pre.weight": eighths},
    }.items():
        model = {"visual": Namespace(trunk=tower()), "logit_scale": 4.6, "steps": 12, **beside}
        optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}}
        ema = {"shadow": {"cls_token": torch.zeros(1, 1, DIM)}}
        all_of_it = {"state_dict": model, "ema": ema, "optimizer": optimizer, "epoch": 3}
        torch.save(all_of_it, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
