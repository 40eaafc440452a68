"""A part of the student that stays as it was loaded: no gradients, and BatchNorm answers with its running statistics.

The layers are frozen in place, as `timm.utils.freeze` does. Their BatchNorm keeps its class and its state, other than
there, so that checkpoints and exports have the names of the network; it is put into evaluation mode in each turn.

A part may also be held for some turns only: LP-FT (Kumar et al., ICLR 2022) trains the classifier head alone first, so
that a head that knows nothing does not distort the features, and then everything. In the paper these are two trainings
one after the other, each with a learning rate of its own; here they are one run with one schedule, which the switch
does not interrupt.
"""

import contextlib
import math
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.layer_groups import head_parameters, layer_groups

LP_FT = """@inproceedings{kumar2022finetuning,
  title     = {Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution},
  author    = {Kumar, Ananya and Raghunathan, Aditi and Jones, Robbie and Ma, Tengyu and Liang, Percy},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2022}
}"""
"""BibTeX of the method."""


def freeze(network: nn.Module, part: int | str) -> list[nn.Module]:
    """Freeze a part of a student, in place, before its optimizer is built.

    Args:
        network: the student.
        part: as `TrainConfig.freeze`: "all" but the head, or the number of groups from the stem on.

    Returns:
        The BatchNorm layers in it; the caller holds them in evaluation mode.

    Raises:
        InputError: the network is no Classifier, its layers are not known, or nothing but the head would be left.
    """
    parameters, layers = part_of(network, part, "freeze")
    for parameter in parameters:
        parameter.requires_grad_(False)
    return layers


class LinearProbe:
    """The first steps of a student, in which its classifier head alone trains.

    Args:
        network: the student, what else is frozen of it already frozen.
        share: of the steps, as `TrainConfig.linear_probe_share`.
        max_steps: student steps in all that the run was started with.

    Attributes:
        steps: how many there are.

    Raises:
        InputError: the network is no Classifier, its head is not known, or there are too few steps for both.
    """

    def __init__(self, network: nn.Module, share: float, max_steps: int) -> None:
        self.steps = probe_steps(share, max_steps)
        parameters, self._layers = part_of(network, "all", "linear_probe_share")
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold everything but the head while a student plays, which restores the modes of its layers afterwards."""
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        for layer in self._layers:
            layer.eval()
        try:
            yield
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(True)


def probe_steps(share: float, max_steps: int) -> int:
    """The first student steps, which train the head alone: at least one, and at least one is left; 0 for share 0.

    Raises:
        InputError: there is one step in all.
    """
    if share and max_steps < 2:
        raise InputError(f"linear_probe_share {share:g}: one step in all is none for the head and one for the rest")
    return min(math.ceil(share * max_steps), max_steps - 1)


def part_of(network: nn.Module, part: int | str, option: str) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """The parameters of a part of a student, as `TrainConfig.freeze` names it, and its BatchNorm layers.

    Args:
        network: the student.
        part: of it.
        option: that asks for the part, for errors.

    Raises:
        InputError: see `freeze`.
    """
    if not isinstance(network, Classifier):
        raise InputError(
            f"{option} is for a single classifier, and this method trains a {type(network).__name__}: leave it out"
        )
    names, layers = frozen_names(network.network, part), network.network.named_modules()
    return (
        [parameter for name, parameter in network.network.named_parameters() if name in names],
        [layer for name, layer in layers if isinstance(layer, _BatchNorm) and f"{name}.running_mean" in names],
    )


def describe_frozen(classifier: Classifier, part: int | str | None) -> list[str]:
    """What of a student trains and what does not, as the start of a run says it; no line where nothing is frozen."""
    if part is None:
        return []
    count = sum(parameter.numel() for parameter in classifier.parameters())
    trained = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
    return [f"freeze      {part}: {trained:,} of {count:,} parameters train, {count - trained:,} are frozen"]


def describe_probe(share: float, max_steps: int) -> list[str]:
    """When the head trains alone, as the start of a run says it; no line where it never does."""
    if not share:
        return []
    return [
        f"probe       the first {probe_steps(share, max_steps)} of {max_steps} steps train the classifier head alone"
    ]


def frozen_names(network: nn.Module, part: int | str) -> set[str]:
    """Names of the parameters and buffers of a network that stay; see `freeze`."""
    head = head_parameters(network)
    if part == "all":
        names = {name for name, _ in network.named_parameters()} | {name for name, _ in network.named_buffers()}
        return names - head
    groups = layer_groups(network)
    frozen = {name for group in groups[: int(part)] for name in group}
    if int(part) >= len(groups) or frozen & head:
        raise InputError(
            f"freeze {part}: a {type(network).__name__} has {len(groups)} groups of layers, the last with the "
            f"classifier head; expected at most {len(groups) - 1}, or all"
        )
    return frozen
