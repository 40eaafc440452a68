"""Slow references of the objectives, in plain Python: logits are lists of floats, one image at a time."""

import math


def probabilities(logits, temperature=1.0):
    """softmax(logits / T)."""
    largest = max(logits)
    powers = [math.exp((value - largest) / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits, label, smoothing=0.0):
    """With (1 - s) of the mass on the label and s spread over all classes."""
    total = 0.0
    for c, probability in enumerate(probabilities(logits)):
        target = smoothing / len(logits) + (1 - smoothing if c == label else 0.0)
        total -= target * math.log(probability)
    return total


def kl(p, q):
    """sum_c p_c ln(p_c / q_c)."""
    return sum(p_c * math.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))


def ai_loss(first, second):
    """Augmentation Invariant Training, eq. 1 and 2."""
    p_1, p_2 = probabilities(first), probabilities(second)
    total = 0.0
    for a, b in zip(p_1, p_2, strict=True):
        total += a * math.log(a / b) + b * math.log(b / a)
    return total


def euclidean(first, second):
    """The length of the difference of two vectors."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)))


def jensen_shannon(*logits):
    """AugMix, section 3: the mean KL from the mean distribution."""
    each = [probabilities(one) for one in logits]
    mean = [sum(values) / len(values) for values in zip(*each, strict=True)]
    return sum(kl(p, mean) for p in each) / len(each)


def top_k(teacher, student, k, temperature, renormalise=False):
    """Distillation on augmented images, eq. 3 the right way up, over the teacher's k most probable classes."""
    f_t, f_s = probabilities(teacher, temperature), probabilities(student, temperature)
    chosen = sorted(range(len(f_t)), key=lambda c: f_t[c], reverse=True)[:k]
    f_t, f_s = [f_t[c] for c in chosen], [f_s[c] for c in chosen]
    if renormalise:
        f_t, f_s = [v / sum(f_t) for v in f_t], [v / sum(f_s) for v in f_s]
    return kl(f_t, f_s)
