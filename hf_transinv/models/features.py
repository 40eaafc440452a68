"""The penultimate features of a classifier: the input of its last layer, taken during a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from hf_transinv.models.classifier import Classifier


@runtime_checkable
class _NamesItsClassifier(Protocol):
    """A network that says which layer turns features into logits, as timm's do."""

    def get_classifier(self) -> nn.Module: ...


def last_layer(classifier: Classifier) -> nn.Module | None:
    """The layer that turns features into logits; None where the network does not name a single one."""
    network = classifier.network
    layer = network.get_classifier() if isinstance(network, _NamesItsClassifier) else None
    return layer if isinstance(layer, nn.Module) else None


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the inputs of a layer, in the graph, while the network's own forward is called in the block.

    A hook is used because a wrapper for several devices must be called as a whole for its gradients to be right. The
    hook is removed afterwards, so that copies of the network (an average) do not inherit it.

    Yields:
        The list to which each call's input is appended.
    """
    entered: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    try:
        yield entered
    finally:
        handle.remove()
