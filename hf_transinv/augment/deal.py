"""How the images of a turn are dealt to augmentation models and primitives, so that nothing waits for the device.

Which image gets which model and primitive is drawn on the host. There the images are also sorted by primitive, so that
each primitive's images are one slice of the sorted batch. The device gets indices alone, in one copy, and every size
is known to the host: no mask, no `nonzero`, no shape that depends on the device.
"""

from dataclasses import dataclass

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


def deal_out(
    model: Tensor,
    choice: Tensor,
    share: Tensor,
    noise_row: Tensor,
    num_models: int,
    num_primitives: int,
    device: torch.device,
    asks_clean: bool = True,
) -> Deal:
    """Deal images out, on the host, and copy the indices to the device at once.

    Args:
        model: augmentation model of each image, int64 [b].
        choice: its primitive, int64 [b]; K for none.
        share: its weight within its stratum, [b].
        noise_row: its row in the noise, int64 [b]; -1 for none.
        num_models: L.
        num_primitives: K.
        device: of the images.
        asks_clean: whether teachers judge images that stay as they are.
    """
    order = torch.argsort(choice * num_models + model, stable=True)
    back = inverse(order)
    asks = torch.ones_like(choice, dtype=torch.bool) if asks_clean else choice < num_primitives
    # Those that are not judged go behind all others.
    judge = torch.where(asks, model, num_models)
    asked = torch.argsort(judge, stable=True)
    bits = share.double().view(torch.int64)  # all in one copy
    rows = [order, back, model[order], choice[order], noise_row[order].clamp_min(0), model, choice, asked, bits]
    indices = send(torch.stack(rows), device)
    tensors = dict(zip(_FIELDS, indices.unbind(), strict=True))
    tensors["share"] = tensors["share"].view(torch.float64).float()
    return Deal(
        **tensors,
        num_chosen=tuple(torch.bincount(choice, minlength=num_primitives + 1).tolist()),
        num_asked=tuple(torch.bincount(judge, minlength=num_models + 1)[:num_models].tolist()),
    )


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
