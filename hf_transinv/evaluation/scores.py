"""Five numbers an image, and what they say about all images: top-1, top-5, NLL, ECE and Brier score.

With p the softmax of the logits of one image, y its class (one-hot: e_y), c = max p its confidence:

    nll    -ln p_y, in nats
    brier  sum_i (p_i - e_y,i)^2, from 0 to 2 (Brier, Monthly Weather Review 1950: the sum over the classes)
    ece    sum over 15 bins of equal width of c: share of the images in the bin x |accuracy - mean c of the bin|
           (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), in [0, 1]
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = ("top1", "top5", "nll", "brier", "confidence")
NUM_BINS = 15  # Guo et al., table 1
# torchmetrics gives a confidence of exactly 1 a bin of its own, a sixteenth, and takes larger ones for logits.
_LARGEST_CONFIDENCE = 1 - 2**-24


def image_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [B, C] and labels [B] -> `COLUMNS` of each image, [B, 5], float32; top1 and top5 are 0 or 1."""
    logits = logits.float()
    is_label = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    probabilities = logits.softmax(dim=1)
    errors = probabilities - F.one_hot(labels, logits.shape[1])
    columns = (
        is_label[:, 0],
        is_label.any(dim=1),
        F.cross_entropy(logits, labels, reduction="none"),
        errors.square().sum(dim=1),
        probabilities.amax(dim=1),
    )
    return torch.stack([column.float() for column in columns], dim=1)


def top1(scores: Tensor) -> float:
    """Scores [N, 5] of images -> accuracy in percent."""
    return 100 * scores[:, 0].double().sum().item() / len(scores)


def calibration_error(scores: Tensor) -> float:
    """Scores [N, 5] of images -> their ECE, in [0, 1]."""
    # Seconds of importing, which a run that has not come to its evaluation need not wait for.
    from torchmetrics.functional.classification import binary_calibration_error

    is_right, confidence = scores[:, 0].long(), scores[:, 4].double().clamp(max=_LARGEST_CONFIDENCE)
    return binary_calibration_error(confidence, is_right, n_bins=NUM_BINS, norm="l1").item()


def all_scores(scores: Tensor, num_classes: int) -> dict[str, float]:
    """Scores [N, 5] of images -> top1, nll, top5 (with more than five classes), ece, brier; the first in percent."""
    # fsum rounds once: its result depends neither on the order of the images nor on the number of threads.
    means = dict(zip(COLUMNS, (math.fsum(column) / len(scores) for column in scores.T.tolist()), strict=True))
    top5 = {"top5": 100 * means["top5"]} if num_classes > 5 else {}
    calibration = {"ece": calibration_error(scores), "brier": means["brier"]}
    return {"top1": top1(scores), "nll": means["nll"]} | top5 | calibration
