"""The image corruptions of CIFAR-C and ImageNet-C, batched: f(images, name, severity 1..5) -> images.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
computed as in the authors' generators, which severities.py names. With x an image in [0, 1] and c the constant of its
severity:

    gaussian_noise      x + N(0, c^2)
    shot_noise          Poisson(c x) / c, x in whole levels
    impulse_noise       a value (not a pixel) becomes 0 or 1, with probability c / 2 each
    defocus_blur        x * (disk of radius c_1, smoothed by a small Gaussian of deviation c_2), border reflected
    glass_blur          g(shuffle(g(x))), with g a Gaussian of deviation c_1 and truncation to 8 bits; the shuffle, c_3
                        times over, replaces pixels by those at random offsets of -c_2 to c_2 - 1, in the order that
                        blur.py describes
    motion_blur         ImageMagick's: half a Gaussian of deviation c_2, 2 c_1 + 1 whole-pixel steps in one direction
                        of U(-45, 45) degrees, edge replicated, rounded to 8 bits
    zoom_blur           the mean of x and its zooms into the centre by 1, 1 + c_2, 1 + 2 c_2, .. up to about c_1
    snow                c_7 x + (1 - c_7) max(x, 1.5 grey + 0.5) + s + (s turned by 180 degrees), with s one plane:
                        N(c_1, c_2^2), zoomed c_3 times into the centre, 0 where it is below c_4, 8 bits, then motion
                        blur of radius c_5 and deviation c_6 at U(-135, -45) degrees
    frost               c_1 x + c_2 t, with t a random crop of a frost texture (frost.py)
    fog                 (x + c_1 p) m / (m + c_1), with m the largest value of the image and p in [0, 1] a plasma
                        fractal: diamond-square, each point the mean of four and U(-w^2, w^2), w / c_2 the next w
    brightness          V + c in HSV
    contrast            c (x - m) + m, with m the mean of each channel of the image
    elastic_transform   a random affine map (three points, each moved by U(-c_3, c_3) pixels), then a displacement:
                        U(-1, 1) per pixel, smoothed by a Gaussian of deviation c_2, times c_1 pixels
    pixelate            box filter down to int(c size) pixels, box filter up again
    jpeg_compression    Pillow's JPEG of quality c, 4:2:0

As in the originals, every result is clipped and truncated to 8 bits. The originals set no seed, so corruptions that
draw random numbers equal them in distribution.

Departures from the originals:

    A level less than 0.001 below a whole number in float32 counts as that number; in glass_blur, less than 1e-9 in
    float64. The affine map samples exact positions, where OpenCV rounds them to 1/32 pixel. Images that are not square
    are zoomed by the length of each side. ImageMagick's 16 bits between blur and rounding are omitted. JPEG is that of
    Pillow with libjpeg-turbo, as in its wheels; other decoders interpolate the colours differently.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hf_transinv.augment.corruptions import blur, digital, jpeg, noise, weather
from hf_transinv.augment.corruptions.severities import SEVERITIES, constants_of
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError

# In the order of the benchmark: noise, blur, weather, digital.
_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": jpeg.jpeg_compression,
}
_WITHOUT_DRAWS = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}

CORRUPTIONS = tuple(_OPERATIONS)
SMALLEST_IMAGE = 8


def check_corruption(name: str, severities: Iterable[object] = SEVERITIES) -> None:
    """Refuse unknown corruptions and severities.

    Raises:
        InputError: one is unknown; the message lists the known ones.
    """
    if name not in CORRUPTIONS:
        near = did_you_mean(name, CORRUPTIONS) or "."
        raise InputError(f"Unknown corruption {name!r}: known are {', '.join(CORRUPTIONS)}{near}")
    unknown = [severity for severity in severities if severity not in SEVERITIES]
    if unknown:
        raise InputError(f"Unknown severity {unknown[0]!r} of {name}: severities are the whole numbers 1 to 5.")


def _severity_index(name: str, severity: int | Tensor, images: Tensor) -> Tensor:
    """Severities 1 to 5 as indices 0 to 4 of the constants, one per image: int64 [B], on the images' device."""
    if not isinstance(severity, Tensor):
        check_corruption(name, (severity,))
        return torch.full((len(images),), int(severity) - 1, device=images.device)
    if severity.shape != (len(images),) or severity.is_floating_point():
        raise InputError(
            f"Severities of shape {list(severity.shape)} and type {severity.dtype} for {len(images)} images: "
            f"give one whole number 1 to 5, or an integer tensor of shape [{len(images)}]."
        )
    check_corruption(name, tuple(severity.unique().tolist()))
    return severity.to(images.device, torch.int64) - 1


def _check_images(images: Tensor) -> None:
    is_rgb = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) >= SMALLEST_IMAGE
    if not is_rgb or not images.is_floating_point():
        raise InputError(
            f"Cannot corrupt images of shape {list(images.shape)} and type {images.dtype}: expected floating point in "
            f"[0, 1], [B, 3, H, W], H and W at least {SMALLEST_IMAGE}. Divide uint8 images by 255."
        )
    low, high = images.aminmax() if len(images) else (0, 1)
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"Cannot corrupt images with values from {float(low):.4g} to {float(high):.4g}: expected [0, 1]. "
            "Corrupt before normalising, and divide 8-bit levels by 255."
        )


def corrupt(
    images: Tensor,
    name: str,
    severity: int | Tensor,
    generator: torch.Generator | None = None,
    frost_folder: str | None = None,
) -> Tensor:
    """Corrupt images as CIFAR-C (up to 64 pixels) or ImageNet-C (above) does.

    Args:
        images: [B, 3, H, W], floating point in [0, 1], each side at least 8 pixels.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5, for all images or one per image, [B].
        generator: of the random numbers. defocus_blur, zoom_blur, brightness, contrast, pixelate and jpeg_compression
            need none. It may be on another device than the images: a CPU generator gives the same draws everywhere.
        frost_folder: folder of the authors' photographs frost1.png .. frost5.jpg, used by frost only. Without it,
            frost uses synthetic textures, whose results are not exactly comparable to published ones.

    Returns:
        float32 [B, 3, H, W], multiples of 1/255 in [0, 1], without gradient.

    Raises:
        InputError: the name or severity is unknown, the images are not as above, a random corruption has no generator,
            or a frost photograph is missing, unreadable or too small.
    """
    check_corruption(name)
    _check_images(images)
    if name not in _WITHOUT_DRAWS and generator is None:
        raise InputError(f"{name} draws random numbers: give it a torch.Generator.")
    return apply_corruption(images, name, _severity_index(name, severity, images), generator, frost_folder)


@torch.no_grad()
def apply_corruption(
    images: Tensor,
    name: str,
    index: Tensor,
    generator: torch.Generator | None,
    frost_folder: str | None = None,
) -> Tensor:
    """`corrupt` without its checks, which wait for the device; zoom_blur and jpeg_compression wait for it anyway.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        name: one of `CORRUPTIONS`.
        index: severity less 1, int64 [B], on the device of the images.
        generator: as for `corrupt`.
        frost_folder: as for `corrupt`.

    Returns:
        As of `corrupt`.
    """
    if len(images) == 0:
        return images.float()
    constants = constants_of(name, min(images.shape[2:]))
    own = {"folder": frost_folder} if name == "frost" else {}
    with torch.autocast(images.device.type, enabled=False):
        corrupted = _OPERATIONS[name](images.float(), constants, index, generator, **own)
    return corrupted.clamp_(0, 1).mul_(255).add_(1e-3).floor_().div_(255)
