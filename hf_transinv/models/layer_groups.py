"""The layers of a network from its input to its classifier head, as timm groups them; and what kind of network it is.

timm's networks say by `group_matcher` which parameter belongs to which layer. Those of transformers do not. There the
layers are the entries of the encoder's list, where it has one list of them; the head is what depends on the number of
classes.
"""

import os
import re
from collections.abc import Mapping
from itertools import chain
from types import SimpleNamespace
from typing import Any

from timm.models import group_parameters
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.location import locate
from hf_transinv.models.timm_networks import outline_timm
from hf_transinv.models.transformers_networks import head_names, outline_transformers
from hf_transinv.resolve.shipped import model_folder

_FEWEST_LAYERS = 2
_LAST = (99999,)  # timm's: joins the group before it


def outline(name: str, model_args: Mapping[str, Any] | None = None) -> nn.Module:
    """The network that a name of `open_classifier` stands for, without weights, on the meta device.

    A network that cannot be built there is opened as it is.

    Args:
        name: as of `open_classifier`.
        model_args: the same.

    Raises:
        InputError: as `open_classifier`.
    """
    folder = None if os.path.isdir(name) else model_folder(name)  # what is read is said when it is opened
    location = locate(str(folder or name), revision=None, architecture=None, with_weights=False)
    try:
        return (outline_timm if location.is_timm else outline_transformers)(location, model_args or {})
    except InputError:
        return open_classifier(name, model_args=model_args).network


def is_transformer(network: nn.Module) -> bool:
    """Whether a network, of timm or transformers, has at least two layers of multi-head attention.

    A single one may be the pooling of a convolutional network.
    """
    heads = ("num_heads", "num_attention_heads", "heads")
    layers = [module for module in network.modules() if any(isinstance(getattr(module, x, None), int) for x in heads)]
    return len(layers) >= _FEWEST_LAYERS


def head_parameters(network: Any) -> set[str]:
    """Names of the parameters of a network's classifier head.

    Raises:
        InputError: they cannot be told from the others.
    """
    if _is_timm(network):
        found = network.get_classifier()
        modules = found if isinstance(found, tuple | list) else [found]  # a distilled network has two
        own = {id(parameter) for module in modules for parameter in module.parameters()}
        names = {name for name, parameter in network.named_parameters() if id(parameter) in own}
    else:
        names = head_names(network.config) & {name for name, _ in network.named_parameters()}
    if not names:
        raise InputError(f"the classifier head of a {type(network).__name__} is not known: it has no parameters")
    return names


def group_matcher(network: Any, coarse: bool = False) -> dict[str, Any]:
    """The description of a network's layers that timm's grouping takes.

    Args:
        network: of timm or transformers.
        coarse: stages rather than blocks, where the network has both.

    Raises:
        InputError: they are not known.
    """
    if not _is_timm(network):
        return _encoder_matcher(network, coarse)
    if not hasattr(network, "group_matcher"):
        raise _unknown_layers(network, "it has no group_matcher")
    matcher: dict[str, Any] = network.group_matcher(coarse=coarse)
    return matcher


def knows_layers(network: nn.Module) -> bool:
    """Whether `group_matcher` has an answer for a network."""
    try:
        group_matcher(network)
    except InputError:
        return False
    return True


def layer_groups(network: nn.Module) -> list[list[str]]:
    """Names of a network's parameters and buffers, from the stem to the head, which is in the last group.

    The groups are coarse: stages of a convolutional network, blocks of a transformer.

    Raises:
        InputError: they are not known.
    """
    tensors: Any = SimpleNamespace(named_parameters=lambda: chain(network.named_parameters(), network.named_buffers()))
    groups = group_parameters(tensors, group_matcher(network, coarse=True))
    return [groups[index] for index in sorted(groups)]


def _is_timm(network: nn.Module) -> bool:
    return hasattr(network, "get_classifier")


def _unknown_layers(network: nn.Module, reason: str) -> InputError:
    return InputError(
        f"the layers of a {type(network).__name__} are not known: {reason}. Leave out "
        "layer_decay (--layer_decay null) and freeze N, or choose another network"
    )


def _encoder_matcher(network: Any, coarse: bool) -> dict[str, Any]:
    """The matcher of a network of transformers.

    Sound where there is one list of equal layers, and everything else comes wholly before or after it. How deep the
    parts of a hierarchical encoder are (lists within its list) cannot be read off: there only stages are known.
    """
    kinds = (nn.ModuleList, nn.Sequential)
    lists = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, kinds) and len(module) >= _FEWEST_LAYERS and len(set(map(type, module))) == 1
    }
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    parameters = [name for name, _ in network.named_parameters()]
    within = [name.startswith(f"{outer[0]}.") if outer else False for name in parameters]
    first, last = (within.index(True), len(within) - within[::-1].index(True)) if any(within) else (0, 0)
    if len(outer) != 1 or not first or not all(within[first:last]):
        raise _unknown_layers(network, "it has not one list of equal layers")
    if len(lists) > 1 and not coarse:
        raise _unknown_layers(network, "its encoder has layers within its stages")
    head = head_parameters(network)
    stem = {name.rpartition(".")[0] for name in parameters[:first] if name not in head}
    rest = {name.rpartition(".")[0] for name in parameters[last:] if name not in head}
    # A name of each module's own tensors; a parameter of the root has no module.
    return {
        "stem": _own_tensors(stem),
        "blocks": [(rf"^{re.escape(outer[0])}\.(\d+)\.", None), *([(_own_tensors(rest), _LAST)] if rest else [])],
    }


def _own_tensors(modules: set[str]) -> str:
    """A pattern for the names of the tensors that modules hold themselves."""
    names = "|".join(re.escape(f"{module}." if module else "") for module in sorted(modules))
    return rf"^(?:{names})[^.]+$"
