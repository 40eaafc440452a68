"""How far an answer moves, image by image and class by class, written from the definitions."""

import math


def softmax(logits):
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def kl_and_agreement(clean, moved):
    """Mean KL(softmax(clean) || softmax(moved)) and the share of equal largest entries, of lists of logits."""
    kl, same = 0.0, 0
    for before, after in zip(clean, moved, strict=True):
        p, q = softmax(before), softmax(after)
        kl += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        same += before.index(max(before)) == after.index(max(after))
    return kl / len(clean), same / len(clean)
