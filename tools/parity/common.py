"""What the parity scripts share: random weights, test images, both position rules, reference forwards.

Everything here is written from the papers and from the documented behaviour of PyTorch and timm.
"""
import importlib.metadata
import json
import math
import pathlib

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer

MEAN_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def versions() -> dict:
    """Versions of the packages that decide the numbers."""
    names = ("torch", "timm", "transformers", "tokenizers", "safetensors")
    return {n: importlib.metadata.version(n) for n in names}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- random weights ---------------------------------------------------------------------------


def randomise(model: torch.nn.Module, seed: int, gain: float = 1.5, d_kv: int = 1) -> None:
    """Fill a model with weights in which every parameter matters.

    Matrices get std gain/sqrt(fan_in), so that attention logits have a spread of about gain^2 and
    softmax is far from uniform. Norms, biases, LayerScale, positions and special tokens are moved
    well away from 1 and 0, so that forgetting one of them shows. T5 does not divide its logits by
    sqrt(d_kv); its query weights carry that factor.
    """
    gen = generator(seed)

    def normal(shape, std):
        return torch.nn.init.trunc_normal_(torch.empty(shape), std=std, a=-3 * std, b=3 * std, generator=gen)

    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            low = name.lower()
            if "norm" in low:
                p.copy_(normal(p.shape, 0.2) + (1.0 if low.endswith("weight") else 0.0))
            elif low.endswith(("gamma", "lambda1")):
                p.copy_(torch.rand(p.shape, generator=gen) * 0.8 + 0.2)
            elif p.ndim == 1:
                p.copy_(normal(p.shape, 0.1))
            elif low.endswith(("pos_embed", "_token")):
                p.copy_(normal(p.shape, 0.5))
            elif "embeddings." in low or "shared" in low or "relative_attention_bias" in low:
                p.copy_(normal(p.shape, 1.0))
            else:
                fan_in = p.numel() // p.shape[0]
                std = gain / math.sqrt(fan_in)
                if low.endswith("selfattention.q.weight"):
                    std /= math.sqrt(d_kv)
                p.copy_(normal(p.shape, std))


