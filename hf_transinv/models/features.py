"""The penultimate features of a classifier: what enters its last layer, taken while it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from hf_transinv.models.classifier import Classifier


@runtime_checkable
class _NamesItsClassifier(Protocol):
    """A network that says which layer makes logits of features, as timm's do."""

    def get_classifier(self) -> nn.Module: ...


def last_layer(classifier: Classifier) -> nn.Module | None:
    """The layer that makes logits of features; None where the network has no single one that it names."""
    network = classifier.network
    layer = network.get_classifier() if isinstance(network, _NamesItsClassifier) else None
    return layer if isinstance(layer, nn.Module) else None


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what enters a layer, in the graph, while the network is called by its own forward.

    A wrapper for several devices must be called as a whole to see its gradients; a hook on the layer within looks on.
    It is gone afterwards, so that copies of the network (an average) take none along.
    """
    entered: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: entered.append(arguments[0]))
    try:
        yield entered
    finally:
        handle.remove()
