"""Scores of each image and their summaries: top-1, top-5, NLL, ECE, Brier score, change under augmentation.

With p the softmax of the logits of one image, y its class (one-hot: e_y), c = max p its confidence:

    nll    -ln p_y, in nats
    brier  sum_i (p_i - e_y,i)^2, from 0 to 2 (Brier, Monthly Weather Review 1950: the sum over the classes)
    ece    sum over 15 bins of equal width of c: share of the images in the bin x |accuracy - mean c of the bin|
           (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), in [0, 1]

The change of the prediction under an augmentation, with p, f the probabilities and penultimate features of an image
and p', f' those of its augmented copy (Augmentation Invariant Training, figure 5):

    kl                 KL(p || p'), in nats
    feature_distance   |f - f'|, Euclidean

The paper leaves open, and our reading is: the original on the left side of the KL, and means over images for both.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.divergences import euclidean_distance, kl_divergence

MEASURES = ("top1", "top5", "nll", "brier", "confidence", "kl", "feature_distance")
COLUMNS = (*MEASURES, "label", "predicted")
"""Of each image: the measures, its class and the answer, which float32 holds exactly for up to 2^24 classes."""

NUM_BINS = 15  # Guo et al., table 1
# torchmetrics puts a confidence of exactly 1 into a sixteenth bin, and takes larger ones for logits.
_LARGEST_CONFIDENCE = 1 - 2**-24


class Answer(NamedTuple):
    """A model's output for a batch.

    Attributes:
        logits: [B, C].
        features: input of its last layer, [B, F]; None if that layer is unknown.
    """

    logits: Tensor
    features: Tensor | None


def image_scores(answer: Answer, labels: Tensor, original: Answer | None = None) -> Tensor:
    """The `COLUMNS` of each image.

    Args:
        answer: to the images.
        labels: class indices, int64 [B].
        original: answer to the images before augmentation; if None, kl and feature_distance are 0.

    Returns:
        float32 [B, 9]; top1 and top5 are 0 or 1.
    """
    logits = answer.logits.float()
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    is_label = ranked == labels[:, None]
    probabilities = logits.softmax(dim=1)
    errors = probabilities - F.one_hot(labels, logits.shape[1])
    columns = (
        is_label[:, 0],
        is_label.any(dim=1),
        F.cross_entropy(logits, labels, reduction="none"),
        errors.square().sum(dim=1),
        probabilities.amax(dim=1),
        *_variation(answer, original),
        labels,
        ranked[:, 0],
    )
    return torch.stack([column.float() for column in columns], dim=1)


def _variation(answer: Answer, original: Answer | None) -> tuple[Tensor, Tensor]:
    """The columns kl and feature_distance, [B] each; 0 where there is nothing to compare with."""
    nothing = answer.logits.new_zeros(len(answer.logits))
    if original is None:
        return nothing, nothing
    kl = kl_divergence(original.logits, answer.logits)
    if original.features is None or answer.features is None:
        return kl, nothing
    return kl, euclidean_distance(original.features, answer.features)


def column(scores: Tensor, name: str) -> Tensor:
    """Scores [N, 9] of images -> one of `COLUMNS`, [N]."""
    return scores[:, COLUMNS.index(name)]


def top1(scores: Tensor) -> float:
    """Scores [N, 9] of images -> accuracy in percent."""
    return 100 * scores[:, 0].double().sum().item() / len(scores)


def calibration_error(scores: Tensor) -> float:
    """Scores [N, 9] of images -> their ECE, in [0, 1]."""
    # Imported late, as it takes seconds.
    from torchmetrics.functional.classification import binary_calibration_error

    is_right, confidence = scores[:, 0].long(), scores[:, 4].double().clamp(max=_LARGEST_CONFIDENCE)
    return binary_calibration_error(confidence, is_right, n_bins=NUM_BINS, norm="l1").item()


def all_scores(scores: Tensor, num_classes: int) -> dict[str, float]:
    """Scores [N, 9] of images -> top1, nll, top5 (with more than five classes), ece, brier; the first in percent."""
    means = _means(scores)
    top5 = {"top5": 100 * means["top5"]} if num_classes > 5 else {}
    calibration = {"ece": calibration_error(scores), "brier": means["brier"]}
    return {"top1": top1(scores), "nll": means["nll"]} | top5 | calibration


def augmented_scores(scores: Tensor, has_features: bool) -> dict[str, float | None]:
    """Scores [N, 9] of augmented images -> top1 in percent, kl, feature_distance (None without features)."""
    means = _means(scores)
    moved = means["feature_distance"] if has_features else None
    return {"top1": top1(scores), "kl": means["kl"], "feature_distance": moved}


def _means(scores: Tensor) -> dict[str, float]:
    # fsum rounds once, so the result depends neither on the order of the images nor on the number of threads.
    return {name: math.fsum(column(scores, name).tolist()) / len(scores) for name in MEASURES}
