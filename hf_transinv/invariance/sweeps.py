"""What a classifier is invariant to: the change of its answers to unlabelled images under growing deformations.

For a frozen model T, images x and a change a of strength s:

    KL(s)         mean of KL(T(x) || T(a_s(x))), in nats
    agreement(s)  share of the images whose most probable class is unchanged

A sweep is one change at growing strength: one physical quantity of the learned primitives, with all others at rest, or
one corruption of CIFAR-C. All models see the same changed images.

    tolerated up to   the strength where agreement first falls below 95 %, linear between measured strengths, 1 at rest
    mean agreement    corruptions: over the severities; primitives: over the strengths, by the trapezoidal rule from
                      rest on, so that it does not depend on how densely they are measured
    score             ln((K + 1/2) / (M + 1/2)), with K answers kept and M changed: log-odds of the mean agreement
    beyond a reference    score - score of the reference model, a log odds ratio

Models are ranked by the score, because the alternatives fail at one end or the other. The 95 % point does not exist
for a model that never falls so low, and says little where severity 1 is already too much. The difference of agreements
shrinks where both models tolerate a change well, although a point is worth more there: if 4 % of the answers change,
it is a quarter of them. The ratio of changed answers (as in the mean flip rate of Hendrycks and Dietterich, ICLR 2019)
has the same problem at the other end. Log-odds treat both ends alike. The halves (Haldane and Anscombe's) keep them
finite when no answer changes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.augment import ops
from hf_transinv.augment.corruptions import check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.data.transforms import to_float
from hf_transinv.divergences import kl_divergence
from hf_transinv.evaluation.conditions import Condition, generator_of

LEVEL = 0.95
"""The agreement below which a strength is no longer tolerated."""

Deform = Callable[[Tensor, float, torch.Generator], Tensor]
_Entries = tuple[Tensor | float, ...]  # of theta, row by row


@dataclass(frozen=True)
class Sweep:
    """One change at growing strength.

    Attributes:
        name: key of the results; for a corruption its name.
        title: for display.
        unit: of the strengths; "" for none.
        is_corruption: whether it is a corruption of CIFAR-C, at severities 1 to 5.
        rest: the strength that changes nothing.
        strengths: in order, away from rest; they may descend.
        description: of the change.
        deform: (images [B, 3, H, W] in [0, 1], strength, CPU generator) -> changed images, before the clamp to [0, 1];
            None for a corruption.
    """

    name: str
    title: str
    unit: str
    is_corruption: bool
    rest: float
    strengths: tuple[float, ...]
    description: str
    deform: Deform | None = None

    def apply(self, images: Tensor, strength: float, seed: int, batch_index: int) -> Tensor:
        """Change images [B, 3, H, W] in [0, 1].

        Only the seed and the batch number determine the random numbers, so that directions and noise patterns stay the
        same as the strength grows.
        """
        if self.deform is None:
            return Condition(self.name, int(strength)).apply(images, seed, batch_index)
        return ops.into_range(self.deform(images, strength, generator_of(seed, self.name, batch_index)))


@dataclass(frozen=True)
class Curve:
    """The answers of one model along one sweep.

    Attributes:
        kl: mean KL divergence at each strength, in nats.
        agreement: share of unchanged top-1 at each strength.
        tolerated_up_to: the strength at which agreement falls below 95 %; None if it never does within the range.
        mean_agreement: over the range.
        score: log-odds of the mean agreement.
        kept: the share of the range over which each image keeps its class, [N]; its mean is the mean agreement.
    """

    kl: tuple[float, ...]
    agreement: tuple[float, ...]
    tolerated_up_to: float | None
    mean_agreement: float
    score: float
    kept: tuple[float, ...]


def _each(images: Tensor, value: float) -> Tensor:
    return images.new_full((len(images),), value)


def _signs(images: Tensor, generator: torch.Generator) -> Tensor:
    """+1 or -1 for each image, [B]."""
    return (torch.randint(2, (len(images),), generator=generator) * 2.0 - 1).to(images)


def _contrast(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return ops.adjust_contrast_brightness(images, _each(images, strength), _each(images, 0.0))


def _brightness(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return ops.adjust_contrast_brightness(images, _each(images, 1.0), _each(images, strength))


def _blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    unit = ops.square_pixel(images)
    nothing, radius = _each(images, 0.0), ops.blur_radius(strength * unit)
    return ops.blur_gaussian(images, _each(images, strength), nothing, radius, unit)


def _noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator).to(images)
    return ops.add_gaussian_noise(images, _each(images, strength), noise)


def _affine(padding_mode: str, entries: Callable[[Tensor, float, torch.Generator], _Entries]) -> Deform:
    """A warp whose six entries of theta, numbers or [B], are a function of (images, strength, generator)."""

    def deform(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        values = entries(images, strength, generator)
        columns = [value if isinstance(value, Tensor) else _each(images, value) for value in values]
        return ops.warp_affine(images, torch.stack(columns, dim=1).view(-1, 2, 3), padding_mode)

    return deform


def _rotation(images: Tensor, strength: float, generator: torch.Generator) -> _Entries:
    angle = math.radians(strength) * _signs(images, generator)
    return angle.cos(), -angle.sin(), 0.0, angle.sin(), angle.cos(), 0.0


def _shift(images: Tensor, strength: float, generator: torch.Generator) -> _Entries:
    direction = (2 * math.pi * torch.rand(len(images), generator=generator)).to(images)
    entry = 2 * strength / 100  # theta's unit is half the image
    return 1.0, 0.0, entry * direction.cos(), 0.0, 1.0, entry * direction.sin()


def _zoom(images: Tensor, strength: float, generator: torch.Generator) -> _Entries:
    return 1 / strength, 0.0, 0.0, 0.0, 1 / strength, 0.0


def _shear(images: Tensor, strength: float, generator: torch.Generator) -> _Entries:
    return 1.0, strength * _signs(images, generator), 0.0, 0.0, 1.0, 0.0


def primitive_sweeps(padding_mode: str = "zeros") -> tuple[Sweep, ...]:
    """Sweeps of one physical quantity of the learned primitives each.

    The ranges of contrast, brightness, blur and noise are those of the primitives.

    Args:
        padding_mode: the pixels outside a warped image: "zeros", "border" or "reflection".
    """

    def sweep(
        name: str, title: str, unit: str, rest: float, strengths: tuple[float, ...], description: str, deform: Deform
    ) -> Sweep:
        return Sweep(name, title, unit, False, rest, strengths, description, deform)

    scaled, added, of_range = "pixels times the factor", "added to every pixel", "of the range"
    enlarged = "about the centre; 2 is twice as large"
    rotation, shift, zoom, shear = (_affine(padding_mode, entries) for entries in (_rotation, _shift, _zoom, _shear))
    return (
        sweep("contrast_lower", "lower contrast", "×", 1, (0.8, 0.6, 0.5, 0.4, 0.3, 0.2), scaled, _contrast),
        sweep("contrast_higher", "higher contrast", "×", 1, (1.2, 1.4, 1.6, 1.8), scaled, _contrast),
        sweep("darker", "darkening", of_range, 0, (-0.1, -0.2, -0.3, -0.4, -0.5), added, _brightness),
        sweep("brighter", "brightening", of_range, 0, (0.1, 0.2, 0.3, 0.4, 0.5), added, _brightness),
        sweep("rotation", "rotation", "°", 0, (5, 10, 15, 20, 30, 45), "left or right at random", rotation),
        sweep("shift", "shift", "%", 0, (3, 6, 10, 15, 20, 30), "of the side, in a random direction", shift),
        sweep("zoom_out", "zooming out", "×", 1, (0.9, 0.8, 0.7, 0.6, 0.5), enlarged, zoom),
        sweep("zoom_in", "zooming in", "×", 1, (1.1, 1.25, 1.5, 1.75, 2.0), enlarged, zoom),
        sweep("shear", "shear", "px per row", 0, (0.1, 0.2, 0.3, 0.4, 0.5), "sideways, left or right", shear),
        sweep("blur", "Gaussian blur", "px²", 0, (0.3, 0.6, 0.9, 1.2, 1.5, 1.8), "variance at 32 px", _blur),
        sweep("noise", "Gaussian noise", "variance", 0, (0.001, 0.004, 0.01, 0.02, 0.04, 0.08, 0.12), "added", _noise),
    )


def corruption_sweeps(names: Sequence[str]) -> tuple[Sweep, ...]:
    """Sweeps of corruptions over their five severities.

    Raises:
        InputError: a name is unknown.
    """
    for name in names:
        check_corruption(name)
    described = "of CIFAR-C up to 64 px, of ImageNet-C above"
    severities = tuple(map(float, SEVERITIES))
    return tuple(Sweep(name, name.replace("_", " "), "", True, 0, severities, described) for name in names)


def crossing(
    rest: float, strengths: Sequence[float], agreement: Sequence[float], level: float = LEVEL
) -> float | None:
    """Where agreement, 1 at rest and linear between strengths, first falls below `level`; None if it never does."""
    before, kept = rest, 1.0
    for strength, value in zip(strengths, agreement, strict=True):
        if value < level:
            return before + (strength - before) * (kept - level) / (kept - value)
        before, kept = strength, value
    return None


def mean_agreement(sweep: Sweep, agreement: Sequence[float]) -> float:
    """The mean over the severities, or over a primitive's range by the trapezoidal rule, with 1 at rest."""
    if sweep.is_corruption:
        return sum(agreement) / len(agreement)
    places, values = (sweep.rest, *sweep.strengths), (1.0, *agreement)
    steps = range(len(agreement))
    area = sum(abs(places[k + 1] - places[k]) * (values[k + 1] + values[k]) / 2 for k in steps)
    return area / abs(places[-1] - places[0])


