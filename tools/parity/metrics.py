"""Goldens for percept-eval's metrics: what scikit-learn, torchmetrics and pycocotools make of
random and awkward cases.

    python tools/parity/metrics.py      # from the repository's root

Made with numpy 2.4.6, pycocotools 2.0.11, scikit-learn 1.9.1, torch 2.15.0 and
torchmetrics 1.9.0. Writes crates/percept-eval/tests/goldens/metrics.json; null stands for a share
of nothing.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    jaccard_score,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_jaccard_index

OUT = Path(__file__).resolve().parents[2] / "crates/percept-eval/tests/goldens/metrics.json"
IGNORE = 65535


def confusion_case(classes, truth, predicted):
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    case = {"classes": classes, "truth": truth.tolist(), "predicted": predicted.tolist()}
    kept = truth != IGNORE
    t, p = truth[kept], predicted[kept]
    case["ignored"] = int((~kept).sum())
    if len(t) == 0:
        return case | {
            "matrix": np.zeros((classes, classes), int).tolist(),
            "iou": [None] * classes,
            "miou": 0.0,
            "miou_present": None,
            "pixel_accuracy": None,
            "mean_accuracy": None,
        }
    labels = list(range(classes))
    iou = jaccard_score(t, p, labels=labels, average=None, zero_division=0)
    seen = [bool((t == c).any() or (p == c).any()) for c in labels]
    miou = multiclass_jaccard_index(
        torch.from_numpy(p), torch.from_numpy(t), num_classes=classes, average="none"
    )
    assert np.allclose(miou, iou)
    return case | {
        "matrix": confusion_matrix(t, p, labels=labels).tolist(),
        "iou": [float(v) if s else None for v, s in zip(iou, seen)],
        "miou": float(iou.mean()),
        "miou_present": float(
            jaccard_score(t, p, labels=sorted(set(t.tolist())), average="macro", zero_division=0)
        ),
        "pixel_accuracy": float(accuracy_score(t, p)),
        "mean_accuracy": float(balanced_accuracy_score(t, p)),
    }


def confusions(rng):
    for classes, pixels in [(2, 50), (5, 200), (21, 400)]:
        truth = rng.integers(0, classes, pixels)
        predicted = np.where(rng.random(pixels) < 0.6, truth, rng.integers(0, classes, pixels))
        truth[rng.random(pixels) < 0.1] = IGNORE
        yield confusion_case(classes, truth, predicted)
    yield confusion_case(7, rng.choice([1, 4], 60), rng.choice([1, 2], 60))  # absent classes
    yield confusion_case(3, [IGNORE] * 9, rng.integers(0, 3, 9))
    yield confusion_case(3, [IGNORE, 1], [999, 1])  # a prediction that does not matter
    yield confusion_case(2, [1], [0])
    yield confusion_case(2, [1], [1])
    yield confusion_case(4, [], [])
    yield confusion_case(4, [0, 1, 2, 3], [1, 2, 3, 0])


def encode(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def jaccards(rng):
    for height, width, groups, holes in [(12, 17, 5, 0.0), (20, 9, 8, 0.2), (1, 1, 1, 0.0)]:
        coarse = rng.integers(0, groups, (height // 4 + 1, width // 4 + 1))
        labels = np.kron(coarse, np.ones((4, 4), int))[:height, :width]
        valid = rng.random((height, width)) >= holes
        y, x = np.indices((height, width))
        regions = [
            np.ones((height, width), bool),
            (y - height / 2) ** 2 + (x - width / 2) ** 2 <= (min(height, width) / 3) ** 2,
            x >= width // 2,
            labels == labels[0, 0],
            rng.random((height, width)) < 0.3,
        ]
        best = []
        for region in regions:
            kept = region & valid
            if not kept.any():
                best.append(None)
                continue
            each = [encode((labels == g) & valid) for g in range(groups)]
            best.append(float(coco.iou([encode(kept)], each, [0] * groups).max()))
        yield {
            "height": height,
            "width": width,
            "groups": labels.ravel().tolist(),
            "valid": valid.ravel().astype(int).tolist(),
            "regions": [encode(region)["counts"].decode() for region in regions],
            "best": best,
        }


def classifications(rng):
    for classes, samples, used in [(10, 60, 10), (30, 40, 12), (3, 20, 3), (6, 1, 6)]:
        truth = rng.integers(0, used, samples)
        scores = rng.normal(0, 1, (samples, classes))
        scores[np.arange(samples), truth] += 1.0
        scores = scores.round(6)
        assert all(len(set(row)) == classes for row in scores.tolist())  # no ties
        first = scores.argmax(1)
        labels = list(range(classes))
        yield {
            "classes": classes,
            "truth": truth.tolist(),
            "scores": scores.ravel().tolist(),
            "top1": float(top_k_accuracy_score(truth, scores, k=1, labels=labels)),
            "top5": float(top_k_accuracy_score(truth, scores, k=5, labels=labels)),
            "mean_per_class": float(balanced_accuracy_score(truth, first)),
            "matrix": confusion_matrix(truth, first, labels=labels).tolist(),
        }


def retrieval_case(images, texts, owners, ks):
    images = images.astype(np.float32)
    texts = texts.astype(np.float32)
    matrix = np.array([[float((i.astype(float) * t).sum()) for t in texts] for i in images])
    own = np.asarray(owners)
    at = []
    for k in ks:
        found = []
        for i, row in enumerate(matrix):
            if not (own == i).any():
                continue
            # Of equals, the wrong one first.
            order = sorted(range(len(texts)), key=lambda t: (-row[t], own[t] == i))
            found.append(any(own[t] == i for t in order[:k]))
        shown = []
        for t, column in enumerate(matrix.T):
            order = sorted(range(len(images)), key=lambda i: (-column[i], i == own[t]))
            shown.append(own[t] in order[:k])
        at.append({
            "k": k,
            "image_to_text": float(np.mean(found)) if found else None,
            "text_to_image": float(np.mean(shown)) if shown else None,
        })
    return {
        "dim": images.shape[1],
        "images": [float(f"{v:.9g}") for v in images.ravel()],
        "texts": [float(f"{v:.9g}") for v in texts.ravel()],
        "owners": list(map(int, owners)),
        "at": at,
    }


def retrievals(rng):
    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    images = unit(rng.normal(0, 1, (19, 6)))  # more than one block
    owners = rng.permutation(np.repeat(np.arange(19), 2))
    texts = unit(images[owners] + rng.normal(0, 0.7, (38, 6)))
    yield retrieval_case(images, texts, owners, [1, 5, 10])
    # Equal embeddings, and photos without captions.
    images[7] = images[3]
    texts[5] = texts[9]
    texts[6] = texts[9]
    kept = (owners != 4) & (owners != 11)
    yield retrieval_case(images, texts[kept], owners[kept], [1, 2, 3, 19])
    same = unit(np.ones((5, 3)))
    yield retrieval_case(same, same, np.arange(5), [1, 4, 5])
    wide = unit(rng.normal(0, 1, (3, 35)))  # more than the lanes of a dot product, and a rest
    yield retrieval_case(wide, unit(wide + 0.3 * rng.normal(0, 1, wide.shape)), [0, 1, 2], [1])


def main():
    warnings.simplefilter("ignore")  # scikit-learn on absent classes, which are the point
    written = {
        "confusion": list(confusions(np.random.default_rng(1))),
        "jaccard": list(jaccards(np.random.default_rng(2))),
        "classification": list(classifications(np.random.default_rng(3))),
        "retrieval": list(retrievals(np.random.default_rng(4))),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(written, separators=(",", ":")) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
