"""Slow references of the corruptions, one image at a time, with numpy, scipy, colorsys and Pillow.

Written from the definitions of Hendrycks and Dietterich (ICLR 2019); random numbers come in as arguments. Images are
[H, W, 3] uint8; what comes back are levels in 0..255, float64, before the truncation to 8 bits. Weather but for
brightness is in weather.py.
"""

import colorsys
import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage


def levels(x):
    return np.clip(x, 0, 1) * 255


def gaussian_noise(image, sigma, noise):
    """`noise` [H, W, 3], standard normal."""
    return levels(image / 255 + sigma * noise)


def impulse_noise(image, amount, uniform):
    """`uniform` [H, W, 3] in [0, 1): the lower half of `amount` is salt, the upper half pepper."""
    out = image / 255
    for place, value in np.ndenumerate(uniform):
        if value < amount / 2:
            out[place] = 1
        elif value < amount:
            out[place] = 0
    return levels(out)


def defocus_kernel(radius, sigma):
    """Disk on a grid of -8 .. 8 (or -radius .. radius), then a 3x3 (or 5x5) Gaussian with mirrored border."""
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    disk = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            disk[y + reach, x + reach] = x * x + y * y <= radius * radius
    disk /= disk.sum()
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    return ndimage.correlate(disk, np.outer(taps, taps), mode="mirror")


def defocus_blur(image, radius, sigma):
    kernel = defocus_kernel(radius, sigma)
    channels = [ndimage.correlate(image[..., c] / 255, kernel, mode="mirror") for c in range(3)]
    return levels(np.stack(channels, axis=-1))


def smoothed(x, sigma):
    """skimage.filters.gaussian with its defaults, channels apart."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)


def glass_loop(levels, reach, offsets):
    """The authors' loop: the swap of two views of one array, which is a copy. `offsets` [H, W, 2], (y, x)."""
    x = levels.copy()
    for h in range(x.shape[0] - reach, reach, -1):
        for w in range(x.shape[1] - reach, reach, -1):
            dy, dx = offsets[h, w]
            x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return x


def glass_blur(image, sigma, reach, rounds, offsets):
    """`offsets` [rounds or more, H, W, 2] in -reach .. reach - 1, (y, x). Truncated, against rounding by a margin."""
    x = np.uint8(smoothed(image / 255, sigma) * 255 + 1e-9)
    for number in range(rounds):
        x = glass_loop(x, reach, offsets[number])
    return np.floor(levels(smoothed(x / 255, sigma)) + 1e-9)


def motion_blur(image, radius, sigma, angle):
    """MagickMotionBlurImage, `angle` in degrees; it rounds to 8 bits: half a level is added before the truncation."""
    height, width = image.shape[:2]
    taps = range(2 * radius + 1)
    weights = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in taps])
    weights /= weights.sum()
    out = np.zeros(image.shape)
    for i in taps:
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        rows, columns = np.arange(height) + down, np.arange(width) + right
        out += weights[i] * image[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
    return out + 0.5


def clipped_zoom(x, factor):
    """Each side is cropped and trimmed by its own length (the authors' images are square)."""
    inside = []
    for size in x.shape[:2]:
        kept = math.ceil(size / factor)
        first = (size - kept) // 2
        inside.append(slice(first, first + kept))
    zoomed = ndimage.zoom(x[tuple(inside)], (factor, factor, 1), order=1)
    top, left = ((zoomed.shape[axis] - x.shape[axis]) // 2 for axis in (0, 1))
    return zoomed[top : top + x.shape[0], left : left + x.shape[1]]


def zoom_blur(image, stop, step):
    x = image / 255
    factors = np.arange(1, stop, step)
    return levels((x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1))


def jpeg_compression(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(float)


def brightness(image, amount):
    out = np.empty(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[y, x] / 255))
        out[y, x] = colorsys.hsv_to_rgb(h, s, min(v + amount, 1))
    return levels(out)


def contrast(image, factor):
    x = image / 255
    out = np.empty(x.shape)
    for c in range(3):
        mean = x[..., c].mean()
        out[..., c] = (x[..., c] - mean) * factor + mean
    return levels(out)


def affine_positions(shape, moves):
    """Where each output pixel samples, [2, H, W] as (y, x): the map moves three points by `moves` [3, 2], (x, y)."""
    height, width = shape
    center_x, center_y, half = width // 2, height // 2, min(shape) // 3
    before = np.array(
        [[center_x + half, center_y + half], [center_x + half, center_y - half], [center_x - half, center_y - half]],
        float,
    )
    after = before + moves
    # Six unknowns: rows [x', y', 1] times a 3x2 matrix give [x, y].
    matrix = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    positions = np.empty((2, height, width))
    for y, x in np.ndindex(height, width):
        sample_x, sample_y = np.array([x, y, 1]) @ matrix
        positions[:, y, x] = sample_y, sample_x
    return positions


def elastic_transform(image, alpha, sigma, moves, noise):
    """`moves` [3, 2] pixels (x, y) of the three points; `noise` [2, H, W] in [-1, 1), for x and for y."""
    shape = image.shape[:2]
    positions = affine_positions(shape, moves)
    dx, dy = (alpha * ndimage.gaussian_filter(plane, sigma, mode="reflect", truncate=3) for plane in noise)
    grid_y, grid_x = np.mgrid[: shape[0], : shape[1]]
    out = np.empty(image.shape)
    for c in range(3):
        warped = ndimage.map_coordinates(image[..., c] / 255, positions, order=1, mode="mirror")
        out[..., c] = ndimage.map_coordinates(warped, [grid_y + dy, grid_x + dx], order=1, mode="reflect")
    return levels(out)


def pixelate(image, share):
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)).astype(float)
