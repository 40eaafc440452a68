"""Slow references of snow, frost and fog, one image at a time, with numpy and scipy.

Written from Hendrycks and Dietterich (ICLR 2019) and what their generators call (scipy's zoom, ImageMagick's motion
blur, diamond-square); random numbers come in as arguments. Images are [H, W, 3] uint8; what comes back are levels in
0..255, float64, before the truncation to 8 bits.
"""

import math

import numpy as np
from scipy import ndimage


def levels(x):
    return np.clip(x, 0, 1) * 255


def clipped_zoom(plane, factor):
    """The middle ceil(size / factor) values of each axis, zoomed, and the middle of that in the size of `plane`."""
    kept = [math.ceil(size / factor) for size in plane.shape]
    first = [(size - k) // 2 for size, k in zip(plane.shape, kept, strict=True)]
    zoomed = ndimage.zoom(plane[first[0] : first[0] + kept[0], first[1] : first[1] + kept[1]], factor, order=1)
    first = [(z - size) // 2 for z, size in zip(zoomed.shape, plane.shape, strict=True)]
    return zoomed[first[0] : first[0] + plane.shape[0], first[1] : first[1] + plane.shape[1]]


def motion_blur(plane, radius, sigma, angle):
    """ImageMagick: taps on one side only, at whole pixels, the nearest pixel of the edge outside."""
    taps = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(2 * radius + 1)]
    height, width = plane.shape
    out = np.zeros(plane.shape)
    for k, tap in enumerate(taps):
        down = math.ceil(k * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(k * math.cos(math.radians(angle)) - 0.5)
        for y, x in np.ndindex(height, width):
            out[y, x] += tap * plane[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
    return out / sum(taps)


def snow(image, loc, scale, factor, threshold, radius, sigma, mix, noise, angle):
    """`noise` [H, W], standard normal; `angle` in degrees."""
    layer = clipped_zoom(loc + scale * noise, factor)
    layer[layer < threshold] = 0
    eight_bit = np.uint8(np.clip(layer, 0, 1) * 255)
    layer = np.rint(motion_blur(eight_bit.astype(float), radius, sigma, angle)) / 255
    out = np.empty(image.shape)
    for (y, x), flake in np.ndenumerate(layer):
        pixel = image[y, x] / 255
        grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
        out[y, x] = mix * pixel + (1 - mix) * np.maximum(pixel, 1.5 * grey + 0.5) + flake + layer[-1 - y, -1 - x]
    return levels(out)


def frost(image, share, amount, photograph, step, top, left):
    """`photograph` [H', W', 3] uint8, every step-th pixel of which is taken, the middle one of each `step`."""
    out = np.empty(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        ice = photograph[step // 2 + step * (top + y), step // 2 + step * (left + x)]
        out[y, x] = share * image[y, x] + amount * ice
    return np.clip(out, 0, 255)


def plasma_fractal(side, decay, uniform):
    """Diamond-square on a torus, point by point, each level at its stride in the one map.

    `uniform`: numbers in [-1, 1) in the order of use; a level's square centres come first, then the midpoints of
    its horizontal edges, then those of its vertical edges, each in rows.
    """
    heights = np.zeros((side, side))
    numbers = iter(uniform)
    wobble, stride = 100.0, side
    while stride > 1:
        half = stride // 2
        diagonal = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for first_y, first_x, neighbours in ((half, half, diagonal), (0, half, straight), (half, 0, straight)):
            for y in range(first_y, side, stride):
                for x in range(first_x, side, stride):
                    around = [heights[(y + dy) % side, (x + dx) % side] for dy, dx in neighbours]
                    heights[y, x] = sum(around) / 4 + wobble * (wobble * next(numbers))
        stride, wobble = half, wobble / decay
    assert next(numbers, None) is None
    return (heights - heights.min()) / (heights.max() - heights.min())


def fog(image, mix, decay, side, uniform):
    x = image / 255
    fractal = plasma_fractal(side, decay, uniform)[: x.shape[0], : x.shape[1], None]
    return levels((x + mix * fractal) * x.max() / (x.max() + mix))
