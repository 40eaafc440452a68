"""A student between the weights it started from and those it was trained to.

    theta = (1 - alpha) theta_start + alpha theta_end                       (WiSE-FT: Wortsman et al., CVPR 2022)

Symbols: theta, the parameters of the backbone; alpha `TrainConfig.interpolate`. WiSE-FT interpolates the classifier
head as well, between the trained one and a zero-shot one. A head of new classes has nothing to start from, so here it
is the trained one.

The running statistics of BatchNorm at either end say nothing about the network between them. They are estimated anew,
as for stochastic weight averaging (Izmailov et al., UAI 2018): over training images that are neither cropped nor
mirrored, without gradient and without dropout, each batch counting alike. Layers whose statistics the training left as
they were (frozen ones) keep them.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transinv.data.batches import Feed
from hf_transinv.data.transforms import to_float
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.layer_groups import head_parameters
from hf_transinv.models.teacher import Teacher
from hf_transinv.objectives.objective import Objective

CITATION = """@inproceedings{wortsman2022robust,
  title     = {Robust Fine-Tuning of Zero-Shot Models},
  author    = {Wortsman, Mitchell and Ilharco, Gabriel and Kim, Jong Wook and Li, Mike and Kornblith, Simon and
               Roelofs, Rebecca and Gontijo Lopes, Raphael and Hajishirzi, Hannaneh and Farhadi, Ali and
               Namkoong, Hongseok and Schmidt, Ludwig},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2022}
}"""
"""BibTeX of WiSE-FT."""
_MOST_IMAGES = 10_000  # the mean and variance of a channel are known well enough from so many


def keep_start(objective: Objective) -> Objective:
    """Let an objective keep the weights that its student starts from, on the CPU; returns it.

    Raises:
        InputError: the head of the student cannot be told from its backbone.
    """
    student = _student(objective)
    head_parameters(student.network)
    objective.interpolated_from = Teacher(copy.deepcopy(student).cpu(), name="start")
    return objective


@torch.no_grad()
def interpolate(
    objective: Objective,
    alpha: float | None,
    accelerator: Accelerator,
    open_feed: Callable[[], Feed],
    rows: int | None,
) -> None:
    """Put a trained student between its start and its end, in place; nothing happens where the start was not kept.

    Args:
        objective: its training is over, its student whole on every process.
        alpha: share of the trained weights, in (0, 1).
        accelerator: processes and precision. As in training, each process normalises by its own images; the
            statistics are averaged over them.
        open_feed: batches of the training split, from the first one on; called where there is BatchNorm.
        rows: training images; None: not known.
    """
    if objective.interpolated_from is None or alpha is None:
        return
    student, start = _student(objective), objective.interpolated_from.classifier
    student.train()  # timm's networks forget what they computed from their weights in evaluation mode
    pairs = zip(student.network.modules(), start.network.modules(), strict=True)
    layers = [end for end, at in pairs if isinstance(end, _BatchNorm) and _has_moved(end, at)]
    head = head_parameters(student.network)
    for (name, end), at in zip(student.network.named_parameters(), start.network.parameters(), strict=True):
        if name not in head:
            end.copy_(torch.lerp(at.to(end.device), end, alpha))
    if layers:
        feed = open_feed()
        images = _MOST_IMAGES if rows is None else min(rows, _MOST_IMAGES)
        try:
            _estimate(student, layers, accelerator, feed, math.ceil(images / feed.batch_size))
        finally:
            feed.close()


def _student(objective: Objective) -> Classifier:
    return next(iter(objective.students.values()))


def _has_moved(end: nn.Module, start: nn.Module) -> bool:
    """Whether the statistics of a BatchNorm layer are others than at the start."""
    own, others = end.state_dict(), start.state_dict()
    return any(
        name in own and not torch.equal(own[name].cpu(), others[name].cpu())
        for name in ("running_mean", "running_var")
    )


def _estimate(
    student: Classifier, layers: Sequence[_BatchNorm], accelerator: Accelerator, feed: Feed, batches: int
) -> None:
    """The running statistics of layers as the mean of those of so many batches."""
    student.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # each batch counts alike
        layer.train()
    for _ in range(batches):
        images, _ = feed.next_batch()
        assert isinstance(images, torch.Tensor)  # only random crops are taken from whole pictures
        with accelerator.autocast():
            student(to_float(images.to(accelerator.device, non_blocking=True)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
        if accelerator.num_processes > 1:
            _average_over_processes(layer, accelerator.num_processes)


def _average_over_processes(layer: _BatchNorm, processes: int) -> None:
    for statistics in (layer.running_mean, layer.running_var):
        assert statistics is not None  # that they have moved is why the layer is here
        torch.distributed.all_reduce(statistics)
        statistics.div_(processes)
