"""Write a tiny model with PyTorch's losses, gradients and optimiser steps, for crates/percept-train.

    python train.py crates/percept-train/tests/goldens/train-tiny

A ViT of two blocks with LayerScale, a BERT of one, eight images with captions. README.md has the format.
"""
import argparse
import math
import pathlib

import timm.optim
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

import common

VIT = dict(dim=32, depth=2, heads=2, patch=4, grid=4, init_values=0.1, mlp_ratio=2.0)
BERT = dict(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=12, type_vocab_size=2, layer_norm_eps=1e-12)  # fmt: skip
EPS = 1e-6
BATCH, KEPT, SAMPLES = 8, 6, 32
SIDES = {"native": (16, 16), "other": (12, 20)}
LR, STEPS = 1e-3, 10
MAX_LOGIT_SCALE = math.log(100)

# --- names and shapes as percept has them ---------------------------------------------------------

TEXT_NAMES = {
    "embeddings.word_embeddings.weight": "word.weight",
    "embeddings.position_embeddings.weight": "position.weight",
    "embeddings.token_type_embeddings.weight": "token_type.weight",
    "embeddings.LayerNorm.": "norm.",
    "encoder.layer.": "blocks.",
    "attention.self.": "attn.",
    "attention.output.dense.": "attn.output.",
    "attention.output.LayerNorm.": "attn_norm.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "output.LayerNorm.": "mlp_norm.",
}
TABLES = ("text.word.", "text.position.", "text.token_type.")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image = common.make_vit(**VIT, eps=EPS, dynamic_img_size=True)
        self.text = BertModel(BertConfig(**BERT), add_pooling_layer=False).eval()
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def named(self) -> dict:
        """Parameters under percept's names."""
        out = {}
        for name, p in self.named_parameters():
            if name.startswith("text."):
                for theirs, ours in TEXT_NAMES.items():
                    name = name.replace(theirs, ours)
            out[name] = p
        return out

    def embed_images(self, images, keep, pooling):
        """`keep`: [batch, kept] indices of the patches that are seen, or None."""
        vit = self.image
        size = (images.shape[2] // VIT["patch"], images.shape[3] // VIT["patch"])
        grid = (VIT["grid"], VIT["grid"])
        pos = vit.pos_embed
        patches = vit.patch_embed(images).flatten(1, 2)
        x = patches + (pos[:, 1:] if size == grid else common.resample_timm(pos[:, 1:], grid, size))
        if keep is not None:
            x = x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(vit.cls_token + pos[:, :1]).expand(len(x), -1, -1), x], 1)
        tokens = vit.norm(vit.blocks(x))
        return {
            "max": lambda: tokens[:, 1:].amax(1),
            "max-with-cls": lambda: tokens.amax(1),
            "avg": lambda: tokens[:, 1:].mean(1),
            "cls": lambda: tokens[:, 0],
            "cls-avg": lambda: (tokens[:, 0] + tokens[:, 1:].mean(1)) / 2,
        }[pooling]()

    def masked_tokens(self, images, keep):
        """Tokens [batch, kept, dim] of a full pass in which no token attends to a dropped patch."""
        vit = self.image
        patches = vit.patch_embed(images).flatten(1, 2)
        seen = torch.zeros(patches.shape[:2], dtype=torch.bool).scatter(1, keep, True)
        seen = torch.cat([torch.ones(len(seen), 1, dtype=torch.bool), seen], 1)
        x = torch.cat([vit.cls_token.expand(len(patches), -1, -1), patches], 1) + vit.pos_embed
        for block in vit.blocks:
            x = block(x, attn_mask=seen[:, None, None, :])
        return vit.norm(x)[:, 1:].gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))

    def embed_texts(self, ids, mask):
        hidden = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
        m = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * m).sum(1) / m.sum(1)

    def loss(self, images, keep, ids, mask, pooling="max", right=None):
        i = F.normalize(self.embed_images(images, keep, pooling), dim=-1)
        t = F.normalize(self.embed_texts(ids, mask), dim=-1)
        logits = self.logit_scale.exp() * i @ t.T
        if right is None:
            right = torch.arange(len(logits))
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def in_memory(name: str, values: torch.Tensor) -> torch.Tensor:
    """A parameter or gradient in the shape that percept computes with: matrices of linear layers [in, out]."""
    if name == "image.patch_embed.proj.weight":
        values = values.flatten(1)
    linear = values.ndim == 2 and not name.startswith(TABLES)
    return (values.T if linear else values).detach().contiguous()


def sample(values: torch.Tensor) -> torch.Tensor:
    """Up to SAMPLES elements spread over a tensor, then its L2 norm."""
    flat = values.flatten()
    count = len(flat)
    where = torch.arange(count) if count <= SAMPLES else torch.arange(SAMPLES) * 2654435761 % count
    return torch.cat([flat[where], flat.double().norm().to(flat.dtype)[None]])


def samples(named: dict) -> torch.Tensor:
    """All parameters in the order of their names."""
    return torch.cat([sample(in_memory(name, named[name])) for name in sorted(named)]).float()


