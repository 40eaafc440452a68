"""Whose turn it is: one player trains, the others hold still."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn


@contextmanager
def only_training(player: str, players: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let one player train and freeze the rest: no gradient to their parameters, their BatchNorm statistics held.

    Gradients still flow *through* a frozen player to its input. `requires_grad` and the mode of every module within
    are restored on the way out.
    """
    others = [module for name, module in players.items() if name != player]
    modes = [(module, module.training) for net in players.values() for module in net.modules()]
    trainable = [parameter for module in others for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    for name, module in players.items():
        module.train(name == player)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
