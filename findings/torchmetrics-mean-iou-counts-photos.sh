#!/usr/bin/env bash
# torchmetrics 1.9.0 (torchmetrics.segmentation.MeanIoU), torch 2.15.0.
#
# What happens: MeanIoU takes an IoU for every class of every photo and averages over these pairs, so a class weighs as
# much as the number of photos that show it. This is neither the mean over classes of a confusion matrix (the benchmarks'
# mIoU, and torchmetrics' own MulticlassJaccardIndex) nor the mean of what the same class returns with `per_class=True`.
#
# Why one would expect otherwise: its documentation calls the result the mean over all classes, and the mean of the
# per-class result is what a table shows beside it.
#
# Seen (nine photos of a class that is always right, one photo of another that is always wrong):
#   MeanIoU                      0.818
#   mean of MeanIoU(per_class)   0.450
#   MulticlassJaccardIndex       0.450
# and with photos in which half of the pixels are confused, both parts of it differ from the confusion matrix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.15.0 torchmetrics==1.9.0
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

truth = torch.zeros(10, 4, 4, dtype=torch.long)
truth[9] = 1
predicted = torch.zeros(10, 4, 4, dtype=torch.long)
of_pairs = MeanIoU(num_classes=2, input_format="index")(predicted, truth).item()
of_classes = MeanIoU(num_classes=2, input_format="index", per_class=True)(predicted, truth)
jaccard = MulticlassJaccardIndex(2)(predicted, truth).item()
print(f"MeanIoU                      {of_pairs:.3f}")
print(f"mean of MeanIoU(per_class)   {of_classes.mean().item():.3f}")
print(f"MulticlassJaccardIndex       {jaccard:.3f}")
assert abs(of_pairs - of_classes.mean().item()) > 0.3, "MeanIoU is now a mean over classes"
assert abs(of_pairs - 9 / 11) < 1e-6
assert abs(jaccard - 0.45) < 1e-6

# Whole photos hide that per_class is a mean over photos too.
truth = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 0]]])
predicted = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 0, 0]]])
by_photo = MeanIoU(num_classes=2, input_format="index", per_class=True)(predicted, truth)
by_pixel = MulticlassJaccardIndex(2, average="none")(predicted, truth)
print("per class:", [round(v, 3) for v in by_photo.tolist()], "by pixels:", [round(v, 3) for v in by_pixel.tolist()])
assert (by_photo - by_pixel).abs().max() > 0.04
PY
