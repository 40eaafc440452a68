"""How the images of a turn are dealt to augmentation models and primitives, so that nothing waits for the device.

Which image gets which model and primitive is drawn on the host. There the images are also sorted by primitive, so that
each primitive's images are one slice of the sorted batch. The device gets indices alone, in one copy, and every size
is known to the host: no mask, no `nonzero`, no shape that depends on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hf_transinv.data.transfer import send

_FIELDS = ("order", "back", "sorted_model", "sorted_choice", "noise_row", "model", "choice", "asked", "share")


@dataclass(frozen=True)
class Deal:
    """The indices of a part of a batch, int64 [b] on the device of the images, and sizes on the host.

    Attributes:
        order: images by primitive, then by model; those that stay as they are come last.
        back: the place of each image in that order.
        sorted_model: augmentation model of each image in that order.
        sorted_choice: primitive of each image in that order; K for none.
        noise_row: row of each image in the noise, in that order; 0 for an image without noise.
        model: augmentation model of each image.
        choice: primitive of each image; K for none.
        asked: images that a teacher judges, teacher by teacher; only the first sum(num_asked) count.
        share: weight of each image in the mean over its stratum, float32 [b].
        num_chosen: images of each primitive, and of none: K + 1 numbers.
        num_asked: images that each teacher judges: L numbers.
    """

    order: Tensor
    back: Tensor
    sorted_model: Tensor
    sorted_choice: Tensor
    noise_row: Tensor
    model: Tensor
    choice: Tensor
    asked: Tensor
    share: Tensor
    num_chosen: tuple[int, ...]
    num_asked: tuple[int, ...]

    @property
    def deformed(self) -> Tensor:
        """The images that some primitive deforms, int64 [n]."""
        return self.order[: len(self.order) - self.num_chosen[-1]]


class Drawn(Protocol):
    """What is dealt: each image's augmentation model, primitive, weight and noise; see `selection.Draws`."""

    @property
    def model(self) -> Tensor: ...
    @property
    def choice(self) -> Tensor: ...
    @property
    def share(self) -> Tensor: ...
    @property
    def noise_row(self) -> Tensor: ...


def deal_out(
    draws: Sequence[Drawn],
    num_models: int,
    num_primitives: int,
    device: torch.device,
    asks_clean: bool = True,
) -> list[Deal]:
    """Deal images out, once for each of several draws, on the host, and copy all indices to the device at once.

    Args:
        draws: of the same images each.
        num_models: L.
        num_primitives: K.
        device: of the images.
        asks_clean: whether teachers judge images that stay as they are.
    """
    rows, sizes = [], []
    for drawn in draws:
        model, choice = drawn.model, drawn.choice
        order = torch.argsort(choice * num_models + model, stable=True)
        asks = torch.ones_like(choice, dtype=torch.bool) if asks_clean else choice < num_primitives
        # Those that are not judged go behind all others.
        judge = torch.where(asks, model, num_models)
        asked, noise_row = torch.argsort(judge, stable=True), drawn.noise_row[order].clamp_min(0)
        bits = drawn.share.double().view(torch.int64)  # all in one copy
        rows += [order, inverse(order), model[order], choice[order], noise_row, model, choice, asked, bits]
        chosen, judged = choice.bincount(minlength=num_primitives + 1), judge.bincount(minlength=num_models)
        sizes.append((tuple(chosen.tolist()), tuple(judged[:num_models].tolist())))
    indices = send(torch.stack(rows), device).unflatten(0, (-1, len(_FIELDS)))
    found = []
    for own, (num_chosen, num_asked) in zip(indices, sizes, strict=True):
        tensors = dict(zip(_FIELDS, own.unbind(), strict=True))
        tensors["share"] = tensors["share"].view(torch.float64).float()
        found.append(Deal(**tensors, num_chosen=num_chosen, num_asked=num_asked))
    return found


def sort_into_groups(kind: Tensor, num_kinds: int) -> tuple[Tensor, list[slice]]:
    """Sort images by kind, on the host.

    Args:
        kind: of each image, int64 [b], 0 to num_kinds - 1.
        num_kinds: number of kinds.

    Returns:
        The images by kind, then by number, int64 [b]; and the places of each kind among them.
    """
    ends = torch.bincount(kind, minlength=num_kinds).cumsum(0).tolist()
    return kind.argsort(stable=True), [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def inverse(order: Tensor) -> Tensor:
    """The place of each image in an order, [b]."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return back
