"""What each primitive of a TransInv augmentation does before anything is learned: the two sides of eq. 5, in nats."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from hf_transinv.augment.learned import AugmentationPanel
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.transforms import to_float
from hf_transinv.divergences import cross_entropy, kl_divergence
from hf_transinv.evaluation.conditions import generator_of
from hf_transinv.evaluation.splits import Split, as_split
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher

if TYPE_CHECKING:
    from accelerate import Accelerator

_BATCH = 500


class Weighed(NamedTuple):
    """What was measured, in nats.

    Attributes:
        clean: mean cross-entropy of the student on the images as they are.
        hard: primitive -> the same on the images that it made.
        keep: for each teacher, primitive -> mean KL(T(x) || T(a(x))).
    """

    clean: float
    hard: dict[str, float]
    keep: list[dict[str, float]]


@torch.inference_mode()
def weigh_primitives(
    student: Classifier,
    teachers: Sequence[Teacher],
    panel: AugmentationPanel,
    split: ResidentSplit | Split,
    accelerator: "Accelerator",
) -> Weighed:
    """How hard each primitive is for a student, and how far it moves teachers.

    Args:
        student: moved to the device and set to eval mode, as the teachers and the panel are.
        teachers: T^1 .. T^L.
        panel: the primitives of its first model are applied.
        split: the same on every process.
        accelerator: shares the batches among its processes and sets the precision.
    """
    device, names, networks = accelerator.device, panel.config.primitives, (student, *teachers)
    for network in (*networks, panel):
        network.to(device).eval()
    sums = torch.zeros(len(networks), len(names), dtype=torch.float64, device=device)
    count, clean_sum = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in as_split(split).batches(_BATCH, accelerator.process_index, accelerator.num_processes):
        images, labels = to_float(batch.images.to(device)), batch.labels.to(device)
        with accelerator.autocast():
            own, *clean = (network(images) for network in networks)
        clean_sum += cross_entropy(own, labels).sum()
        for index, primitive in enumerate(panel.models[0].primitives):
            generator = generator_of(names[index], batch.number)
            z = torch.randn(len(images), panel.config.primitive.latent_dim, generator=generator)
            noise = torch.randn(images.shape, generator=generator).to(device) if primitive.uses_noise else None
            on_device = torch.Generator(device).manual_seed(generator.initial_seed())
            deformed = primitive.apply_to(images, primitive(z.to(device)), noise, on_device)
            with accelerator.autocast():
                hard, *moved = (network(deformed) for network in networks)
            sums[0, index] += cross_entropy(hard, labels).sum()
            for keep, before, after in zip(sums[1:], clean, moved, strict=True):
                keep[index] += kl_divergence(before, after).sum()
        count += len(images)
    count = accelerator.reduce(count)
    means = [dict(zip(names, row, strict=True)) for row in (accelerator.reduce(sums) / count).tolist()]
    return Weighed((accelerator.reduce(clean_sum) / count).item(), means[0], means[1:])
