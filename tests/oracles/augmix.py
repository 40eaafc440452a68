"""AugMix's mixture of one image, from the definition (Hendrycks et al., ICLR 2020, algorithm 1)."""

import numpy as np

from tests.oracles import pil_ops


def mixture(image, chains, weights, share):
    """`image` uint8 [H, W, 3]; `chains`: lists of (name, parameter); -> float64 [H, W, 3] in [0, 1]."""
    mixed = np.zeros(image.shape)
    for chain, weight in zip(chains, weights, strict=True):
        augmented = image
        for name, parameter in chain:
            augmented = pil_ops.apply(augmented, name, parameter, "bilinear", (0, 0, 0))
        mixed += weight * (augmented / 255)
    return (1 - share) * (image / 255) + share * mixed
