"""Slow references of TransInv, from the equations of Kurioka et al. (ICONIP 2024), one image and one pixel at a time.

Images are numpy [C, H, W]. The objective's functions are plain arithmetic over nested lists, so that they also take
scalar tensors and leave a graph behind them.
"""

import math

import numpy as np


def contrast_brightness(image, alpha, beta):
    """alpha x + beta (section 4.2)."""
    out = np.zeros_like(image)
    for place, value in np.ndenumerate(image):
        out[place] = alpha * value + beta
    return out


def warp_affine(image, theta):
    """Bilinear sampling on the grid theta [u, v, 1]^T (Spatial Transformer Networks, eq. 1 and 5); black outside.

    u and v are the pixel centres of the output on a scale where the image spans [-1, 1].
    """
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            u, v = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
            x = theta[0][0] * u + theta[0][1] * v + theta[0][2]
            y = theta[1][0] * u + theta[1][1] * v + theta[1][2]
            x, y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
            for near_y in (math.floor(y), math.floor(y) + 1):
                for near_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= near_y < height and 0 <= near_x < width:
                        weight = (1 - abs(x - near_x)) * (1 - abs(y - near_y))
                        for channel in range(channels):
                            out[channel, row, column] += weight * image[channel, near_y, near_x]
    return out


def reflected(index, size):
    """An index outside 0 .. size - 1, mirrored at the first or the last pixel, which is not repeated."""
    if index < 0:
        return -index
    return 2 * (size - 1) - index if index >= size else index


def gaussian_blur(image, variance, gamma, radius):
    """gamma x + (1 - gamma) Conv(x, kappa): kappa a normalised Gaussian of (2 radius + 1)^2 pixels (section 4.2)."""
    channels, height, width = image.shape
    offsets = range(-radius, radius + 1)
    kernel = {(dy, dx): math.exp(-(dy * dy + dx * dx) / (2 * variance)) for dy in offsets for dx in offsets}
    total = sum(kernel.values())
    out = np.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                blurred = 0.0
                for (dy, dx), weight in kernel.items():
                    neighbour = image[channel, reflected(row + dy, height), reflected(column + dx, width)]
                    blurred += weight / total * neighbour
                out[channel, row, column] = gamma * image[channel, row, column] + (1 - gamma) * blurred
    return out


def gaussian_noise(image, variance, noise):
    """x + N(0, nu), the standard normal numbers given (section 4.2)."""
    out = np.zeros_like(image)
    for place, value in np.ndenumerate(image):
        out[place] = value + math.sqrt(variance) * noise[place]
    return out


def clamped(image):
    """Pixels back in [0, 1], saturating."""
    out = np.zeros_like(image)
    for place, value in np.ndenumerate(image):
        out[place] = min(max(value, 0.0), 1.0)
    return out


def folded(image):
    """Pixels back in [0, 1] by the triangle wave: mirrored at 0 and at 1 as often as it takes."""
    out = np.zeros_like(image)
    for place, value in np.ndenumerate(image):
        while not 0 <= value <= 1:
            value = -value if value < 0 else 2 - value
        out[place] = value
    return out


def softmax(logits):
    """exp(l_c) / sum exp(l), a list."""
    largest = max(value if isinstance(value, float) else value.item() for value in logits)
    powers = [np.exp(value - largest) if isinstance(value, float) else (value - largest).exp() for value in logits]
    return [power / sum(powers) for power in powers]


def log(value):
    """Natural logarithm of a float or of a scalar tensor."""
    return math.log(value) if isinstance(value, float) else value.log()


def label_loss(logits, label):
    """L1: the cross-entropy of one image with its label."""
    return -log(softmax(logits)[label])


def teacher_loss(clean, moved, keep):
    """L2 of one image: the cross-entropy of T(A(x)) with the soft target T(x), or what it is above T(x)'s entropy."""
    loss = 0.0
    for target, answer in zip(softmax(clean), softmax(moved), strict=True):
        loss = loss - target * log(answer)
        if keep == "kl":
            loss = loss + target * log(target)
    return loss


def under(values, p, q):
    """E[o] = q sum_i p_i E[o | i] + (1 - q) E[o | clean]; `values` of the K choices and, last, of the clean image."""
    mean = (1 - q) * values[-1]
    for probability, value in zip(p, values[:-1], strict=True):
        mean = mean + q * probability * value
    return mean


def objective(form, hard, keep, p, q, classes, tolerance=None, multipliers=None):
    """O of one augmentation model (the integrand of eq. 5), in its three forms.

    Args:
        form: "paper", "normalised", "teacher" or "primitive" (the constrained form, one multiplier each).
        hard: mean L1 of each choice, K + 1 numbers, the last of the clean images.
        keep: mean L2 of each choice, likewise.
        p, q: K probabilities and one.
        classes: of the student, and of the teacher.
        tolerance: of the constrained form.
        multipliers: of the constrained form, one or K.
    """
    if form == "paper":
        return under(hard, p, q) - under(keep, p, q)
    if form == "normalised":
        return under(hard, p, q) / math.log(classes[0]) - under(keep, p, q) / math.log(classes[1])
    if form == "teacher":
        return under(hard, p, q) - multipliers[0] * (under(keep, p, q) - tolerance)
    lagrangian = [hard[i] - multipliers[i] * (keep[i] - tolerance) for i in range(len(multipliers))]
    return under([*lagrangian, hard[-1]], p, q)


def dual(form, keep, p, q, tolerance, multipliers):
    """What the multipliers of one augmentation model ascend: lambda (keep - tolerance)."""
    if form == "teacher":
        return multipliers[0] * (under(keep, p, q) - tolerance)
    return sum(multipliers[i] * (keep[i] - tolerance) for i in range(len(multipliers)))


def collected(excess, bounds):
    """A term of value 0, by whose gradient the bounds, in nats, add up over the parts of a batch."""
    return sum((own - own.detach()) * bound for own, bound in zip(excess, bounds, strict=True))


def next_multiplier(multiplier, before, keep, bound, rate, damping):
    """A multiplier after a turn, and e of the turn: the share by which keep is beyond its bound, at most 4.

    Proportional and integral control: lambda + rate e + rate damping (e - before), at least 0.
    """
    excess = min((keep - bound) / bound, 4.0)
    return max(multiplier + rate * excess + rate * damping * (excess - before), 0.0), excess


def entropy(probabilities):
    """-sum p ln p."""
    return -sum(value * log(value) for value in probabilities)
