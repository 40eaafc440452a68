"""The learned primitives a_phi(x, z): a latent z ~ N(0, I_M) -> an MLP (phi) -> parameters -> an image function.

TransInv, section 4.2, K = 4. The ranges of contrast, brightness, blur and noise are the paper's. It leaves open, and
our choice is:

    geometric range   a field; 0.25 per affine entry, as in TeachAugment
    MLP               z of 32, one hidden layer of 64, a last layer with small weights
    start             noise and blur start weak, so that training does not begin on destroyed images
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.augment import ops
from hf_transinv.augment.kin import NOISES
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.errors import InputError

CITATION = """@inproceedings{kurioka2024transinv,
  title     = {Transferring Teacher's Invariance to Student Through Data Augmentation Optimization},
  author    = {Kurioka, Tamotsu and Suzuki, Teppei and Kawakami, Rei and Sato, Ikuro},
  booktitle = {International Conference on Neural Information Processing (ICONIP)},
  year      = {2024}
}"""


@dataclass
class PrimitiveConfig:
    """What the paper leaves open about the primitives.

    Attributes:
        latent_dim: M, the length of z.
        hidden_dim: width of the MLP's hidden layer.
        init_scale: standard deviation of the last layer's weights; how much the parameters vary with z at the start.
        geometric_range: largest change of an entry of the affine matrix, whose unit is half the image.
        padding_mode: the pixels outside a warped image: "zeros", "border" or "reflection".
        out_of_range: how pixels return to [0, 1]: "clamp" or "fold" (a triangle wave).
    """

    latent_dim: int = 32
    hidden_dim: int = 64
    init_scale: float = 0.1
    geometric_range: float = 0.25
    padding_mode: str = choice("zeros", ("zeros", "border", "reflection"))
    out_of_range: str = choice("clamp", ("clamp", "fold"))

    def __post_init__(self) -> None:
        if min(self.latent_dim, self.hidden_dim) < 1:
            raise InputError(f"latent_dim {self.latent_dim} and hidden_dim {self.hidden_dim} must be at least 1")
        for name in ("init_scale", "geometric_range"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be at least 0 and finite, given {getattr(self, name)}")
        check_choices(self)


class Primitive(nn.Module):
    """One primitive: an MLP (phi) from latents to parameters, and an image function of those parameters.

    Subclasses implement `deform` and set the attributes.

    Args:
        config: the MLP and the geometric range.

    Attributes:
        name: as in `AugmentationConfig.primitives`.
        ranges: (low, high) of each parameter.
        start: each parameter before training, as a logit; 0 is the middle of the range.
        rest: the parameters at which it does nothing.
        uses_noise: whether `deform` needs noise.
        kin: corruptions of the benchmark that it imitates, each with the reason.
        low: lower ends of the ranges, [P].
        high: upper ends, [P].
    """

    name: str
    ranges: tuple[tuple[float, float], ...]
    start: tuple[float, ...]
    rest: tuple[float, ...]
    uses_noise = False
    kin: Mapping[str, str] = {}
    low: Tensor
    high: Tensor

    def __init__(self, config: PrimitiveConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(config.latent_dim, config.hidden_dim)
        self.last = nn.Linear(config.hidden_dim, len(self.start))
        nn.init.normal_(self.last.weight, std=config.init_scale)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor(self.start))
        low, high = torch.tensor(self.bounds()).unbind(1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The (low, high) of each parameter."""
        return self.ranges

    def forward(self, z: Tensor) -> Tensor:
        """Latents z [B, M] -> parameters [B, P], each inside its range."""
        unit = torch.sigmoid(self.last(torch.relu(self.hidden(z))))
        return torch.lerp(self.low, self.high, unit)

    def apply_to(
        self,
        images: Tensor,
        parameters: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Deform images.

        Args:
            images: [B, C, H, W] in [0, 1].
            parameters: [B, P].
            noise: standard normal, [B, C, H, W]; for primitives that use it.
            generator: on the device of the images; for fixed primitives.

        Returns:
            [B, C, H, W] in [0, 1].
        """
        return ops.into_range(self.deform(images, parameters, noise), self.config.out_of_range)

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """The image function itself, before the result is brought back into [0, 1]."""
        raise TypeError(f"{type(self).__name__} defines no deformation")


class ContrastBrightness(Primitive):
    """alpha(z) x + beta(z), alpha in (0.2, 1.8), beta in (-0.5, 0.5)."""

    name = "contrast_brightness"
    ranges = ((0.2, 1.8), (-0.5, 0.5))
    start = (0.0, 0.0)
    rest = (1.0, 0.0)
    kin: Mapping[str, str] = {"brightness": "it is a brightness shift", "contrast": "it is a contrast factor below 1"}

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        alpha, beta = parameters.unbind(1)
        return ops.adjust_contrast_brightness(images, alpha, beta)


class Geometric(Primitive):
    """An affine warp: the identity, plus up to +-geometric_range in each of the six entries."""

    name = "geometric"
    start = (0.0,) * 6
    rest = (0.0,) * 6

    def bounds(self) -> tuple[tuple[float, float], ...]:
        extent = self.config.geometric_range
        return ((-extent, extent),) * 6

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        theta = parameters.view(-1, 2, 3) + ops.identity(images.device, images.dtype)
        return ops.warp_affine(images, theta, self.config.padding_mode)


class GaussianBlur(Primitive):
    """gamma(z) x + (1 - gamma(z)) Conv(x, kappa(z)), gamma in (0, 1), variance of kappa in (0, 1.8).

    The variance is in pixels squared at 32 pixels; on larger images it grows with the square of their side.
    """

    name = "gaussian_blur"
    ranges = ((0.0, 1.0), (0.0, 1.8))
    start = (0.0, -1.0)
    rest = (1.0, 0.0)
    kin: Mapping[str, str] = {"defocus_blur": "it blurs alike in every direction, as Gaussian blur does"}

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        gamma, variance = parameters.unbind(1)
        unit = ops.square_pixel(images)
        return ops.blur_gaussian(images, variance, gamma, ops.blur_radius(self.ranges[1][1] * unit), unit)


class GaussianNoise(Primitive):
    """x + N(0, nu(z)), nu in (0, 0.12), drawn for each pixel and channel."""

    name = "gaussian_noise"
    ranges = ((0.0, 0.12),)
    start = (-2.0,)
    rest = (0.0,)
    uses_noise = True
    kin: Mapping[str, str] = dict.fromkeys(NOISES, "it is noise of each pixel")

    def deform(self, images: Tensor, parameters: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            raise TypeError("gaussian_noise needs noise of the shape of the images")
        return ops.add_gaussian_noise(images, parameters[:, 0], noise)


PAPER_PRIMITIVES: dict[str, type[Primitive]] = {
    primitive.name: primitive for primitive in (ContrastBrightness, Geometric, GaussianBlur, GaussianNoise)
}
"""The primitives of section 4.2, in the paper's order."""
