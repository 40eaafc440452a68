"""What the learned augmentation finds on a teacher alone: the widest range of each primitive that it tolerates.

TransInv's augmentation (its eq. 5) weighs how hard an image is for the student against how far the teacher's answer
moves. Without a student only the second is left; the width of the range takes the place of the first. For each
primitive a_i, with P parameters drawn from z ~ N(0, I_M):

    max over phi    ln W_i    subject to    E[KL(T(x) || T(a_i(x, z)))] <= tolerance
    max over p, q   q sum_i p_i W_i + w (H(p) + H(q))

    W_i = exp(1/P sum_j H_j),   H_j the differential entropy of parameter j as a share of its full range

So W = 1 is a parameter spread evenly over its full range, one spread evenly over a tenth has W = 0.1, and a point has
W = 0. Entropy, not distance from rest, is what asks for a *range* (InstaAug, Miao et al., ICML 2023, bounds it too);
correlations between parameters are free. H_j is estimated from spacings (Vasicek, JRSS B 1976) with the edge weights
of Ebrahimi, Pflughoeft and Soofi (Statistics & Probability Letters 1994).

The constraint has a multiplier a primitive, by projected dual ascent, in units of 1/tolerance. With the excess e = KL
/ tolerance - 1, lambda <- max(0, lambda + rate e), and phi pays max(0, lambda + e') for each unit of e, e' the running
mean of e (the quadratic term of an augmented Lagrangian: without it lambda swings, and phi with it). What lambda and
e' take of one turn is at most 1: turns on destroyed images would otherwise charge lambda for hundreds more. Without
H(q) in the second line, q would go to 1 for every teacher.

The gradient of a warp is rugged, and the last turns may leave KL above the tolerance. So at the end the parameters
of such a primitive are drawn in towards rest, a + c (parameter - a), with the largest c in steps of 1/32 (bisection)
that keeps the tolerance. What is reported is drawn with it: a range that is tolerated, if not the widest there is.

This is no `Objective` of the trainer: it has no labels and no student, and the teacher's clean answers are computed
once for all turns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.magnitudes import REST, ParameterRange, describe_parameters
from hf_transinv.augment.primitives import Primitive, PrimitiveConfig
from hf_transinv.augment.selection import Draws, entropy
from hf_transinv.data.transforms import to_float
from hf_transinv.divergences import kl_divergence
from hf_transinv.errors import InputError

_LATENTS = 256  # z drawn a turn for the entropies: the MLPs alone, no image
_LATENTS_AT_END = 4096
_IMAGES_AT_END = 400
_SMALLEST_SPACING = 1e-6  # of the full range; keeps the logarithm finite when a sigmoid is saturated
_MEMORY = 0.9  # of the running mean of the excess, ours


@dataclass
class ToleratedRangeConfig:
    """The widest range of the learned primitives.

    Attributes:
        tolerance: how far the answer may move in the mean, KL in nats.
        range_turns: turns of the augmentation.
        range_batch_size: images a turn, shared among the primitives.
        range_learning_rate: of phi (Adam, cosine to 0).
        selection_learning_rate: of the logits of p and q (Adam).
        dual_learning_rate: what a multiplier gains a turn in which KL is twice the tolerance.
        entropy_bonus: w, weight of the entropies of p and q.
    """

    tolerance: float = 0.1
    range_turns: int = 200
    range_batch_size: int = 60
    range_learning_rate: float = 0.005
    selection_learning_rate: float = 0.05
    dual_learning_rate: float = 0.03
    entropy_bonus: float = 0.2

    def __post_init__(self) -> None:
        positive = ("tolerance", "range_learning_rate", "selection_learning_rate", "dual_learning_rate")
        for name in (*positive, "entropy_bonus"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, given {getattr(self, name)}")
        if self.range_turns < 1 or self.range_batch_size < 8:
            raise InputError("range_turns must be at least 1 and range_batch_size at least 8")


@dataclass(frozen=True)
class RangeFound:
    """What was found of one primitive.

    Attributes:
        primitive: its name.
        p: how often it would be chosen.
        width: W, in [0, 1].
        kl: mean KL reached, in nats.
        share: c, how far the parameters were left outside rest at the end; 1: as learned.
        multiplier: lambda at the end.
        parameters: in physical terms.
    """

    primitive: str
    p: float
    width: float
    kl: float
    share: float
    multiplier: float
    parameters: tuple[ParameterRange, ...]


@dataclass(frozen=True)
class ToleratedRange:
    """What one teacher tolerates: the ranges of all primitives, and q."""

    q: float
    ranges: tuple[RangeFound, ...]


def differential_entropy(samples: Tensor) -> Tensor:
    """Entropy of each column's distribution in nats, from spacings of about sqrt(n): [n, P] -> [P], differentiable."""
    n = len(samples)
    m = max(1, round(math.sqrt(n)))
    ordered = samples.sort(dim=0).values
    index = torch.arange(n, device=samples.device)
    spacing = ordered[(index + m).clamp_max(n - 1)] - ordered[(index - m).clamp_min(0)]
    weight = 1 + torch.minimum(index, n - 1 - index).clamp_max(m) / m
    return (spacing.clamp_min(_SMALLEST_SPACING) * (n / m) / weight.unsqueeze(1)).log().mean(dim=0)


def log_width(primitive: Primitive, z: Tensor) -> Tensor:
    """Ln W: the mean over the parameters of their entropies as shares of their full ranges; about 0 at most."""
    share = (primitive(z) - primitive.low) / (primitive.high - primitive.low)
    return differential_entropy(share).mean()


