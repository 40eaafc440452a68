"""PRIME: mixtures of three families of random transformations (Modas et al., ECCV 2022).

    x_prime = (1 - m) x + m sum_i w_i chain_i(x),   i = 1 .. 3,   w ~ Dirichlet(1, 1, 1),   m ~ Beta(1, 1)

A chain is 1, 2 or 3 transformations, each of a family drawn anew. Every family has the most entropy for its strength
and its smoothness: coefficients are normal, up to a cut-off (section 3).

    spatial   x(u - v(u)), u in [0, 1]^2;  v_1(u) = sum c_ij sin(pi i u_1) sin(pi j u_2), i^2 + j^2 <= (K + 1/2)^2,
              c_ij ~ N(0, T / (i^2 + j^2)), and v_2 likewise;  K ~ U{2 .. 20};  T ~ U(T_1, T_2)
    spectral  (delta + k) * x,  k of 3 x 3 pixels, each ~ N(0, s^2), the same for all colours;  s ~ U(0, 4)
    colour    x + sum of b_n sin(pi n x), n = a .. min(a + 19, K),  b_n ~ N(0, t) for each colour by itself;
              K ~ U{1 .. 100}, a ~ U{1 .. K};  t ~ U(0, 0.05)

T_1 = 1 / (pi side^2 ln K) moves the centre by half a pixel, T_2 = 4 / (pi^3 K^2 ln K) is the largest at which the
warp stays a diffeomorphism; T is T_1 where that is larger. Results are clipped to [0, 1]. u spans the picture from
corner to corner, so v is in units of the picture, and so are the values of colours; a filter is in pixels. Strengths
are the authors' for ImageNet.

Departures. The cut-off of the spatial family is 20 for any size, where the authors go up to 500: beyond, at 32 px, T_1
is larger than T_2, and at any size the displacements are small. That of colour is theirs for CIFAR; for ImageNet it is
500, and the 256 levels of a picture do not resolve such waves. T and K of warps are uniform, and so is s; the authors'
code draws T and K from Beta distributions, and all strengths once for a batch, where here each image has its own. That
code centres delta one pixel off, which shifts each filtered image; here it is in the centre.

Symbols: w `weights`, m `share`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.deal import inverse, sort_into_groups
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.data.transfer import send_all

WIDTH, DEPTH = 3, 3
SPATIAL, SPECTRAL, COLOUR, NOTHING = range(4)
"""The families; nothing beyond a chain's depth."""
_SPATIAL_CUT, _FILTER_SIDE, _FILTER_SIZE, _COLOUR_CUT, _BAND, _COLOUR_VARIANCE = 20, 3, 4.0, 100, 20, 0.05


@dataclass(frozen=True)
class PrimeDraws:
    """What was drawn, on the CPU.

    Attributes:
        family: of each transformation, int64 [B, chain, step].
        fields: c of those that are spatial, along x and along y, by the frequencies along y and along x, float32
            [n, 2, 20, 20].
        field_row: row of a transformation in `fields`, -1 for another family, int64 [B, chain, step].
        kernels: delta + k, float32 [B, chain, step, 3, 3].
        frequency: a, float32 [B, chain, step].
        coefficients: b of a, a + 1, ..., 0 beyond K, float32 [B, chain, step, 3, 20].
        weights: w, float32 [B, chain].
        share: m, float32 [B].
    """

    family: Tensor
    fields: Tensor
    field_row: Tensor
    kernels: Tensor
    frequency: Tensor
    coefficients: Tensor
    weights: Tensor
    share: Tensor

    def __getitem__(self, rows: slice) -> "PrimeDraws":
        return PrimeDraws(
            self.family[rows],
            self.fields,
            self.field_row[rows],
            self.kernels[rows],
            self.frequency[rows],
            self.coefficients[rows],
            self.weights[rows],
            self.share[rows],
        )


