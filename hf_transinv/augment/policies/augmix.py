"""AugMix's mixture (Hendrycks et al., ICLR 2020): chains of operations, blended with each other and with the image.

    x_augmix = (1 - m) x + m sum_i w_i chain_i(x),   i = 1 .. 3,   w ~ Dirichlet(1, 1, 1),   m ~ Beta(1, 1)

A chain has 1, 2 or 3 of the 9 operations that are not corruptions of CIFAR-C, each at a level l ~ U(0.1, severity):

    rotate by 3 l degrees, shear by 0.03 l, translate by l / 30 of the side, each in either direction;
    solarize levels from 256 - 25.6 l on; posterize to 4 - 0.4 l bits; autocontrast; equalize

Degrees, pixels, thresholds and bits are whole numbers. Every image has its own w and m, and each of its chains its own
operations. The loss, which compares an image with two such mixtures, is in objectives.augmix_consistency.

Symbols: w `weights`, m `share`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hf_transinv.augment.pil_ops import Canvas, apply_sorted, to_levels
from hf_transinv.augment.pil_sorting import Operation, sort_operations
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.errors import InputError

WIDTH, DEPTH = 3, 3
BILINEAR = Canvas("bilinear", (0, 0, 0))
_AT_FULL_LEVEL = {
    Operation.AUTOCONTRAST: 0.0,
    Operation.EQUALIZE: 0.0,
    Operation.POSTERIZE: 4.0,
    Operation.SOLARIZE: 256.0,
    Operation.ROTATE: 30.0,
    Operation.SHEAR_X: 0.3,
    Operation.SHEAR_Y: 0.3,
    Operation.TRANSLATE_X: 1 / 3,
    Operation.TRANSLATE_Y: 1 / 3,
}
"""The change of each operation at level 10, in bits, levels, degrees, pixels per pixel and shares of the side."""
OPERATIONS = tuple(_AT_FULL_LEVEL)


@dataclass(frozen=True)
class AugMixDraws:
    """What was drawn, on the CPU.

    Attributes:
        operation: an `Operation` each, int64 [B, chain, step]; the identity beyond a chain's depth.
        parameter: of each operation, float64 [B, chain, step].
        weights: w, float32 [B, chain].
        share: m, float32 [B].
    """

    operation: Tensor
    parameter: Tensor
    weights: Tensor
    share: Tensor

    def __getitem__(self, rows: slice) -> "AugMixDraws":
        return AugMixDraws(self.operation[rows], self.parameter[rows], self.weights[rows], self.share[rows])


class AugMix(Policy):
    """The mixture, without the loss.

    Args:
        severity: largest level of an operation, above 0.1 and up to 10.
        canvas: how warped images are sampled; by default bilinear and black outside, as the authors'.
    """

    name = "augmix"
    title = "AugMix"
    phrase = "AugMix"
    citation = """@inproceedings{hendrycks2020augmix,
  title     = {{AugMix}: A Simple Data Processing Method to Improve Robustness and Uncertainty},
  author    = {Hendrycks, Dan and Mu, Norman and Cubuk, Ekin D. and Zoph, Barret and Gilmer, Justin and
               Lakshminarayanan, Balaji},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2020}
}"""

    def __init__(self, severity: float = 3, canvas: Canvas = BILINEAR) -> None:
        if not 0.1 < severity <= 10:
            raise InputError(f"AugMix's severity is {severity}: expected more than 0.1 and at most 10")
        self.severity, self.canvas = severity, canvas

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> AugMixDraws:
        """Draw the chains, weights and share of each image."""
        batch_size, (height, width) = shape[0], shape[-2:]
        steps = (batch_size, WIDTH, DEPTH)
        depth = torch.randint(1, DEPTH + 1, (batch_size, WIDTH, 1), generator=generator)
        choice = torch.randint(len(OPERATIONS), steps, generator=generator)
        level = 0.1 + (self.severity - 0.1) * torch.rand(steps, generator=generator, dtype=torch.float64)
        sign = 2 * torch.randint(2, steps, generator=generator) - 1
        operation = torch.tensor(OPERATIONS)[choice]
        parameter = _parameters(operation, choice, level, sign, height, width)
        operation = torch.where(torch.arange(DEPTH) < depth, operation, int(Operation.IDENTITY))
        # Exponential variates divided by their sum are Dirichlet(1, ..., 1).
        weights = torch.empty(batch_size, WIDTH).exponential_(generator=generator)
        share = torch.rand(batch_size, generator=generator)
        return AugMixDraws(operation, parameter, weights / weights.sum(1, keepdim=True), share)

    def __call__(self, images: Tensor, draws: AugMixDraws) -> Tensor:
        """Mix images [b, 3, H, W] in [0, 1] with their chains; the operations see them in 256 levels."""
        operation, parameter = draws.operation.flatten(0, 1), draws.parameter.flatten(0, 1)
        size = (images.shape[-2], images.shape[-1])
        sorted_operations = sort_operations(operation, parameter, self.canvas.fill, size, repeats=WIDTH)
        share = draws.share.unsqueeze(1)
        factors = ((share * draws.weights / 255).unsqueeze(1), 1 - share)
        sorted_operations, sent = sorted_operations.to(images.device, *factors)
        of_chains, of_image = (factor.to(images.dtype) for factor in sent)
        chains = apply_sorted(to_levels(images), sorted_operations, self.canvas.interpolation)
        chains = chains.view(len(images), WIDTH, -1).to(images.dtype)
        own = images.flatten(1) * of_image
        mixed = torch.baddbmm(own.unsqueeze(1), of_chains, chains)
        return mixed.view(images.shape).clamp_(0, 1)

    def apply_variants(self, images: Sequence[Tensor], draws: Sequence[AugMixDraws]) -> list[Tensor]:
        """All variants at once, with the launches of one."""
        if len(draws) == 1:
            return super().apply_variants(images, draws)
        together = AugMixDraws(
            *(torch.cat([getattr(drawn, each.name) for drawn in draws]) for each in fields(AugMixDraws))
        )
        return list(self(torch.cat(list(images)), together).split([len(x) for x in images]))


def _parameters(operation: Tensor, choice: Tensor, level: Tensor, sign: Tensor, height: int, width: int) -> Tensor:
    """The parameter of each operation at its level; bits, thresholds, degrees and pixels are truncated."""
    change = torch.tensor(list(_AT_FULL_LEVEL.values()), dtype=torch.float64)[choice] * level / 10
    change = torch.where(operation == Operation.TRANSLATE_X, change * width, change)
    change = torch.where(operation == Operation.TRANSLATE_Y, change * height, change)
    is_shear = (operation == Operation.SHEAR_X) | (operation == Operation.SHEAR_Y)
    change = torch.where(is_shear, change, change.trunc())
    parameter = torch.where(operation == Operation.POSTERIZE, 4 - change, sign * change)
    return torch.where(operation == Operation.SOLARIZE, 256 - change, parameter)
