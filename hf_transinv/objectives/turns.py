"""A turn: who plays, on which images, while the others hold still."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

Turn = tuple[str, ...]
"""Who plays in a turn, in order."""

STUDENT = "student"
"""The player whose steps are counted, and which is exported."""

AUGMENTATION = "augmentation"
"""The player that is no network of the student's kind: it has an optimizer of its own and no schedule."""


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch, or a micro-batch of it.

    Attributes:
        images: [b, 3, H, W] in [0, 1], on the device, ordinary augmentation done.
        labels: class indices, int64 [b], or where images are mixed the share of each class, float32 [b, C].
        global_batch_size: images in the whole batch, over all processes and micro-batches.
        world_size: number of processes.
        others: further variants of the same images, each cropped and flipped anew.
        original: where `images` are deformed by a learned augmentation, the same images before, [b, 3, H, W].
        deformed: rows of those that it changed, int64 [n] on the device; None: not known, perhaps all.
        class_weights: of the cross-entropy with the labels, [C]; None: all are 1.
    """

    images: Tensor
    labels: Tensor
    global_batch_size: int
    world_size: int = 1
    others: tuple[Tensor, ...] = ()
    original: Tensor | None = None
    deformed: Tensor | None = None
    class_weights: Tensor | None = None

    @property
    def share(self) -> float:
        """Weight of one image's loss: sums over micro-batches, averaged over processes, are then the batch's mean."""
        return self.world_size / self.global_batch_size

    @property
    def undeformed(self) -> Tensor:
        """The images as they were before a learned augmentation, [b, 3, H, W]."""
        return self.images if self.original is None else self.original

    @property
    def variants(self) -> tuple[Tensor, ...]:
        """All variants of the images, each [b, 3, H, W]."""
        return (self.images, *self.others)


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
