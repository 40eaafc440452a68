"""The widest range of each learned primitive that a teacher tolerates, found by the learned augmentation alone.

TransInv's augmentation (its eq. 5) weighs how hard an image is for the student against how much the teacher's answer
changes. Without a student, the width of the range replaces the first. For each primitive a_i, with P parameters that
depend on z ~ N(0, I_M):

    max over phi    ln W_i    subject to    E[KL(T(x) || T(a_i(x, z)))] <= tolerance
    max over p, q   q sum_i p_i W_i + w (H(p) + H(q))

    W_i = exp(1/P sum_j H_j),   H_j the differential entropy of parameter j as a share of its full range

W is 1 for parameters spread evenly over their full ranges, 0.1 for parameters spread evenly over a tenth of them, and
0 for a single point. Entropy, unlike distance from rest, rewards a range (InstaAug, Miao et al., ICML 2023, bounds it
too). Correlations between parameters are neither rewarded nor penalised. H_j is estimated from spacings (Vasicek, JRSS
B 1976) with the edge weights of Ebrahimi, Pflughoeft and Soofi (Statistics & Probability Letters 1994).

The constraint has one multiplier lambda per primitive, in units of 1/tolerance, found by projected dual ascent. With
the excess e = KL / tolerance - 1, lambda <- max(0, lambda + rate e). The cost of each unit of e for phi is
max(0, lambda + e'), with e' the running mean of e. This is the quadratic term of an augmented Lagrangian, without
which lambda and phi oscillate. e counts as at most 1 in lambda and e': a turn on destroyed images would otherwise
raise lambda for hundreds of turns. Without H(q) in the second line, q would go to 1 for every teacher.

The gradient of a warp is rugged, and the last turns may leave KL above the tolerance. So at the end the parameters
of such a primitive are moved towards rest, to rest + c (parameter - rest), with the largest c in steps of 1/32
(bisection) that meets the tolerance. The reported range is the one after this step: tolerated, if perhaps not the
widest.

This is not an `Objective` of the trainer: there are no labels and no student, and the teacher's answers to the clean
images are computed once for all turns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.magnitudes import ParameterRange, describe_parameters
from hf_transinv.augment.primitives import Primitive, PrimitiveConfig
from hf_transinv.augment.selection import Draws, entropy
from hf_transinv.data.transforms import to_float
from hf_transinv.divergences import kl_divergence
from hf_transinv.errors import InputError

_LATENTS = 256  # z drawn per turn for the entropies, which need only the MLPs and no images
_LATENTS_AT_END = 4096
_IMAGES_AT_END = 400
_SMALLEST_SPACING = 1e-6  # of the full range; keeps the logarithm finite when a sigmoid is saturated
_MEMORY = 0.9  # of the running mean of the excess, ours


@dataclass
class ToleratedRangeConfig:
    """The tolerated range of the learned primitives.

    Attributes:
        tolerance: largest mean change of the answer, KL in nats.
        range_turns: turns of the augmentation.
        range_batch_size: images per turn, shared among the primitives.
        range_learning_rate: of phi (Adam, cosine to 0).
        selection_learning_rate: of the logits of p and q (Adam).
        dual_learning_rate: gain of a multiplier in a turn where KL is twice the tolerance.
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
    """The tolerated range of one primitive.

    Attributes:
        primitive: its name.
        p: its probability.
        width: W, in [0, 1].
        kl: mean KL reached, in nats.
        share: c, by which the parameters' distance from rest was multiplied at the end; 1 leaves them as learned.
        multiplier: lambda at the end.
        parameters: in physical units.
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
    """The tolerated ranges of one teacher.

    Attributes:
        q: probability of augmenting at all.
        ranges: one per primitive.
    """

    q: float
    ranges: tuple[RangeFound, ...]


def differential_entropy(samples: Tensor) -> Tensor:
    """The entropy of each column in nats, from spacings of about sqrt(n): [n, P] -> [P], differentiable."""
    n = len(samples)
    m = max(1, round(math.sqrt(n)))
    ordered = samples.sort(dim=0).values
    index = torch.arange(n, device=samples.device)
    spacing = ordered[(index + m).clamp_max(n - 1)] - ordered[(index - m).clamp_min(0)]
    weight = 1 + torch.minimum(index, n - 1 - index).clamp_max(m) / m
    return (spacing.clamp_min(_SMALLEST_SPACING) * (n / m) / weight.unsqueeze(1)).log().mean(dim=0)


def log_width(primitive: Primitive, z: Tensor) -> Tensor:
    """The estimate of ln W from latents z [n, M]: a scalar, at most about 0."""
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
        teacher: frozen; pixels in [0, 1] -> logits. Gradients pass through it to the images.
        images: uint8 [N, 3, H, W], on the teacher's device.
        clean: the teacher's logits of the images, [N, C].
        config: tolerance and learning rates.
        primitive: ranges and padding of the primitives.
        seed: of the initial weights and of all draws.
        on_turn: called after every turn.
    """
    device, generator = images.device, torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        panel = AugmentationPanel(1, AugmentationConfig(primitive=primitive)).to(device)
    panel.multipliers.requires_grad_(False)
    panel.excess.requires_grad_(False)
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
    """Draws for some rows [B]: an equal share for every primitive, and one for clean images, which cost no pass."""
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
    """Measure the ranges on fresh draws of images and latents; shrink those whose KL is above the tolerance."""
    model, device = panel.models[0], images.device
    rows = torch.randperm(len(images), generator=generator)[:_IMAGES_AT_END].to(device)
    sample, answers = to_float(images[rows]), clean[rows]
    noise = torch.randn(sample.shape, generator=generator).to(device)
    z, many = (_latents(panel, number, generator, device) for number in (len(rows), _LATENTS_AT_END))
    ranges = []
    for index, (name, own) in enumerate(zip(panel.config.primitives, model.primitives, strict=True)):
        rest = torch.tensor(own.rest, device=device)
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
    """The largest c of 0, 1/32, ..., 1 with kl_at(c) <= tolerance, by bisection, and its KL."""
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
