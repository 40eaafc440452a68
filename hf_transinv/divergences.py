"""The formulas that objectives share, each written once. Logits [B, C] in, one value an image [B] out, in nats.

    soft cross-entropy   -sum_c p_c ln q_c
    KL(p || q)           sum_c p_c ln(p_c / q_c)
    symmetric KL         KL(p || q) + KL(q || p)                                (AIT, eq. 1)
    Jensen-Shannon       1/n sum_i KL(p_i || m),  m = 1/n sum_i p_i             (AugMix, section 3)
    top-K KL             sum_{c in C_K} p_c ln(p_c / q_c),  C_K the K largest of p
    at a temperature T   p = softmax(logits / T)                                (Hinton et al., 2015)

Half precision is computed in single, double stays double.
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
    """-sum_c softmax(target)_c log softmax(logits)_c; both are logits."""
    return -(torch.softmax(_single(target), -1) * _log_probabilities(logits)).sum(-1)


def kl_divergence(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(target / T) || softmax(logits / T)); both are logits."""
    log_target = _log_probabilities(target, temperature)
    return (log_target.exp() * (log_target - _log_probabilities(logits, temperature))).sum(-1)


def symmetric_kl(first: Tensor, second: Tensor, detach_target: bool = False) -> Tensor:
    """KL(p1 || p2) + KL(p2 || p1), both logits; `detach_target` keeps gradients from each term's left side."""
    if detach_target:
        return kl_divergence(first.detach(), second) + kl_divergence(second.detach(), first)
    log_first, log_second = _log_probabilities(first), _log_probabilities(second)
    return ((log_first.exp() - log_second.exp()) * (log_first - log_second)).sum(-1)


def jensen_shannon(*logits: Tensor) -> Tensor:
    """The mean KL of n distributions from their mean, in [0, ln n]."""
    log_probabilities = torch.stack([_log_probabilities(one) for one in logits])
    log_mean = torch.logsumexp(log_probabilities, 0) - math.log(len(logits))
    return (log_probabilities.exp() * (log_probabilities - log_mean)).sum(-1).mean(0)


def top_k_kl(
    target: Tensor, logits: Tensor, top_k: int, temperature: float = 1.0, renormalise: bool = False
) -> Tensor:
    """The terms of KL(softmax(target / T) || softmax(logits / T)) of the target's K most probable classes.

    Without renormalisation this is no divergence: it can be negative, and it is smallest where the whole mass of the
    logits lies on those classes, in the target's proportions. With it, both are distributions over the K classes.

    Args:
        target: logits, [B, C].
        logits: [B, C].
        top_k: K, from 1 to C; C gives `kl_divergence`.
        temperature: T.
        renormalise: make each of the two sum to one over the K classes.
    """
    chosen = target.topk(top_k, -1).indices
    if renormalise:
        return kl_divergence(target.gather(-1, chosen), logits.gather(-1, chosen), temperature)
    log_target = _log_probabilities(target, temperature).gather(-1, chosen)
    log_answer = _log_probabilities(logits, temperature).gather(-1, chosen)
    return (log_target.exp() * (log_target - log_answer)).sum(-1)


def euclidean_distance(first: Tensor, second: Tensor) -> Tensor:
    """The length of first - second, [B, F] -> [B]; its gradient where they are equal is 0."""
    return torch.linalg.vector_norm(_single(first) - _single(second), dim=-1)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)_y, the labels [B] being class indices."""
    return F.cross_entropy(_single(logits), labels, reduction="none", label_smoothing=label_smoothing)
