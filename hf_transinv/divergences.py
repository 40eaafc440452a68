"""The divergences that objectives share: logits [B, C] -> one value per image [B], in nats.

    soft cross-entropy   -sum_c p_c ln q_c
    KL(p || q)           sum_c p_c ln(p_c / q_c)
    symmetric KL         KL(p || q) + KL(q || p)                                (AIT, eq. 1)
    Jensen-Shannon       1/n sum_i KL(p_i || m),  m = 1/n sum_i p_i             (AugMix, section 3)
    top-K KL             sum_{c in C_K} p_c ln(p_c / q_c),  C_K the K largest of p
    at a temperature T   p = softmax(logits / T)                                (Hinton et al., 2015)

Half precision is computed in single precision; double precision stays double.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return torch.log_softmax(_single(logits) / temperature, -1)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """The soft cross-entropy -sum_c softmax(target)_c ln softmax(logits)_c of logits [B, C] -> [B]."""
    return -(torch.softmax(_single(target), -1) * _log_probabilities(logits)).sum(-1)


def kl_divergence(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(target / T) || softmax(logits / T)) of logits [B, C] at temperature T -> [B]."""
    log_target = _log_probabilities(target, temperature)
    return (log_target.exp() * (log_target - _log_probabilities(logits, temperature))).sum(-1)


def symmetric_kl(first: Tensor, second: Tensor, detach_target: bool = False) -> Tensor:
    """KL(p1 || p2) + KL(p2 || p1) of logits [B, C] -> [B]; `detach_target` detaches the left side of each term."""
    if detach_target:
        return kl_divergence(first.detach(), second) + kl_divergence(second.detach(), first)
    log_first, log_second = _log_probabilities(first), _log_probabilities(second)
    return ((log_first.exp() - log_second.exp()) * (log_first - log_second)).sum(-1)


def jensen_shannon(*logits: Tensor) -> Tensor:
    """The mean KL of n distributions, logits [B, C] each, from their mean: [B], in [0, ln n]."""
    log_probabilities = torch.stack([_log_probabilities(one) for one in logits])
    log_mean = torch.logsumexp(log_probabilities, 0) - math.log(len(logits))
    return (log_probabilities.exp() * (log_probabilities - log_mean)).sum(-1).mean(0)


def top_k_kl(
    target: Tensor, logits: Tensor, top_k: int, temperature: float = 1.0, renormalise: bool = False
) -> Tensor:
    """The terms of KL(softmax(target / T) || softmax(logits / T)) for the target's K most probable classes.

    Without renormalisation this is not a divergence. It can be negative, and it is smallest when all the mass of the
    logits is on those classes, in the target's proportions. With renormalisation both are distributions over the K
    classes.

    Args:
        target: logits, [B, C].
        logits: [B, C].
        top_k: K, from 1 to C; C gives `kl_divergence`.
        temperature: T.
        renormalise: whether each of the two is normalised over the K classes.

    Returns:
        [B].
    """
    chosen = target.topk(top_k, -1).indices
    if renormalise:
        return kl_divergence(target.gather(-1, chosen), logits.gather(-1, chosen), temperature)
    log_target = _log_probabilities(target, temperature).gather(-1, chosen)
    log_answer = _log_probabilities(logits, temperature).gather(-1, chosen)
    return (log_target.exp() * (log_target - log_answer)).sum(-1)


def euclidean_distance(first: Tensor, second: Tensor) -> Tensor:
    """The length of first - second, [B, F] -> [B]; where they are equal, its gradient is 0."""
    return torch.linalg.vector_norm(_single(first) - _single(second), dim=-1)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """The cross-entropy -sum_c w_c t_c ln softmax(logits)_c of logits [B, C] -> [B].

    Args:
        logits: [B, C].
        labels: class indices, int64 [B], or t, the share of each class, float [B, C].
        label_smoothing: mass of t moved to all classes, in [0, 1).
        class_weights: w, [C]; None: all are 1.
    """
    logits = _single(logits)
    targets = labels.to(logits.dtype) if labels.is_floating_point() else labels
    weight = None if class_weights is None else class_weights.to(logits.dtype)
    return F.cross_entropy(logits, targets, weight, reduction="none", label_smoothing=label_smoothing)
