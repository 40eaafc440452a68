"""Images a second of the learned primitives, and of each fixed policy beside torchvision's transform.

The policies take a batch at once, with every image's own draws, on the device; torchvision's take the same images one
by one on the CPU, as in a data set's `transform`: Pillow's images, or tensors of levels where it takes no others. Ours
draw and apply, and go from floats to floats; theirs are not asked to make tensors of their images.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hf_transinv.augment.policies import POLICIES, CorruptionConfig, Policy, PolicyConfig, build_policies
from hf_transinv.augment.policies.policy import apply_all, draw_all
from hf_transinv.augment.primitive_sets import PRIMITIVES, build_primitive
from hf_transinv.augment.primitives import Primitive, PrimitiveConfig
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.synthetic import picture_levels
from hf_transinv.benchmark.timing import Spread, Work, measure_in_rounds
from hf_transinv.data.transforms import to_float
from hf_transinv.formats.markdown import number, span, table

CPU = torch.device("cpu")
NOTE = """\
Median of the rounds; ratio: batched over image by image, both in the same round. torchvision's do the like, not the
same: other ranges, and RandomErasing hides a square that lies wholly inside."""


@dataclass(frozen=True)
class PrimitiveRow:
    """Images per second of a primitive: the deformation alone, and with the gradient to its parameters."""

    primitive: str
    forward: Spread
    forward_and_backward: Spread


@dataclass(frozen=True)
class PolicyRow:
    """Images per second of a policy.

    Attributes:
        policy: its name.
        batched: median of the rounds.
        transform: torchvision's; None where there is none.
        image_by_image: median of the rounds, of that transform.
        ratio: of the two, round by round.
    """

    policy: str
    batched: float
    transform: str | None = None
    image_by_image: float | None = None
    ratio: Spread | None = None


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """Both tables as Markdown, and their numbers."""
    primitives = measure_primitives(config, accelerator.device)
    policies = measure_policies(config, accelerator)
    text = f"{primitives_markdown(primitives)}\n\n{policies_markdown(policies)}\n\n{NOTE}"
    numbers = {"primitives": [asdict(row) for row in primitives], "policies": [asdict(row) for row in policies]}
    return text, numbers


# Primitives


def measure_primitives(
    config: BenchmarkConfig, device: torch.device, names: Sequence[str] = tuple(PRIMITIVES)
) -> list[PrimitiveRow]:
    """Learned primitives, default: all, in float32, as the panel calls them whatever the mixed precision."""
    generator = torch.Generator().manual_seed(config.seed)
    images = to_float(picture_levels(config.batch_size, config.image_size, config.seed)).to(device)
    options = PrimitiveConfig()
    z = torch.randn(len(images), options.latent_dim, generator=generator).to(device)
    noise = torch.randn(images.shape, generator=generator).to(device)
    works = {}
    for name in names:
        primitive = build_primitive(name, options).to(device)
        for backward in (False, True):
            call = _deformation(primitive, images, z, noise, backward)
            works[f"{name} {backward}"] = Work(call, device)
    seconds = measure_in_rounds(works, config.rounds, config.seconds, "primitives")
    speeds = {name: Spread.of([len(images) / each for each in figures]) for name, figures in seconds.items()}
    return [PrimitiveRow(name, speeds[f"{name} False"], speeds[f"{name} True"]) for name in names]


def _deformation(primitive: Primitive, images: Tensor, z: Tensor, noise: Tensor, backward: bool) -> Callable[[], None]:
    gradient = torch.ones_like(images)

    def deform() -> None:
        with torch.set_grad_enabled(backward):
            deformed = primitive.apply_to(images, primitive(z), noise if primitive.uses_noise else None)
        if backward:
            deformed.backward(gradient)
            primitive.zero_grad(set_to_none=True)

    return deform


def primitives_markdown(rows: Sequence[PrimitiveRow]) -> str:
    """One line per primitive."""
    header = ["primitive, images/s", "forward", "smallest to largest", "forward and backward", "smallest to largest"]
    lines = [[_words(row.primitive), *_speed(row.forward), *_speed(row.forward_and_backward)] for row in rows]
    return table(header, lines)


# Policies


def measure_policies(
    config: BenchmarkConfig, accelerator: Accelerator, names: Sequence[str] = tuple(POLICIES)
) -> list[PolicyRow]:
    """Fixed policies, default: all, and torchvision's transform of the same kind where there is one."""
    device, size = accelerator.device, config.image_size
    levels = picture_levels(config.batch_size, size, config.seed)
    images = to_float(levels).to(device)
    options = replace(PolicyConfig(), corruption_policy=CorruptionConfig(corruption=config.corruptions))
    transforms = torchvision_transforms(options, size)
    works = {}
    for name, policy in zip(names, build_policies(names, options), strict=True):
        generator = torch.Generator().manual_seed(config.seed)
        works[name] = Work(_augmentation(policy, images, generator, accelerator.autocast), device)
        if name in transforms:
            pictures = singly(transforms[name], levels)
            works[f"{name} singly"] = Work(_loop(transforms[name], pictures), CPU)
    seconds = measure_in_rounds(works, config.rounds, config.seconds, "policies")
    return [policy_row(name, seconds, transforms, config.batch_size) for name in names]


