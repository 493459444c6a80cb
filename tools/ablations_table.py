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


def main() -> None:
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/ablations")
    print("| run | steps | seven, `clippy` | seven, `clippy-448` | Jaccard | imagenette |")
    print("|---|---:|---:|---:|---:|---:|")
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        params = load(folder / "run" / "params.json") or {}
        groups = load(folder / "grouping" / "result.json")
        photos = load(folder / "imagenette" / "result.json")
        jaccard, right = (metric(r, n) for r, n in ((groups, "jaccard"), (photos, "acc1")))
        words = (seven(load(folder / p / "result.json")) for p in ("clippy", "clippy-448"))
        print("| " + " | ".join([folder.name, str(params.get("steps")), *words, jaccard, right]) + " |")


if __name__ == "__main__":
    main()
