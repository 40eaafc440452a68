"""A part of the student that stays as it was loaded: no gradients, and BatchNorm answers with its running statistics.

The layers are frozen in place, as `timm.utils.freeze` does. Their BatchNorm keeps its class and its state, other than
there, so that checkpoints and exports have the names of the network; it is put into evaluation mode in each turn.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.layer_groups import head_parameters, layer_groups


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
    if not isinstance(network, Classifier):
        raise InputError(
            f"freeze is for a single classifier, and this method trains a {type(network).__name__}: leave it out"
        )
    frozen = _frozen_names(network.network, part)
    for name, parameter in network.network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    layers = network.network.named_modules()
    return [layer for name, layer in layers if isinstance(layer, _BatchNorm) and f"{name}.running_mean" in frozen]


def describe_frozen(classifier: Classifier, part: int | str | None) -> list[str]:
    """What of a student trains and what does not, as the start of a run says it; no line where nothing is frozen."""
    if part is None:
        return []
    count = sum(parameter.numel() for parameter in classifier.parameters())
    trained = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
    return [f"freeze      {part}: {trained:,} of {count:,} parameters train, {count - trained:,} are frozen"]


def _frozen_names(network: nn.Module, part: int | str) -> set[str]:
    """Names of the parameters and buffers that stay."""
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