class Prime(Policy):
    """The mixture, without the consistency loss that the paper adds in some of its runs (`AugMixConsistency`)."""

    name = "prime"
    title = "PRIME"
    phrase = "PRIME"
    citation = """@inproceedings{modas2022prime,
  title     = {{PRIME}: A Few Primitives Can Boost Robustness to Common Corruptions},
  author    = {Modas, Apostolos and Rade, Rahul and Ortiz-Jim{\\'e}nez, Guillermo and
               Moosavi-Dezfooli, Seyed-Mohsen and Frossard, Pascal},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2022}
}"""

    @property
    def kin(self) -> Mapping[str, str]:
        """Motion and zoom blur are not among it: they reach farther than three pixels. Nor is noise: none is drawn."""
        return {
            "elastic_transform": "the spatial family of PRIME warps images smoothly at random",
            "defocus_blur": "the random filters of PRIME include those that smooth",
            "brightness": "the random curves of colour of PRIME include those that make images brighter and darker",
            "contrast": "the random curves of colour of PRIME include those that lower and raise contrast",
        }

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> PrimeDraws:
        """Draw the chains, weights and share of each image."""
        steps = (shape[0], WIDTH, DEPTH)
        depth = torch.randint(1, DEPTH + 1, (*steps[:2], 1), generator=generator)
        family = torch.randint(NOTHING, steps, generator=generator)
        family = torch.where(torch.arange(DEPTH) < depth, family, NOTHING)
        is_spatial = family == SPATIAL
        fields = _draw_fields(int(is_spatial.sum()), max(shape[-2:]), generator)
        field_row = torch.where(is_spatial, is_spatial.flatten().cumsum(0).view(steps) - 1, -1)
        kernels = torch.randn(*steps, _FILTER_SIDE, _FILTER_SIDE, generator=generator)
        kernels *= _FILTER_SIZE * torch.rand(*steps, 1, 1, generator=generator)
        kernels[..., _FILTER_SIDE // 2, _FILTER_SIDE // 2] += 1
        cut = torch.randint(1, _COLOUR_CUT + 1, steps, generator=generator)
        first = 1 + (torch.rand(steps, generator=generator, dtype=torch.float64) * cut).long()
        variance = _COLOUR_VARIANCE * torch.rand(*steps, 1, 1, generator=generator)
        coefficients = variance.sqrt() * torch.randn(*steps, 3, _BAND, generator=generator)
        coefficients *= (first.unsqueeze(-1) + torch.arange(_BAND) <= cut.unsqueeze(-1)).unsqueeze(-2)
        # Exponential variates divided by their sum are Dirichlet(1, ..., 1).
        weights = torch.empty(steps[:2]).exponential_(generator=generator)
        weights /= weights.sum(1, keepdim=True)
        share = torch.rand(shape[0], generator=generator)
        return PrimeDraws(family, fields, field_row, kernels, first.float(), coefficients, weights, share)

    def __call__(self, images: Tensor, draws: PrimeDraws) -> Tensor:
        """Mix images [b, 3, H, W] in [0, 1] with their chains."""
        by_row = [x.flatten(0, 1) for x in (draws.family, draws.field_row, draws.kernels)]
        family, field_row, kernels = by_row
        frequency, coefficients = draws.frequency.flatten(0, 1), draws.coefficients.flatten(0, 1)
        place = torch.arange(len(family))  # number of the chain in each row
        orders, groups, numbers = [], [], []
        for step in range(DEPTH):
            order, rows = sort_into_groups(family[place, step], NOTHING + 1)
            place = place[order]
            spatial, spectral, colour = (place[own] for own in rows[:NOTHING])
            orders.append(order)
            groups.append(rows)
            numbers += [draws.fields[field_row[spatial, step]], kernels[spectral, step]]
            numbers += [frequency[colour, step], coefficients[colour, step]]
        orders[0] = orders[0] // WIDTH
        share = draws.share.unsqueeze(1)
        factors = ((share * draws.weights).unsqueeze(1), 1 - share)
        sent = send_all([torch.stack(orders), inverse(place), *factors, *numbers], images.device)
        order, back, of_chains, of_image = sent[:4]
        chains = images.contiguous()
        for step, rows in enumerate(groups):
            chains = chains.index_select(0, order[step])
            fields, filters, first, curves = sent[4 + 4 * step : 8 + 4 * step]
            for family_of, change, drawn in (
                (SPATIAL, warp, (fields,)),
                (SPECTRAL, convolve, (filters,)),
                (COLOUR, bend_colours, (first, curves)),
            ):
                own = rows[family_of]
                if own.start < own.stop:
                    chains[own] = change(chains[own], *(x.to(images.dtype) for x in drawn))
        chains = chains.index_select(0, back).view(len(images), WIDTH, -1)
        own_share, of_chains = of_image.to(images.dtype), of_chains.to(images.dtype)
        mixed = torch.baddbmm((images.flatten(1) * own_share).unsqueeze(1), of_chains, chains)
        return mixed.view(images.shape).clamp_(0, 1)


def warp(images: Tensor, fields: Tensor) -> Tensor:
    """The spatial family: images [n, 3, H, W], coefficients [n, 2, K, K] as in `PrimeDraws`; outside is the border."""
    y, x = (torch.linspace(0, 1, side, device=images.device, dtype=images.dtype) for side in images.shape[-2:])
    frequencies = math.pi * torch.arange(1, fields.shape[-1] + 1, device=images.device, dtype=images.dtype)
    rows, columns = (torch.sin(at.unsqueeze(1) * frequencies) for at in (y, x))
    moved = rows @ fields @ columns.T  # [n, 2, H, W]
    grid = torch.stack((x - moved[:, 0], y.unsqueeze(1) - moved[:, 1]), -1)
    return F.grid_sample(images, 2 * grid - 1, mode="bilinear", padding_mode="border", align_corners=True)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """The spectral family: images [n, 3, H, W], kernels [n, 3, 3]; black outside, clipped to [0, 1]."""
    weights = kernels.unsqueeze(1).repeat_interleave(images.shape[1], 0)
    flat = images.reshape(1, -1, *images.shape[-2:])
    return F.conv2d(flat, weights, padding="same", groups=len(weights)).view(images.shape).clamp_(0, 1)


def bend_colours(images: Tensor, frequency: Tensor, coefficients: Tensor) -> Tensor:
    """The family of colour: images [n, 3, H, W], a [n] and b [n, 3, 20]; clipped to [0, 1]."""
    angle = images * math.pi
    phase = angle * frequency.view(-1, 1, 1, 1)
    bent, wave = images.clone(), torch.empty_like(images)
    for factor in coefficients.unsqueeze(-1).unsqueeze(-1).unbind(2):
        torch.sin(phase, out=wave)
        bent.addcmul_(wave, factor)
        phase += angle
    return bent.clamp_(0, 1)


def _draw_fields(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Coefficients c of so many warps of images whose longer side has so many pixels: [count, 2, 20, 20]."""
    cut = torch.randint(2, _SPATIAL_CUT + 1, (count,), generator=generator)
    log = cut.double().log()
    least = 1 / (math.pi * side**2 * log)
    most = torch.maximum(least, 4 / (math.pi**3 * cut**2 * log))
    temperature = least + (most - least) * torch.rand(count, generator=generator, dtype=torch.float64)
    frequencies = torch.arange(1, _SPATIAL_CUT + 1)
    radius = (frequencies.unsqueeze(1) ** 2 + frequencies**2).sqrt()
    size = temperature.sqrt().view(-1, 1, 1, 1) / radius * (radius <= cut.view(-1, 1, 1, 1) + 0.5)
    return size.float() * torch.randn(count, 2, _SPATIAL_CUT, _SPATIAL_CUT, generator=generator)
