"""The parameters of the learned primitives in physical units: degrees, percent of a side, pixels squared at 32."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_transinv.augment.fixed_primitives import FixedPrimitive
from hf_transinv.augment.learned import AugmentationPanel
from hf_transinv.augment.primitives import Primitive

QUANTILES = (0.05, 0.5, 0.95)
_MOST_CORNERS = 10  # parameters of which all corners of the range are looked at
_DRAWS = 4096  # the 5 % quantile of a uniform variable is then known to 0.3 % of its range


@dataclass(frozen=True)
class ParameterRange:
    """The distribution of one physical parameter.

    Attributes:
        name: in words.
        unit: "" for a parameter without a unit.
        low: smallest value that the primitive can produce.
        high: largest value that it can produce.
        rest: the value that changes nothing.
        quantiles: of the drawn values, at 5, 50 and 95 %.
    """

    name: str
    unit: str
    low: float
    high: float
    rest: float
    quantiles: tuple[float, float, float]


def _affine(parameters: Tensor) -> list[Tensor]:
    """Rotation (degrees), zoom, aspect, shear and shift (% of a side) of affine entries [n, 6] added to the identity.

    The matrix maps output to input coordinates: the content grows by the inverse of its scale and moves against its
    shift. Its linear part is rotation x [[s_x, k], [0, s_y]].
    """
    a, b, x, c, d, y = parameters.unbind(1)
    a, d = a + 1, d + 1
    # Ranges of 0.5 and more include maps that collapse or mirror the image. The clamp limits their zoom to 10.
    scale_x, determinant = torch.hypot(a, c).clamp_min(0.1), (a * d - b * c).clamp_min(0.01)
    shear = (a * b + c * d) / scale_x.square()
    aspect = determinant / scale_x.square()
    return [torch.atan2(c, a).rad2deg(), determinant.rsqrt(), aspect, shear, -50 * x, -50 * y]


_AFFINE_NAMES = (
    ("rotation", "°", 0.0),
    ("zoom", "×", 1.0),
    ("width : height", "", 1.0),
    ("shear", "", 0.0),
    ("shift to the right", "%", 0.0),
    ("shift down", "%", 0.0),
)

_PHYSICAL: dict[str, tuple[tuple[tuple[str, str, float], ...], Callable[[Tensor], list[Tensor]]]] = {
    "contrast_brightness": (
        (("contrast factor", "×", 1.0), ("brightness shift", "", 0.0)),
        lambda values: list(values.unbind(1)),
    ),
    "geometric": (_AFFINE_NAMES, _affine),
    "gaussian_blur": (
        (("blur variance at 32 px", "px²", 0.0), ("share of the sharp image", "", 1.0)),
        lambda values: [values[:, 1], values[:, 0]],
    ),
    "gaussian_noise": ((("noise variance", "", 0.0),), lambda values: [values[:, 0]]),
    "colour_matrix": ((("weight of another channel", "", 0.0),), lambda values: [values.abs().amax(1)]),
    "tone_curve": (
        (("steepest slope", "×", 1.0), ("flattest slope", "×", 1.0)),
        lambda values: [6 * torch.softmax(values, 1).amax(1), 6 * torch.softmax(values, 1).amin(1)],
    ),
    "elastic": ((("displacement", "%", 0.0),), lambda values: [50 * values.abs().amax(1)]),
    "random_filter": (
        (("sum of the taps' magnitudes", "", 0.0),),
        lambda values: [(values - values.mean(1, keepdim=True)).abs().sum(1)],
    ),
    "soft_cutout": (
        (("side of the square", "%", 10.0), ("opacity", "", 0.0)),
        lambda values: [100 * values[:, 2], values[:, 3]],
    ),
    "solarize": (
        (("threshold", "", 1.0), ("share that is inverted", "", 0.0)),
        lambda values: list(values.unbind(1)),
    ),
    "translation": (
        (("shift to the right", "%", 0.0), ("shift down", "%", 0.0)),
        lambda values: [-50 * values[:, 0], -50 * values[:, 1]],
    ),
    "shear": ((("shear of rows", "", 0.0), ("shear of columns", "", 0.0)), lambda values: list(values.unbind(1))),
    "rotation": ((("rotation", "°", 0.0),), lambda values: [values[:, 0].rad2deg()]),
}


def describe_parameters(name: str, primitive: Primitive, drawn: Tensor) -> tuple[ParameterRange, ...]:
    """The drawn parameters of a primitive in physical units.

    Args:
        name: of the primitive, of `PRIMITIVES`.
        primitive: whose ranges are described; the corners of its ranges give `low` and `high`.
        drawn: parameters, [n, P].
    """
    names, convert = _PHYSICAL[name]
    ends = torch.stack([primitive.low, primitive.high])
    if drawn.shape[1] <= _MOST_CORNERS:
        corners = torch.cartesian_prod(*ends.T).view(-1, drawn.shape[1])
    else:  # a sample of them
        which = torch.randint(2, (_DRAWS, drawn.shape[1]), generator=torch.Generator().manual_seed(0))
        corners = ends.gather(0, which.to(ends.device))
    corners = torch.cat((corners, corners.new_tensor([primitive.rest])))
    levels = torch.tensor(QUANTILES, device=drawn.device)
    described = []
    for (label, unit, rest), values, reach in zip(names, convert(drawn), convert(corners), strict=True):
        quantiles = tuple(torch.quantile(values, levels).tolist())
        described.append(ParameterRange(label, unit, reach.min().item(), reach.max().item(), rest, quantiles))
    return tuple(described)


@torch.no_grad()
def describe_magnitudes(panel: AugmentationPanel, seed: int) -> list[dict[str, Any]]:
    """For each model, primitive -> its parameters in physical terms, over latents drawn with the seed."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(_DRAWS, panel.config.primitive.latent_dim, generator=generator)
    latents = latents.to(panel.logits_r.device)
    return [
        {
            name: [asdict(found) for found in describe_parameters(name, primitive, primitive(latents))]
            for name, primitive in zip(panel.config.primitives, model.primitives, strict=True)
            if not isinstance(primitive, FixedPrimitive)
        }
        for model in panel.models
    ]
