"""What severities 1 to 5 of each corruption mean: the constants of CIFAR-C and of ImageNet-C.

From the authors' generators, make_cifar_c.py and make_imagenet_c.py in github.com/hendrycks/robustness (folder
ImageNet-C/create_c). A corruption has five constants, or five tuples of them; corruptions.py says what they stand for.
Constants in pixels (elastic_transform, defocus_blur) are those of 32 and of 224 pixel images, never scaled.
"""

from types import MappingProxyType

Constants = tuple[float, ...] | tuple[tuple[float, ...], ...]

SEVERITIES = (1, 2, 3, 4, 5)

CIFAR_C: MappingProxyType[str, Constants] = MappingProxyType(
    {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    }
)

# Elastic: fractions of 244, a slip for 224 in the authors' script that the published images carry.
IMAGENET_C: MappingProxyType[str, Constants] = MappingProxyType(
    {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": (
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    }
)

LARGEST_SMALL_IMAGE = 64


def constants_of(name: str, image_size: int) -> Constants:
    """The five constants of a corruption: CIFAR-C's for images of up to 64 pixels, ImageNet-C's for larger ones."""
    return (CIFAR_C if image_size <= LARGEST_SMALL_IMAGE else IMAGENET_C)[name]
