"""PRIME's transformations of one image, pixel by pixel, from their equations (Modas et al., ECCV 2022)."""

import math

import numpy as np


def sample(image, y, x):
    """Bilinear value of image [H, W] at a row and a column, in pixels; the border goes on outside."""
    height, width = image.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    dy, dx = y - top, x - left
    upper = (1 - dx) * image[top, left] + dx * image[top, left + 1]
    lower = (1 - dx) * image[top + 1, left] + dx * image[top + 1, left + 1]
    return (1 - dy) * upper + dy * lower


def spatial(image, along_x, along_y):
    """Image [C, H, W]; c of each direction by (frequency along y, frequency along x), from 1 on."""
    _, height, width = image.shape
    warped = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            u, v = column / (width - 1), row / (height - 1)
            waves = [
                [math.sin(math.pi * j * v) * math.sin(math.pi * i * u) for i in range(1, along_x.shape[1] + 1)]
                for j in range(1, along_x.shape[0] + 1)
            ]
            x, y = u - (along_x * waves).sum(), v - (along_y * waves).sum()
            for channel, plane in enumerate(image):
                warped[channel, row, column] = sample(plane, y * (height - 1), x * (width - 1))
    return warped


def spectral(image, kernel):
    """Image [C, H, W] and a kernel, correlated, with black outside."""
    channels, height, width = image.shape
    filtered = np.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if 0 <= row + dy < height and 0 <= column + dx < width:
                            filtered[channel, row, column] += (
                                kernel[dy + 1, dx + 1] * image[channel, row + dy, column + dx]
                            )
    return filtered.clip(0, 1)


def colour(image, first, coefficients):
    """Image [C, H, W]; b of first, first + 1, ... for each channel."""
    bent = image.copy()
    for channel, own in enumerate(coefficients):
        for index, factor in enumerate(own):
            bent[channel] += factor * np.sin(math.pi * (first + index) * image[channel])
    return bent.clip(0, 1)


def mixture(image, chains, weights, share):
    """`chains`: lists of functions of an image."""
    mixed = (1 - share) * image
    for chain, weight in zip(chains, weights, strict=True):
        changed = image
        for change in chain:
            changed = change(changed)
        mixed = mixed + share * weight * changed
    return mixed
