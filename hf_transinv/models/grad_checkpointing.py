"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). The gradients are the same, dropout included, as
the state of the random generators is kept. BatchNorm is the exception: what is computed again updates its running
statistics again.
"""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transinv.errors import InputError


def enable_grad_checkpointing(network: nn.Module, name: str) -> None:
    """Switches it on, in place.

    Args:
        network: of timm or transformers.
        name: the model, for errors.

    Raises:
        InputError: the network has none, or has BatchNorm.
    """
    if any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules()):
        raise InputError(
            f"grad_checkpointing: {name!r} has BatchNorm, whose running statistics would take in each batch twice. "
            "Leave it out, or choose a network without BatchNorm."
        )
    owner: Any = network
    try:
        if hasattr(owner, "set_grad_checkpointing"):
            owner.set_grad_checkpointing(True)
        elif hasattr(owner, "activation_checkpointing_enable"):
            owner.activation_checkpointing_enable({"use_reentrant": False})
        else:  # of transformers before 5
            owner.gradient_checkpointing_enable({"use_reentrant": False})
    except (AssertionError, AttributeError, ValueError) as error:  # so the libraries say that there is none
        raise InputError(
            f"grad_checkpointing: {name!r}, a {type(network).__name__}, has none ({error}). Leave it out, or lower "
            "the memory by gradient_accumulation_steps."
        ) from error