def torchvision_transforms(options: PolicyConfig, size: int) -> dict[str, v2.Transform]:
    """Torchvision's transforms by the name of the policy that they are beside, as strong as `options` say.

    Args:
        options: of the policies.
        size: side of the images in pixels.
    """
    jitter, hidden = options.jitter_bias, min(1.0, (options.cutout_size / size) ** 2)
    return {
        "randaugment": v2.RandAugment(options.randaugment_ops, round(options.randaugment_magnitude)),
        "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy(options.autoaugment_policy)),
        "trivialaugment": v2.TrivialAugmentWide(),
        "augmix": v2.AugMix(severity=round(options.augmix_severity)),
        "cutout": v2.RandomErasing(p=1.0, scale=(hidden, hidden), ratio=(1.0, 1.0)),
        "pad_crop": v2.RandomCrop(size, padding=size // 8),
        "grayscale": v2.RandomGrayscale(options.grayscale_probability),
        "color_jitter": v2.ColorJitter(jitter, jitter, jitter),
    }


def singly(transform: v2.Transform, levels: Tensor) -> list[Any]:
    """Images uint8 [B, 3, H, W] one by one, as the transform takes them: Pillow's, or tensors for RandomErasing."""
    if isinstance(transform, v2.RandomErasing):
        return list(levels)
    return [functional.to_pil_image(image) for image in levels]


def _loop(transform: v2.Transform, pictures: Sequence[Any]) -> Callable[[], None]:
    def augment() -> None:
        for picture in pictures:
            transform(picture)

    return augment


def _augmentation(
    policy: Policy, images: Tensor, generator: torch.Generator, autocast: Callable[[], AbstractContextManager]
) -> Callable[[], None]:
    @torch.no_grad()
    def augment() -> None:
        with autocast():
            apply_all((policy,), images, draw_all((policy,), tuple(images.shape), generator))

    return augment


def policy_row(
    name: str, seconds: Mapping[str, Sequence[float]], transforms: Mapping[str, v2.Transform], batch_size: int
) -> PolicyRow:
    """The row of a policy.

    Args:
        name: the policy's.
        seconds: for a batch, by rounds, of the policy under its name and of the transform under "NAME singly".
        transforms: torchvision's, by the policies' names.
        batch_size: images in a batch.
    """
    own = seconds[name]
    batched = batch_size / Spread.of(own).median
    if name not in transforms:
        return PolicyRow(name, batched)
    theirs = seconds[f"{name} singly"]
    ratio = Spread.of([other / mine for mine, other in zip(own, theirs, strict=True)])
    return PolicyRow(name, batched, type(transforms[name]).__name__, batch_size / Spread.of(theirs).median, ratio)


def policies_markdown(rows: Sequence[PolicyRow]) -> str:
    """One line per policy."""
    header = ["policy, images/s", "batched", "torchvision's", "image by image", "ratio", "smallest to largest"]
    lines = []
    for row in rows:
        line = [_words(row.policy), f"{row.batched:,.0f}"]
        if row.ratio is None:
            lines.append([*line, "–", "–", "–", "–"])
            continue
        ratio = number(row.ratio.median), span(row.ratio.low, row.ratio.high)
        lines.append([*line, row.transform or "–", f"{row.image_by_image:,.0f}", *ratio])
    return table(header, lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _speed(speed: Spread) -> tuple[str, str]:
    return f"{speed.median:,.0f}", f"{speed.low:,.0f} to {speed.high:,.0f}"
