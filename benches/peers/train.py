"""Time PyTorch's eager f32 training step of a ViT-S/14; prints one JSON line.

    python train.py --batch 64 --steps 5 --threads 2

The same step as `cargo run --release -p percept-train --example train_rate`: images of 224 px, half of the patch
tokens dropped, text tower (MiniLM's shape) locked, symmetric contrastive loss, AdamW. Random weights.
"""
import argparse
import json
import math
import statistics
import time

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from transformers import BertConfig, BertModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autocast", action="store_true", help="bf16 autocast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    gen = torch.Generator().manual_seed(0)

    vit = VisionTransformer(
        img_size=args.size, patch_size=14, embed_dim=384, depth=12, num_heads=6, init_values=1e-5,
        num_classes=0, global_pool="", fc_norm=False)  # fmt: skip
    text = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
        add_pooling_layer=False).eval().requires_grad_(False)  # fmt: skip
    scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    named = [*vit.named_parameters(), ("logit_scale", scale)]
    optimizer = torch.optim.AdamW(
        [{"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
         {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": 0.2}],
        lr=1e-4, betas=(0.9, 0.98), eps=1e-6)  # fmt: skip

    images = torch.rand(args.batch, 3, args.size, args.size, generator=gen) * 2 - 1
    ids = torch.randint(1000, 20000, (args.batch, 12), generator=gen)
    patches = (args.size // 14) ** 2
    kept = int(patches * (1 - args.dropout))

    def embed(images):
        x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        keep = torch.rand(len(x), patches, generator=gen).argsort(1)[:, :kept].sort(1).values
        x = x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1), x], 1)
        return vit.norm(vit.blocks(x))[:, 1:].amax(1)

    times = []
    for step in range(args.steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
            with torch.no_grad():
                t = F.normalize(text(input_ids=ids).last_hidden_state.mean(1), dim=-1)
            i = F.normalize(embed(images), dim=-1)
            logits = scale.exp() * i @ t.T
            right = torch.arange(args.batch)
            loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(100))
        if step:  # the first warms up
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(json.dumps({
        "ms": round(median * 1e3, 1), "images_per_second": round(args.batch / median, 2),
        "all": [round(t, 3) for t in times], "threads": args.threads, "torch": torch.__version__,
        "timm": timm.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
