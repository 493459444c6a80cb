"""percept and its peers side by side on this machine: Markdown table on stdout, JSON in a file.

    python run.py --python .venv/bin/python --binary-dir target/release \
        --weights-b16 full/timm-dino-b16/model.safetensors --weights-s14 vit_small_patch14.safetensors \
        --model PILOT --vit image.safetensors --text minilm --photos DIR --json out.json

Ours and theirs take turns, round after round, and the order turns over each round, so that a machine
that slows down or wakes up slows or wakes both. Each figure is the median of the rounds; the ratio is
theirs / ours, above 1 where percept is faster. Both use --threads threads. Nothing is downloaded.
"""
import argparse
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
VIT_CASES = [  # name, architecture, weights, side, batch
    ("ViT-B/16, 224 px, batch 1", "vit_base_patch16", "weights_b16", 224, 1),
    ("ViT-B/16, 224 px, batch 8", "vit_base_patch16", "weights_b16", 224, 8),
    ("ViT-B/16, 448 px, batch 1", "vit_base_patch16", "weights_b16", 448, 1),
    ("ViT-S/14, 448 px, batch 1", "vit_small_patch14", "weights_s14", 448, 1),
]
# Peers of the ViT timings, and the precision that is asked of percept beside each.
PEERS = {"torch": "f32", "onnxruntime": "f32", "torch-bf16": "bf16"}
PHOTO = {".jpg", ".jpeg", ".png", ".webp"}


def call(command: list, threads: int) -> tuple:
    """(wall seconds, stdout) of a command that must succeed."""
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if pathlib.Path(command[0]).name == "train_rate":
        env["MIMALLOC_PURGE_DELAY"] = "-1"  # as `percept train` sets it for itself
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stderr[-2000:]}")
    return wall, done.stdout


def last_json(text: str) -> dict:
    """The JSON object on the last line that holds one."""
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def alternate(rounds: int, ours, theirs) -> dict:
    """Call both in turn; each returns what it measured. The first of a round changes every round."""
    values = {"ours": [], "theirs": []}
    for i in range(rounds):
        pair = [("ours", ours), ("theirs", theirs)]
        for name, run in pair if i % 2 == 0 else pair[::-1]:
            values[name].append(run())
    return values


def vit_commands(args, peer: str, arch: str, weights: str, side: int, batch: int) -> tuple:
    shape = ["--height", side, "--width", side, "--batch", batch, "--seconds", args.seconds]
    model = getattr(args, weights)
    precision = args.precision if PEERS[peer] == "f32" else PEERS[peer]
    ours = [args.binary_dir / "examples/time_vit", "--model", model, "--precision", precision, *shape]
    theirs = [args.python, HERE / "torch_vit.py", "--arch", arch, "--weights", model, "--threads", args.threads,
              "--engine", peer, *shape]  # fmt: skip
    return ours, theirs


def train_commands(args) -> tuple:
    ours = [args.binary_dir / "examples/train_rate", "--batch", 64, "--steps", 5]
    theirs = [args.python, HERE / "train.py", "--batch", 64, "--steps", 5, "--threads", args.threads]
    return ours, theirs


def segment_commands(args, photos: pathlib.Path, ours_out: pathlib.Path, theirs_out: pathlib.Path) -> tuple:
    shared = ["--labels", args.labels, "--size", 448]
    ours = [args.binary_dir / "percept", "segment", photos, "--model", args.model, *shared,
            "--precision", args.precision, "--text-cache", "off", "--background", "none", "--format", "mask", "--out", ours_out, "--json", "--quiet"]  # fmt: skip
    theirs = [args.python, HERE / "torch_segment.py", photos, "--vit", args.vit, "--text", args.text, *shared,
              "--out", theirs_out, "--threads", args.threads]  # fmt: skip
    return ours, theirs


