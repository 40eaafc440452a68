"""The terms of the loss of TeachAugment's augmentation (Suzuki, CVPR 2022)."""

import math

import torch
from torch import Tensor


def non_saturating_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-sum_c t_c log(1 - softmax(logits)_c), t the label with mass s moved to all classes: [B, C] -> [B]."""
    log_complements = log_complement(logits)
    chosen = log_complements.gather(1, labels.unsqueeze(1)).squeeze(1)
    return -((1 - label_smoothing) * chosen + label_smoothing * log_complements.mean(1))


def log_complement(logits: Tensor) -> Tensor:
    """log(1 - softmax(logits)), [B, C] -> [B, C], finite with a finite gradient however sure the logits are."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # The largest probability may round to 1: its complement is the sum of the others. Theirs are at most 1/2.
    largest = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, largest, -math.inf).logsumexp(1, keepdim=True)
    rest = torch.log1p(-torch.softmax(logits, 1).scatter(1, largest, 0.0))
    return rest.scatter(1, largest, others - logits.logsumexp(1, keepdim=True))


def sliced_wasserstein(first: Tensor, second: Tensor, directions: Tensor, sort: str = "pixels") -> Tensor:
    """Squared sliced Wasserstein distance between the colours of two images, [B].

    Args:
        first: [B, 3, H, W].
        second: [B, 3, H, W].
        directions: [B, P, 3].
        sort: "pixels" of an image; "batch": the images at each pixel, whose directions must then be the same.
    """
    axis = -1 if sort == "pixels" else 0
    ranked = [(directions @ images.flatten(2)).sort(axis).values for images in (first, second)]
    return (ranked[0] - ranked[1]).square().mean((1, 2))
