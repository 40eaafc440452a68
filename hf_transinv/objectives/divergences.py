"""The formulas that objectives share, each written once. Logits [B, C] in, one value an image [B] out, in nats."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-sum_c softmax(target)_c log softmax(logits)_c; both are logits."""
    return -(torch.softmax(target.float(), -1) * torch.log_softmax(logits.float(), -1)).sum(-1)


def kl_divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)); both are logits."""
    log_target = torch.log_softmax(target.float(), -1)
    return (log_target.exp() * (log_target - torch.log_softmax(logits.float(), -1))).sum(-1)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)_y, the labels [B] being class indices."""
    return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
