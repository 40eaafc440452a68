"""Primitives beyond the paper's four: a wider family, which the teachers narrow.

TransInv needs no augmentation that is harmless to everybody: p, q and phi leave out what a teacher does not tolerate.
None of these is one of the fifteen test corruptions; what each is kin to it says in `kin`.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment import ops, wide_ops
from hf_transinv.augment.primitives import Primitive

_WEIGHT = 0.5  # largest weight of another channel
_BEND = 1.2  # largest logarithm of a slope: slopes up to 3.3 times apart from the mean
_PARTS = 6  # of the tone curve
_CONTROL_POINTS = 4  # k, along each side
_DISPLACEMENT = 0.15  # of a control point along each axis, in halves of the image
_TAP = 0.4
_MOVE = 0.3  # largest translation along each axis, in halves of the image
_SHEAR = 0.4
_ROTATION = math.radians(40)


class ColourMatrix(Primitive):
    """x + M(z) x, with the weights of the other channels in (-0.5, 0.5); grey stays grey."""

    name = "colour_matrix"
    ranges = ((-_WEIGHT, _WEIGHT),) * 6
    start = (0.0,) * 6
    rest = (0.0,) * 6

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.mix_colours(images, parameters)


class ToneCurve(Primitive):
    """f_z(x), a monotone curve of six parts, with logarithms of slopes in (-1.2, 1.2)."""

    name = "tone_curve"
    ranges = ((-_BEND, _BEND),) * _PARTS
    start = (0.0,) * _PARTS
    rest = (0.0,) * _PARTS
    kin: Mapping[str, str] = {
        "brightness": "a curve can brighten the middle tones",
        "contrast": "a curve can flatten the middle tones",
    }

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.bend_tones(images, parameters)


class Elastic(Primitive):
    """A smooth warp by 4 x 4 control points, displaced by up to 0.15 halves of the image along each axis."""

    name = "elastic"
    ranges = ((-_DISPLACEMENT, _DISPLACEMENT),) * (2 * _CONTROL_POINTS**2)
    start = (0.0,) * (2 * _CONTROL_POINTS**2)
    rest = (0.0,) * (2 * _CONTROL_POINTS**2)
    kin: Mapping[str, str] = {"elastic_transform": "it is a smooth warp"}

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.warp_elastic(images, parameters.view(len(images), -1, 2), self.config.padding_mode)


class RandomFilter(Primitive):
    """x + Conv(x, w(z)), with nine weights in (-0.4, 0.4) less their mean."""

    name = "random_filter"
    ranges = ((-_TAP, _TAP),) * 9
    start = (0.0,) * 9
    rest = (0.0,) * 9
    kin: Mapping[str, str] = {"defocus_blur": "a filter can smooth"}

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.filter_image(images, parameters)


class SoftCutout(Primitive):
    """A soft square of the mean colour: centre in the image, half side in (0.1, 0.6) halves, opacity in (0, 1)."""

    name = "soft_cutout"
    ranges = ((-1.0, 1.0), (-1.0, 1.0), (0.1, 0.6), (0.0, 1.0))
    start = (0.0, 0.0, 0.0, 0.0)
    rest = (0.0, 0.0, 0.1, 0.0)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.cover(images, parameters[:, :2], parameters[:, 2], parameters[:, 3])


class Solarize(Primitive):
    """Levels above a threshold in (0.3, 1) are inverted by a share in (0, 1)."""

    name = "solarize"
    ranges = ((0.3, 1.0), (0.0, 1.0))
    start = (1.0, -1.0)
    rest = (1.0, 0.0)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        return wide_ops.solarize(images, *parameters.unbind(1))


class Translation(Primitive):
    """A shift by up to 0.3 halves of the image along each axis."""

    name = "translation"
    ranges = ((-_MOVE, _MOVE),) * 2
    start = (0.0, 0.0)
    rest = (0.0, 0.0)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        theta = F.pad(parameters.unsqueeze(2), (2, 0)) + ops.identity(images.device, images.dtype)
        return ops.warp_affine(images, theta, self.config.padding_mode)


class Shear(Primitive):
    """A shear by up to 0.4 along each axis."""

    name = "shear"
    ranges = ((-_SHEAR, _SHEAR),) * 2
    start = (0.0, 0.0)
    rest = (0.0, 0.0)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        linear = torch.diag_embed(parameters).flip(2)
        theta = F.pad(linear, (0, 1)) + ops.identity(images.device, images.dtype)
        return ops.warp_affine(images, theta, self.config.padding_mode)


class Rotation(Primitive):
    """A rotation by up to 40 degrees either way."""

    name = "rotation"
    ranges = ((-_ROTATION, _ROTATION),)
    start = (0.0,)
    rest = (0.0,)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        cosine, sine = parameters[:, 0].cos(), parameters[:, 0].sin()
        linear = torch.stack((cosine, -sine, sine, cosine), 1).view(-1, 2, 2)
        return ops.warp_affine(images, F.pad(linear, (0, 1)), self.config.padding_mode)


_ALL = (ColourMatrix, ToneCurve, Elastic, RandomFilter, SoftCutout, Solarize, Translation, Shear, Rotation)
WIDE_PRIMITIVES: dict[str, type[Primitive]] = {primitive.name: primitive for primitive in _ALL}
"""By name."""
