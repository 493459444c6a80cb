"""Time a timm ViT's forward pass, in PyTorch's eager f32 or bf16 or in ONNX Runtime; prints one JSON line.

    python torch_vit.py --arch vit_base_patch16 --weights model.safetensors --height 224 --width 224 \
        --batch 1 --seconds 5 --threads 2 --engine torch

Positions are resampled once, before the clock starts; two passes warm up. ONNX Runtime gets the model as
PyTorch exports it for the one size, and all its graph optimisations.
"""
import argparse
import json
import pathlib
import statistics
import tempfile
import time

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

ARCHS = {
    "vit_base_patch16": dict(patch_size=16, embed_dim=768, depth=12, num_heads=12),
    "vit_small_patch14": dict(patch_size=14, embed_dim=384, depth=12, num_heads=6),
}


def load(arch: str, weights: str, size: tuple) -> VisionTransformer:
    """The tower of `arch` from a timm state dict, set to inputs of `size` (height, width)."""
    state = load_file(weights)
    args = ARCHS[arch]
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    scale = 1e-5 if "blocks.0.ls1.gamma" in state else None
    model = VisionTransformer(
        img_size=grid * args["patch_size"], init_values=scale,
        num_classes=0, global_pool="", fc_norm=False, **args)  # fmt: skip
    model.load_state_dict(state)
    model.set_input_size(img_size=size)
    return model.eval()


def onnx_pass(model: VisionTransformer, x: torch.Tensor, threads: int):
    """(a forward pass of `x` in ONNX Runtime, its version)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vit.onnx"
        torch.onnx.export(model, (x,), str(path), input_names=["x"], output_names=["y"], dynamo=False)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed), onnxruntime.__version__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHS, required=True)
    parser.add_argument("--weights", required=True, help="timm state dict, safetensors")
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="time for at least this long, and five passes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=("torch", "torch-bf16", "onnxruntime"), default="torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.arch, args.weights, (args.height, args.width))
    x = torch.randn(args.batch, 3, args.height, args.width, generator=torch.Generator().manual_seed(0))
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    times = []
    with torch.inference_mode():
        if args.engine == "onnxruntime":
            forward, versions["onnxruntime"] = onnx_pass(model, x, args.threads)
        else:
            if args.engine == "torch-bf16":
                model, x = model.bfloat16(), x.bfloat16()
            forward = lambda: model(x)  # noqa: E731
        for _ in range(2):
            forward()
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            forward()
            times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({
        "ms": round(statistics.median(times), 3), "all": [round(t, 3) for t in times], "threads": args.threads,
        **versions}))  # fmt: skip


if __name__ == "__main__":
    main()
