"""Slow references of TeachAugment, from the definitions of Suzuki (CVPR 2022): whole networks, one image, one pixel,
one unit at a time. Arrays are numpy, float64; parameters come as a dictionary of arrays by name."""

import itertools
import math

import numpy as np

from tests.oracles.transinv import softmax, warp_affine

SLOPE, KEEP, EPSILON, TEMPERATURE = 0.2, 0.2, 1e-5, 0.05


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def triangle_wave(value):
    """arccos(cos(pi v)) / pi: 0 at even numbers, 1 at odd ones, straight in between."""
    return math.acos(math.cos(math.pi * value)) / math.pi


def hidden_unit(values, gain, bias):
    """BatchNorm over all `values` of one unit, then LeakyReLU."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    normal = [gain * (value - mean) / math.sqrt(variance + EPSILON) + bias for value in values]
    return [value if value > 0 else SLOPE * value for value in normal]


def hidden_layer(rows, weight, gain, bias):
    """Linear, BatchNorm, LeakyReLU of rows [n][inputs] -> array [n, units]."""
    before = np.asarray(rows) @ weight.T
    return np.stack([hidden_unit(before[:, u], gain[u], bias[u]) for u in range(len(gain))], axis=1)


def latent_network(phi, name, z, labels, classes, kept):
    """A network of (one-hot label, z); `kept` [n, 2, units] are the units that dropout leaves."""
    rows = [[float(c == label) for c in range(classes)] + list(noise) for label, noise in zip(labels, z, strict=True)]
    for layer in range(2):
        weight, gain, bias = (phi[f"{name}.{which}{layer}"] for which in ("weight", "gain", "bias"))
        rows = hidden_layer(rows, weight, gain, bias) * kept[:, layer] / KEEP
    return rows @ phi[f"{name}.last"].T


def pixel_network(phi, images, labels, mean, std, kept):
    """Of each pixel of images [n, 3, h, w]: [n, 6, h, w]; `kept` [n, 2, 128] channels, the same all over an image."""
    n, _, height, width = images.shape
    owner = [i for i in range(n) for _ in range(height * width)]
    colours = [
        [(images[i, c, row, column] - mean[c]) / std[c] for c in range(3)]
        for i in range(n)
        for row in range(height)
        for column in range(width)
    ]
    # The label's part is added before BatchNorm, so it counts as further inputs.
    classes = phi["pixel.context"].shape[1]
    rows = [
        [*colour, *[float(c == labels[i]) for c in range(classes)]] for colour, i in zip(colours, owner, strict=True)
    ]
    weights = [np.concatenate([phi["pixel.weight0"], phi["pixel.context"]], axis=1), phi["pixel.weight1"]]
    for layer, weight in enumerate(weights):
        rows = hidden_layer(rows, weight, phi[f"pixel.gain{layer}"], phi[f"pixel.bias{layer}"])
        rows = rows * kept[owner, layer] / KEEP
    answer = rows @ phi["pixel.last"].T
    return answer.reshape(n, height, width, 6).transpose(0, 3, 1, 2)


def is_padding(image, row, column):
    """Whether a pixel lies in a row or a column that is black all through."""
    return not image[:, row, :].any() or not image[:, :, column].any()


def augment(phi, images, labels, z, logistic, kept, pixel_kept, mean, std):
    """A(x) of one group of images: the images, and what they were before they were warped."""
    classes = len(phi["gate.colour"])
    matrices = latent_network(phi, "matrix", z, labels, classes, kept[:, :2])
    tones = latent_network(phi, "tone", z, labels, classes, kept[:, 2:])
    answers = pixel_network(phi, images, labels, mean, std, pixel_kept)
    coloured, warped = np.zeros_like(images), []
    for i, label in enumerate(labels):
        geometric, colour = (
            sigmoid((phi[f"gate.{name}"][label] + noise) / TEMPERATURE)
            for name, noise in zip(("geometric", "colour"), logistic[i], strict=True)
        )
        for c, row, column in np.ndindex(images[i].shape):
            scale = 0.8 * (sigmoid(answers[i, c, row, column] + tones[i, 0]) - 0.5) + 1
            shift = sigmoid(answers[i, 3 + c, row, column] + tones[i, 1]) - 0.5
            scale, shift = colour * scale + (1 - colour), colour * shift
            moved = scale * images[i, c, row, column] + shift
            coloured[i, c, row, column] = 0 if is_padding(images[i], row, column) else triangle_wave(moved)
        identity = np.array([[1.0, 0, 0], [0, 1, 0]])
        matrix = 0.5 * (np.array([sigmoid(m) for m in matrices[i]]).reshape(2, 3) - 0.5) + identity
        warped.append(warp_affine(coloured[i], geometric * matrix + (1 - geometric) * identity))
    return np.stack(warped), coloured


def transport(first, second):
    """Squared Wasserstein distance of two small sets of numbers: the best of all pairings."""
    pairings = (sum((a - b) ** 2 for a, b in zip(first, p, strict=True)) for p in itertools.permutations(second))
    return min(pairings) / len(first)


def sliced_wasserstein(first, second, directions):
    """Of two sets of colours [n, 3]: the mean over the directions [P, 3] of the distance of their projections."""
    return sum(transport(first @ u, second @ u) for u in directions) / len(directions)


def non_saturating_loss(logits, label, smoothing):
    """-sum_c t_c log(1 - p_c) of one image, t the smoothed label."""
    probabilities, loss = softmax(logits), 0.0
    for c, probability in enumerate(probabilities):
        target = (1 - smoothing) * (c == label) + smoothing / len(probabilities)
        loss -= target * math.log(1 - probability)
    return loss


def priorities(ages, decay):
    """Chances of copies of these ages, and, last, of the model of today."""
    weights = [decay**age for age in ages] + [1.0]
    return [weight / sum(weights) for weight in weights]