def agreement(ours: pathlib.Path, theirs: pathlib.Path, stems: list):
    """Share of pixels with the same label, or why it cannot be told. Needs Pillow and NumPy."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError:
        return "not compared: run with a Python that has Pillow and NumPy"
    same = total = 0
    for stem in stems:
        found = sorted(ours.rglob(f"{stem}*.png"))
        if not found:
            return f"not compared: no mask of {stem} under --out"
        a, b = (np.asarray(Image.open(p)) for p in (found[0], theirs / f"{stem}.png"))
        if a.shape != b.shape:
            return f"not compared: {stem} is {a.shape} and {b.shape}"
        # Ours counts labels from 1: 0 is background.
        same, total = same + int((a == b + 1).sum()), total + a.size
    return round(same / total, 5)


def row(name: str, unit: str, values: dict, higher_is_better: bool = False) -> dict:
    ours, theirs = (statistics.median(values[k]) for k in ("ours", "theirs"))
    ratio = ours / theirs if higher_is_better else theirs / ours
    return {"name": name, "unit": unit, "ours": ours, "theirs": theirs, "ratio": ratio, "rounds": values}


def table(rows: list) -> str:
    lines = ["| case | unit | percept | peer | ratio |", "|---|---|---:|---:|---:|"]
    for r in rows:
        digits = 1 if r["unit"] == "ms" else 2
        lines.append(
            f"| {r['name']} | {r['unit']} | {r['ours']:.{digits}f} | {r['theirs']:.{digits}f} | {r['ratio']:.2f}x |")
    return "\n".join(lines)


def cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3", help="Python with torch, timm and sentence-transformers")
    parser.add_argument("--binary-dir", type=pathlib.Path, default=pathlib.Path("target/release"))
    parser.add_argument("--weights-b16", help="timm ViT-B/16: cases.py --full --only timm-dino-b16")
    parser.add_argument("--weights-s14", help="timm ViT-S/14: fetch_backbones.py")
    parser.add_argument("--model", help="percept model for segmenting")
    parser.add_argument("--vit", help="the same image tower for PyTorch")
    parser.add_argument("--text", help="the same text tower for PyTorch: a sentence-transformers folder")
    parser.add_argument("--photos", type=pathlib.Path, help="folder of photos")
    parser.add_argument("--max-photos", type=int, default=32, help="the first so many of them")
    parser.add_argument("--labels", default="dog, cat, horse, sheep, cow, person, grass, sky, road, tree, wall, floor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per ViT timing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=("vit", "train", "segment", "cold"),
                        default=("vit", "train", "segment", "cold"))  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=("torch",), help="of the ViT timings")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32",
                        help="of percept's segmenting, and of its ViT beside peers of f32")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    needs = {"vit": ("weights_b16", "weights_s14"), "segment": ("model", "vit", "text", "photos")}
    needs["cold"], needs["train"] = needs["segment"], ()
    for name in sorted({n for part in args.only for n in needs[part]}):
        if getattr(args, name) is None:
            parser.error(f"--{name.replace('_', '-')} is needed for {', '.join(args.only)}")

    report = {
        "cpu": cpu(), "cores": os.cpu_count(), "threads": args.threads, "platform": platform.platform(),
        "load_average": os.getloadavg(), "rounds": args.rounds, "rows": [],
        "notes": [],
    }  # fmt: skip
    rows, notes = report["rows"], report["notes"]
    if os.getloadavg()[0] > 0.5:
        notes.append(f"The machine was busy before the first run (load {os.getloadavg()[0]:.1f}): do not quote.")

    if "vit" in args.only:
        for peer, (name, *case) in itertools.product(args.peers, VIT_CASES):
            ours, theirs = vit_commands(args, peer, *case)

            def theirs_ms(command=theirs):
                result = last_json(call(command, args.threads)[1])
                report.update({k: result[k] for k in ("torch", "timm", "onnxruntime") if k in result})
                return result["ms"]

            def ours_ms(command=ours, precision=PEERS[peer]):
                result = last_json(call(command, args.threads)[1])
                report[f"kernel for {precision}"] = result["kernel"]
                return result["ms"]

            values = alternate(args.rounds, ours_ms, theirs_ms)
            rows.append(row(f"{name}, {peer}", "ms", values))

    if "train" in args.only:
        both = [lambda c=c: last_json(call(c, args.threads)[1])["images_per_second"] for c in train_commands(args)]
        name = "training ViT-S/14, batch 64, half of the patches"
        rows.append(row(name, "images/s", alternate(args.rounds, *both), higher_is_better=True))

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        if {"segment", "cold"} & set(args.only):
            chosen = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in PHOTO)[: args.max_photos]
            if len(chosen) < 2:
                parser.error(f"{args.photos} has fewer than two photos")
            folder = scratch / "photos"
            folder.mkdir()
            for p in chosen:
                shutil.copy(p, folder)
            outs = scratch / "ours", scratch / "theirs"
            both = "segment" in args.only
            pairs = list(zip(segment_commands(args, chosen[0], *outs), segment_commands(args, folder, *outs)))

            def walls(commands: tuple) -> tuple:
                """Seconds for one photo and, straight after, for all of them."""
                return tuple(call(c, args.threads)[0] for c in commands[: 1 + both])

            times = alternate(args.rounds, *[lambda p=p: walls(p) for p in pairs])
            one = {k: [t[0] for t in v] for k, v in times.items()}
            rows.append(row("cold start: one photo, whole process", "s", one))
            if both:
                every = {k: [t[1] for t in v] for k, v in times.items()}
                rows.append(row(f"{len(chosen)} photos, whole process", "s", every))
                # What the other photos added: start-up falls out on both sides. The difference of two noisy
                # times says nothing unless the photos take longer than the start.
                others = len(chosen) - 1
                if all(statistics.median(every[k]) > 2 * statistics.median(one[k]) for k in every):
                    rate = {k: [others / (t[1] - t[0]) for t in v if t[1] > t[0]] for k, v in times.items()}
                    rows.append(row("photos a second after the first", "1/s", rate, higher_is_better=True))
                else:
                    notes.append("Photos a second: not told, too few photos for the time that starting takes.")
                report["same_pixels"] = agreement(*outs, [p.stem for p in chosen])

    print(f"{report['cpu']}, {args.threads} threads, {args.rounds} rounds in turn; ratio above 1: percept is faster\n")
    print(table(rows))
    if "same_pixels" in report:
        notes.append(f"Pixels with the same label: {report['same_pixels']}")
    for note in notes:
        print(f"\n{note}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