def find_tolerated_range(
    teacher: nn.Module,
    images: Tensor,
    clean: Tensor,
    config: ToleratedRangeConfig,
    primitive: PrimitiveConfig,
    seed: int,
    on_turn: Callable[[], object] = lambda: None,
) -> ToleratedRange:
    """Learn phi, p and q against one teacher.

    Args:
        teacher: frozen; pixels in [0, 1] -> logits. Gradients pass through it, none reach it.
        images: uint8 [N, 3, H, W], on the teacher's device.
        clean: the teacher's logits of them, [N, C].
        config: tolerance and learning rates.
        primitive: ranges of the primitives, padding.
        seed: of the start and of everything drawn.
        on_turn: called after every turn.
    """
    device, generator = images.device, torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        panel = AugmentationPanel(1, AugmentationConfig(primitive=primitive)).to(device)
    panel.multipliers.requires_grad_(False)
    model = panel.models[0]
    groups = [
        {"params": [x for own in model.primitives for x in own.parameters()], "lr": config.range_learning_rate},
        {"params": [model.logits_p, model.logit_q], "lr": config.selection_learning_rate},
    ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.range_turns)
    running = torch.zeros_like(panel.multipliers[0])
    for _ in range(config.range_turns):
        rows = torch.randint(len(images), (config.range_batch_size,), generator=generator).to(device)
        keep = _kl_of_primitives(teacher, panel, images[rows], clean[rows], _draw(panel, images, rows, generator))
        z = _latents(panel, _LATENTS, generator, device)
        widths = torch.stack([log_width(own, z) for own in model.primitives])
        excess = keep / config.tolerance - 1
        held = excess.detach().clamp_max(1)
        running = torch.lerp(held, running, _MEMORY)
        price = (panel.multipliers[0] + running).clamp_min(0)
        found = (widths - price * excess).sum()
        chosen = model.q * (model.p * widths.detach().exp()).sum()
        choice = entropy(model.p) + entropy(torch.stack([model.q, 1 - model.q]))
        optimizer.zero_grad()
        (-(found + chosen + config.entropy_bonus * choice)).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            panel.multipliers.add_(config.dual_learning_rate * held).clamp_(min=0)
        on_turn()
    return _result(teacher, panel, images, clean, config, generator)


def _latents(panel: AugmentationPanel, number: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(number, panel.config.primitive.latent_dim, generator=generator).to(device)


def _draw(panel: AugmentationPanel, images: Tensor, rows: Tensor, generator: torch.Generator) -> Draws:
    """Every primitive its share of the rows; one share more stays clean and costs no forward pass."""
    return panel.draw_strata((len(rows), *images.shape[1:]), images.device, generator)


def _kl_of_primitives(
    teacher: nn.Module, panel: AugmentationPanel, images: Tensor, clean: Tensor, draws: Draws
) -> Tensor:
    """Mean KL(T(x) || T(a_i(x))) of each primitive: uint8 [B, 3, H, W], logits [B, C] -> [K]."""
    augmented, _ = panel(to_float(images), draws)
    moved = (draws.choice < panel.num_primitives).nonzero().squeeze(1)
    choice, share = draws.choice[moved].to(images.device), draws.share[moved].to(images.device)
    moved = moved.to(images.device)
    inputs = augmented[moved].contiguous(memory_format=torch.channels_last)
    kl = kl_divergence(clean[moved], teacher(inputs))
    return torch.zeros(panel.num_primitives, device=images.device).index_add(0, choice, kl * share)


@torch.no_grad()
def _result(
    teacher: nn.Module,
    panel: AugmentationPanel,
    images: Tensor,
    clean: Tensor,
    config: ToleratedRangeConfig,
    generator: torch.Generator,
) -> ToleratedRange:
    """Measure what was found on fresh images and latents, drawn in where KL is above the tolerance."""
    model, device = panel.models[0], images.device
    rows = torch.randperm(len(images), generator=generator)[:_IMAGES_AT_END].to(device)
    sample, answers = to_float(images[rows]), clean[rows]
    noise = torch.randn(sample.shape, generator=generator).to(device)
    z, many = (_latents(panel, number, generator, device) for number in (len(rows), _LATENTS_AT_END))
    ranges = []
    for index, (name, own) in enumerate(zip(panel.config.primitives, model.primitives, strict=True)):
        rest = torch.tensor(REST[name], device=device)
        drawn = own(z)

        def kl_at(share: float, own: Primitive = own, rest: Tensor = rest, drawn: Tensor = drawn) -> float:
            parts = torch.arange(len(rows), device=device).split(config.range_batch_size)
            total = torch.zeros((), device=device)
            for part in parts:
                deformed = own.apply_to(sample[part], torch.lerp(rest, drawn[part], share), noise[part])
                deformed = deformed.contiguous(memory_format=torch.channels_last)
                total += kl_divergence(answers[part], teacher(deformed)).sum()
            return (total / len(rows)).item()

        share, kl = _largest_share(kl_at, config.tolerance)
        width = min(1.0, share * log_width(own, many).exp().item())
        described = describe_parameters(name, own, torch.lerp(rest, own(many), share))
        p, multiplier = model.p[index].item(), panel.multipliers[0, index].item()
        ranges.append(RangeFound(name, p, width, kl, share, multiplier, described))
    return ToleratedRange(model.q.item(), tuple(ranges))


def _largest_share(kl_at: Callable[[float], float], tolerance: float) -> tuple[float, float]:
    """The largest c of 0, 1/32 ... 1 with kl_at(c) <= tolerance by bisection, and its KL (0 at rest)."""
    kl = kl_at(1.0)
    if kl <= tolerance:
        return 1.0, kl
    kept, kl, step = 0.0, kl_at(0.0), 0.5
    while step >= 1 / 32:
        tried = kl_at(kept + step)
        if tried <= tolerance:
            kept, kl = kept + step, tried
        step /= 2
    return kept, kl
