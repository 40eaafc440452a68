"""The pictures of the most confident errors, kept while a split is read: a stream is read once."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hf_transinv.evaluation.per_class import NUM_ERRORS, most_confident_errors
from hf_transinv.evaluation.scores import column
from hf_transinv.evaluation.splits import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


class ErrorPicture(NamedTuple):
    """An image that the model took for another class.

    Attributes:
        order: minus the confidence, number of the batch, row in the batch.
        image: uint8 [3, H, W], on the CPU.
    """

    order: tuple[float, int, int]
    image: Tensor


class ErrorPictures:
    """Keeps the pictures of the most confident errors on clean images; given to `evaluate`.

    Attributes:
        kept: of this process's batches, at most `NUM_ERRORS`, the surest first.
    """

    def __init__(self) -> None:
        self.kept: list[ErrorPicture] = []

    def offer(self, batch: Batch, scores: Tensor) -> None:
        """Look at a batch.

        Args:
            batch: whose images are kept or not.
            scores: of its images, [B, 9], on the CPU.
        """
        confidence = column(scores, "confidence")
        found = []
        for row in most_confident_errors(scores):
            order = (-confidence[row].item(), batch.number, row)
            if len(self.kept) == NUM_ERRORS and order > self.kept[-1].order:
                break
            found.append(ErrorPicture(order, batch.images[row].cpu().clone()))
        self.kept = _first([*self.kept, *found])

    def images(self, accelerator: "Accelerator | None" = None) -> Tensor | None:
        """The images of a result's errors, in their order, uint8 [n, 3, H, W]; None where there are no errors.

        Args:
            accelerator: that of the evaluation. All its processes call this together.
        """
        kept = self.kept
        if accelerator is not None and accelerator.num_processes > 1:
            from accelerate.utils import gather_object  # imported late, as it takes seconds

            kept = _first(gather_object(kept))
        return torch.stack([picture.image for picture in kept]) if kept else None


def _first(pictures: list[ErrorPicture]) -> list[ErrorPicture]:
    return sorted(pictures, key=lambda picture: picture.order)[:NUM_ERRORS]
