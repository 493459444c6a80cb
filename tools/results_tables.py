"""Print the tables of docs/results.md from the runs of tools/results.sh.

    python3 tools/results_tables.py target/results > tables.md

Needs nothing but Python. A run that is not there leaves its row open.
"""
import json
import pathlib
import sys

SEVEN = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
GROUPS = range(2, 17)
DASH = "open"


def load(folder: pathlib.Path) -> dict | None:
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f}"


def table(head: list, rows: list) -> None:
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def metric(result: dict | None, name: str) -> str:
    return DASH if result is None else percent(result["metrics"].get(name))


def words(out: pathlib.Path, data: str, runs: list, seven: bool) -> None:
    head = ["protocol", "mIoU of all classes", "mIoU of classes in the truth"] + (["mIoU of seven", *SEVEN] if seven else [])
    rows = []
    for name, folder in runs:
        result = load(out / folder)
        row = [name, metric(result, "miou_all_classes"), metric(result, "miou_present")]
        if seven:
            iou = {c["name"]: c["iou"] for c in result["per_class"]} if result else {}
            mean = sum(iou[c] for c in SEVEN) / len(SEVEN) if result else None
            row += [percent(mean)] + [percent(iou.get(c)) for c in SEVEN]
        rows.append(row)
    print(f"### {data}\n")
    table(head, rows)


def main() -> None:
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/results")
    protocols = ("clippy", "clippy-448", "tcl", "sclip", "groupvit")
    voc = [(f"`{p}`", f"voc-{p}") for p in protocols]
    words(out, "VOC tree, 222 photos, pilot", [*voc, ("`clippy-448`, PAMR", "voc-clippy-448-pamr")], True)
    coco = [(f"`{p}`", f"coco-object-{p}") for p in protocols]
    words(out, "COCO sample, objects, 79 photos, pilot", coco, False)

    print("### Groups on the VOC tree, 303 regions\n")
    kinds = [(m, c) for m in ("vit", "pilot") for c in ("raw", "centered")]
    rows = []
    for n in GROUPS:
        rows.append([str(n)] + [metric(load(out / f"voc-groups-{m}-{c}"), f"jaccard@{n}") for m, c in kinds])
    table(["n", "ViT-S/14, raw", "ViT-S/14, centred", "pilot, raw", "pilot, centred"], rows)

    print("### Groups on the COCO sample, n = 8\n")
    rows = [[m, metric(load(out / f"coco-groups-{m}"), "jaccard")] for m in ("vit", "pilot")]
    table(["model", "Jaccard"], rows)

    print("### Whole photos, pilot\n")
    nette, retrieval = load(out / "imagenette"), load(out / "retrieval")
    rows = [["imagenette, 300 photos: top-1", metric(nette, "acc1")]]
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            name = f"{way}_recall@{k}"
            rows.append([f"COCO sample, {name.replace('_', ' ')}", metric(retrieval, name)])
    table(["", "%"], rows)

    print("### Spurious sets, pilot\n")
    for pair in ("cat-cow", "dog-horse"):
        result = load(out / f"waterbirds-{pair}")
        if result is None:
            print(f"{pair}: {DASH}\n")
            continue
        names = sorted({k.removeprefix("grouping_") for k in result["metrics"] if k.startswith("grouping_")})
        rows = [[n.replace("_", " ")] + [metric(result, f"{w}_{n}") for w in ("grouping", "pooled")] for n in names]
        print(f"{pair}, {result['counts']['done']} photos\n")
        table(["", "by grouping", "pooled"], rows)


if __name__ == "__main__":
    main()