def log_odds(share: float, number: int) -> float:
    """The log-odds ln((share number + 1/2) / ((1 - share) number + 1/2)) of a share of `number` answers."""
    return math.log((share * number + 0.5) / ((1 - share) * number + 0.5))


def summarise(sweep: Sweep, kl: Sequence[float], kept: Tensor) -> Curve:
    """The curve with the KL at each strength of a sweep, and the images that keep their class, bool [strengths, N]."""
    agreement = (kept.sum(1, dtype=torch.float64) / kept.shape[1]).tolist()
    mean = mean_agreement(sweep, agreement)
    score = log_odds(mean, kept.shape[1] * len(sweep.strengths))
    tolerated = crossing(sweep.rest, sweep.strengths, agreement)
    # The mean is linear in the agreements: the same weights give each image's own.
    at_rest, *one_kept = (mean_agreement(sweep, row) for row in [[0.0] * len(kept), *torch.eye(len(kept)).tolist()])
    shares = at_rest + (torch.tensor(one_kept, dtype=torch.float64) - at_rest) @ kept.double()
    return Curve(tuple(kl), tuple(agreement), tolerated, mean, score, tuple(shares.tolist()))


@torch.no_grad()
def clean_answers(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The model's logits of the unchanged images, uint8 [N, 3, H, W] -> [N, C]."""
    parts = (to_float(part).contiguous(memory_format=torch.channels_last) for part in images.split(batch_size))
    return torch.cat([model(part) for part in parts])


@torch.no_grad()
def measure_sweep(
    models: Sequence[nn.Module],
    clean: Sequence[Tensor],
    images: Tensor,
    sweep: Sweep,
    seed: int,
    batch_size: int = 250,
    on_strength: Callable[[], object] = lambda: None,
) -> list[Curve]:
    """Measure all models along one sweep.

    Args:
        models: frozen; pixels in [0, 1] -> logits.
        clean: each model's logits of the unchanged images, [N, C].
        images: uint8 [N, 3, H, W], on the models' device.
        sweep: applied to the images.
        seed: of directions and noise.
        batch_size: images per batch. The draws depend on it.
        on_strength: called after every strength.

    Returns:
        One curve per model.
    """
    sums = torch.zeros(len(models), len(sweep.strengths), dtype=torch.float64, device=images.device)
    kept = torch.zeros(len(models), len(sweep.strengths), len(images), dtype=torch.bool, device=images.device)
    for place, strength in enumerate(sweep.strengths):
        for index, part in enumerate(images.split(batch_size)):
            rows = slice(index * batch_size, index * batch_size + len(part))
            changed = sweep.apply(to_float(part), strength, seed, index)
            changed = changed.contiguous(memory_format=torch.channels_last)
            for kl, same, model, answers in zip(sums, kept, models, clean, strict=True):
                logits = model(changed)
                kl[place] += kl_divergence(answers[rows], logits).sum()
                same[place, rows] = logits.argmax(1) == answers[rows].argmax(1)
        on_strength()
    means = (sums / len(images)).tolist()
    return [summarise(sweep, kl, same) for kl, same in zip(means, kept.cpu(), strict=True)]


def beyond(curves: dict[str, Curve], reference: dict[str, Curve] | None) -> dict[str, float]:
    """The score of each sweep, less that of the reference model if there is one."""
    return {name: curve.score - (reference[name].score if reference else 0.0) for name, curve in curves.items()}


def ranking(scores: dict[str, float], sweeps: Sequence[Sweep], corruptions: bool) -> list[str]:
    """The names of the corruptions, or else of the primitives' sweeps, the best tolerated first."""
    names = [sweep.name for sweep in sweeps if sweep.is_corruption == corruptions]
    return sorted(names, key=lambda name: -scores[name])