# --- goldens --------------------------------------------------------------------------------------


def groups(model: Model, decay: float) -> list:
    """open_clip's two groups."""
    spared = lambda n, p: p.ndim < 2 or any(part in n for part in ("bn", "ln", "bias", "logit_scale"))
    named = model.named().items()
    return [
        {"params": [p for n, p in named if spared(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not spared(n, p)], "weight_decay": decay},
    ]


def train(state: dict, inputs: tuple, make, clip=None) -> torch.Tensor:
    model = Model()
    model.load_state_dict(state)
    optimizer = make(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.loss(*inputs).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    return samples(model.named())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    model = Model()
    common.randomise(model.image, seed=7, gain=1.2)
    common.randomise(model.text, seed=8, gain=1.2)
    state = model.state_dict()

    gen = common.generator(11)
    images = {
        k: torch.cat([common.image(*size, seed=200 + i) for i in range(BATCH)]) for k, size in SIDES.items()
    }
    lengths = torch.tensor([3, 7, 10, 5, 7, 4, 10, 9])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(4, BERT["vocab_size"], mask.shape, generator=gen) * mask
    same = torch.tensor([0, 1, 2, 3, 1, 5, 2, 2])  # whose caption each sample has, in the case `identical`
    keep = {
        k: torch.stack([torch.randperm(h * w // VIT["patch"] ** 2, generator=gen)[:KEPT] for _ in range(BATCH)])
        for k, (h, w) in SIDES.items()
    }
    right = (same[:, None] == same[None]).double()
    right /= right.sum(1, keepdim=True)

    cases = {p: dict(pooling=p) for p in ("max", "max-with-cls", "avg", "cls", "cls-avg")}
    cases |= {f"{p}-kept": dict(pooling=p, kept=True) for p in ("max", "avg", "cls")}
    cases["resampled-kept"] = dict(pooling="max", kept=True, images="other")
    cases["identical"] = dict(pooling="avg", same=True)

    exact = Model().double()
    exact.load_state_dict(state)
    expect = {"ids": ids.float(), "mask": mask.float(), "same": same.float()}  # percept reads floats only
    expect |= {f"images.{k}": v for k, v in images.items()} | {f"keep.{k}": v.float() for k, v in keep.items()}
    for name, case in cases.items():
        which = case.get("images", "native")
        chosen = same if case.get("same") else torch.arange(BATCH)
        exact.zero_grad()
        loss = exact.loss(
            images[which].double(), keep[which] if case.get("kept") else None, ids[chosen], mask[chosen],
            case["pooling"], right if case.get("same") else None)  # fmt: skip
        loss.backward()
        expect[f"loss.{name}"] = loss.detach()[None].float()
        expect[f"gradients.{name}"] = samples({n: p.grad for n, p in exact.named().items()})

    expect["tokens.masked"] = exact.masked_tokens(images["native"].double(), keep["native"]).float()
    inputs = (images["native"], None, ids, mask)
    expect["weights.adamw"] = train(
        state, inputs, lambda m: torch.optim.AdamW(groups(m, 0.2), lr=LR, betas=(0.9, 0.98), eps=1e-6), clip=1.0)  # fmt: skip
    expect["weights.lamb"] = train(
        state, inputs, lambda m: timm.optim.Lamb(groups(m, 0.01), lr=LR, betas=(0.9, 0.999), eps=1e-6))  # fmt: skip

    common.write_tensors(out / "expect.safetensors", expect)
    common.write_tensors(out / "model.safetensors", {n: p for n, p in model.named().items()})
    sides = VIT["grid"] * VIT["patch"]
    common.write_json(out / "config.json", {
        "format": "percept-1",
        "image": {
            "vit": {
                "dim": VIT["dim"], "depth": VIT["depth"], "heads": VIT["heads"],
                "mlp_dim": int(VIT["dim"] * VIT["mlp_ratio"]), "patch_size": VIT["patch"],
                "grid": [VIT["grid"]] * 2, "position_prefix": 1, "layer_scale": True,
                "layer_norm_eps": EPS, "interpolation": "timm"},
            "pooling": "max", "image_size": sides, "filter": "bicubic",
            "normalization": dict(zip(("mean", "std"), common.MEAN_STD["imagenet"]))},
        "text": {
            "type": "bert", "vocab_size": BERT["vocab_size"], "dim": BERT["hidden_size"],
            "depth": BERT["num_hidden_layers"], "heads": BERT["num_attention_heads"],
            "mlp_dim": BERT["intermediate_size"], "max_positions": BERT["max_position_embeddings"],
            "token_types": BERT["type_vocab_size"], "layer_norm_eps": BERT["layer_norm_eps"], "max_tokens": 12},
        "templates": ["a photo of {a}"]})  # fmt: skip
    common.write_json(out / "case.json", {"cases": cases, "versions": common.versions()})
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"{out.name}: {size / 1e3:.0f} kB; " + ", ".join(f"{n} {expect[f'loss.{n}'].item():.4f}" for n in cases))


if __name__ == "__main__":
    main()