def image(height: int, width: int, seed: int, norm: str = "imagenet") -> torch.Tensor:
    """A picture-like [1, 3, H, W] input (smooth field, rectangles, noise; 8-bit levels), normalised."""
    gen = generator(seed)
    x = torch.rand(1, 3, 4, 5, generator=gen)
    x = F.interpolate(x, size=(height, width), mode="bicubic", align_corners=False)
    for _ in range(6):
        top, left = (int(torch.randint(0, n - 4, (1,), generator=gen)) for n in (height, width))
        h, w = (int(torch.randint(2, n // 2, (1,), generator=gen)) for n in (height, width))
        x[:, :, top : top + h, left : left + w] = torch.rand(1, 3, 1, 1, generator=gen)
    x = x + 0.05 * torch.randn(x.shape, generator=gen)
    x = (x.clamp(0, 1) * 255).round() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in MEAN_STD[norm])
    return ((x - mean) / std).contiguous()


# --- position embeddings ----------------------------------------------------------------------


def resample_dino(patch_pos: torch.Tensor, grid: tuple, size: tuple) -> torch.Tensor:
    """DINO's rule on [1, gh*gw, D]: bicubic (A = -0.75), no antialias, sample positions from the
    scale factor (n + 0.1) / grid itself rather than from the ratio of sizes."""
    if tuple(grid) == tuple(size):
        return patch_pos
    x = patch_pos.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    factor = [(n + 0.1) / g for n, g in zip(size, grid)]
    x = F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False, recompute_scale_factor=False)
    assert tuple(x.shape[2:]) == tuple(size)
    return x.permute(0, 2, 3, 1).reshape(1, size[0] * size[1], -1)


def resample_timm(patch_pos: torch.Tensor, grid: tuple, size: tuple) -> torch.Tensor:
    """timm's rule on [1, gh*gw, D]: bicubic resize with antialiasing (torch then uses A = -0.5)."""
    return resample_abs_pos_embed(patch_pos, list(size), list(grid), num_prefix_tokens=0)


# --- image towers -----------------------------------------------------------------------------


def make_vit(dim: int, depth: int, heads: int, patch: int, grid: int, eps: float = 1e-6, **kwargs) -> VisionTransformer:
    """timm's ViT without head or pooling; `kwargs` as timm's (init_values, reg_tokens, ...)."""
    return VisionTransformer(
        img_size=grid * patch, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads,
        num_classes=0, global_pool="", fc_norm=False,
        norm_layer=lambda d, **kw: torch.nn.LayerNorm(d, eps=eps, **kw), **kwargs,
    ).eval()  # fmt: skip


@torch.inference_mode()
def vit_tokens(args: dict, state: dict, x: torch.Tensor, rule: str, dtype=torch.float32) -> torch.Tensor:
    """Run timm on `x` and return [B, 1+N, D]: CLS, then patch tokens row-major; registers dropped.

    args: arguments of `make_vit`; state: a timm state dict; rule: "dino" or "timm".
    """
    patch, grid = args["patch"], (args["grid"], args["grid"])
    size = (x.shape[2] // patch, x.shape[3] // patch)
    model = make_vit(**args, dynamic_img_size=rule == "timm")
    model.load_state_dict(state)
    if rule == "dino" and size != grid:
        prefix = model.pos_embed.shape[1] - grid[0] * grid[1]
        pos = model.pos_embed
        resampled = resample_dino(pos[:, prefix:], grid, size)
        model.patch_embed.set_input_size(img_size=tuple(x.shape[2:]))
        model.pos_embed = torch.nn.Parameter(torch.cat([pos[:, :prefix], resampled], 1))
    out = model.to(dtype)(x.to(dtype))
    return torch.cat([out[:, :1], out[:, model.num_prefix_tokens :]], 1)


def pooled(tokens: torch.Tensor) -> dict:
    """The four image embeddings [B, D] of tokens [B, 1+N, D], L2-normalised."""
    pool = {
        "max": tokens[:, 1:].amax(1),  # patches only: the paper and the public demo
        "max-with-cls": tokens.amax(1),  # the public training code
        "avg": tokens[:, 1:].mean(1),
        "cls": tokens[:, 0],
    }
    return {k: F.normalize(v, dim=-1) for k, v in pool.items()}


def similarity(tokens: torch.Tensor, text: torch.Tensor, size: tuple) -> torch.Tensor:
    """Cosine of every patch token with every text: [K, h, w] from tokens [1, 1+N, D], text [K, D]."""
    patches = F.normalize(tokens[0, 1:], dim=-1)
    return (F.normalize(text, dim=-1) @ patches.T).reshape(-1, *size)


# --- text towers ------------------------------------------------------------------------------


def encode(tokenizer: Tokenizer, texts: list, max_length: int, pad_id: int = 0):
    """input_ids, attention_mask (both i64 [n, L], right-padded) with a `tokenizers.Tokenizer`."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # the caller's keeps its own settings
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    rows = [e.ids for e in tokenizer.encode_batch(texts)]
    width = max(map(len, rows))
    ids = torch.tensor([r + [pad_id] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    return ids, mask


@torch.inference_mode()
def sentence_embeddings(model, ids, mask, dense=None) -> torch.Tensor:
    """Masked mean of the last hidden state, optional Dense without bias, L2 norm: [n, D]."""
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    m = mask.unsqueeze(-1).to(hidden.dtype)
    x = (hidden * m).sum(1) / m.sum(1)
    if dense is not None:
        x = x @ dense.T.to(x.dtype)
    return F.normalize(x, dim=-1)


# --- writing ----------------------------------------------------------------------------------


def write_tensors(path: pathlib.Path, tensors: dict) -> None:
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600


def write_json(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
