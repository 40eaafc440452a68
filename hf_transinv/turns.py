"""Whose turn it is: one player trains, the others hold still."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn


@contextmanager
def only_training(player: str, players: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let one player train and freeze the rest: no gradient to their parameters, their BatchNorm statistics held.

    Gradients still flow *through* a frozen player to its input. Modes and `requires_grad` are restored on the way out.
    """
    others = [module for name, module in players.items() if name != player]
    modes = {name: module.training for name, module in players.items()}
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
        for name, module in players.items():
            module.train(modes[name])
