"""Print the table of the runs of tools/ablations.sh.

    python3 tools/ablations_table.py target/ablations
"""
import json
import pathlib
import sys

SEVEN = ("background", "cat", "cow", "dog", "horse", "person", "sheep")


def load(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def seven(result: dict | None) -> str:
    if result is None:
        return "open"
    iou = {c["name"]: c["iou"] for c in result["per_class"]}
    return f"{100 * sum(iou[c] for c in SEVEN) / len(SEVEN):.2f}"


def metric(result: dict | None, name: str) -> str:
    return "open" if result is None else f"{100 * result['metrics'][name]:.2f}"


def curve(folder: pathlib.Path) -> list:
    """(step, mIoU of classes present) of each evaluation on the way of a run."""
    log = folder / "run" / "results.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [(line["step"], line["voc/miou_present"]) for line in lines if "voc/miou_present" in line]


def main() -> None:
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/ablations")
    folders = [path for path in sorted(out.iterdir()) if (path / "run").is_dir()]
    print("| run | steps | mIoU of seven | mIoU of classes present | Jaccard | imagenette |")
    print("|---|---:|---:|---:|---:|---:|")
    for folder in folders:
        params = load(folder / "run" / "params.json") or {}
        masks = load(folder / "clippy" / "result.json")
        groups = load(folder / "grouping" / "result.json")
        photos = load(folder / "imagenette" / "result.json")
        values = (seven(masks), metric(masks, "miou_present"), metric(groups, "jaccard"), metric(photos, "acc1"))
        print("| " + " | ".join([folder.name, str(params.get("steps")), *values]) + " |")
    for folder in folders:
        for step, miou in curve(folder):
            print(f"{folder.name}, step {step}: mIoU of classes present {100 * miou:.2f}")


if __name__ == "__main__":
    main()
