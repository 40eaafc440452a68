"""How far the deformed images of a TransInv augmentation move its teachers, and how far they move anyway.

    keep         KL(T(x) || T(A(x))), or the paper's cross-entropy
    yardstick    what a relative tolerance is a share of: the teacher's entropy H(T(x)), or KL(T(x) || T(x')), x' being
                 the image cropped and mirrored once more

Both are of the teacher that judges the image. The yardstick is a constant: no gradient goes through it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transinv.augment.deal import Deal
from hf_transinv.data.transforms import CropDraws, CropFlip
from hf_transinv.divergences import kl_divergence, soft_cross_entropy
from hf_transinv.models.teacher import Teacher


class Judges:
    """The teachers, asked about the images of an augmentation turn.

    Args:
        teachers: T^1 .. T^L.
        keep: "kl" or "cross_entropy".
        relative_to: what the yardstick is, "entropy" or "crop"; "none": there is none.
        crop: crop and mirror that make x' of x.

    Attributes:
        asks_at_once: whether one call of a teacher has the images and the deformed ones; None: on a GPU.
    """

    def __init__(self, teachers: Sequence[Teacher], keep: str, relative_to: str, crop: CropFlip) -> None:
        self.teachers, self.relative_to, self.crop = teachers, relative_to, crop
        self.divergence = kl_divergence if keep == "kl" else soft_cross_entropy
        self.asks_at_once: bool | None = None

    def __call__(
        self, images: Tensor, augmented: Tensor, deal: Deal, recrop: CropDraws | None
    ) -> tuple[Tensor, Tensor | None]:
        """How far each image's teacher moved.

        Args:
            images: x, [B, 3, H, W].
            augmented: A(x), [B, 3, H, W].
            deal: which teacher judges which image.
            recrop: what was drawn for x'; None where the yardstick does not need it.

        Returns:
            keep, [B], and the yardstick, [B]; None where there is none. Both are 0 for images that are not judged.
        """
        cropped = None if recrop is None else self.crop(images, recrop)
        keeps, yardsticks, start = [], [], 0
        for teacher, size in zip(self.teachers, deal.num_asked, strict=True):
            rows = deal.asked[start : start + size]
            if size:
                clean, moved = self._answers(teacher, images[rows], augmented[rows])
                keeps.append(self.divergence(clean, moved))
                if self.relative_to == "entropy":
                    yardsticks.append(soft_cross_entropy(clean, clean))
                elif cropped is not None:
                    with torch.no_grad():
                        yardsticks.append(kl_divergence(clean, teacher(cropped[rows])))
            start += size
        asked, nobody = deal.asked[:start], torch.zeros(len(images), device=images.device)
        keep, yardstick = (
            nobody.index_copy(0, asked, torch.cat(values)) if values else nobody for values in (keeps, yardsticks)
        )
        return keep, None if self.relative_to == "none" else yardstick

    def _answers(self, teacher: Teacher, images: Tensor, augmented: Tensor) -> tuple[Tensor, Tensor]:
        """A teacher's logits for images and for the deformed ones, with a gradient to the latter.

        One call launches half as many kernels, but its backward pass goes through both: that pays on a GPU alone.
        """
        if images.device.type == "cuda" if self.asks_at_once is None else self.asks_at_once:
            clean, moved = teacher(torch.cat([images, augmented])).chunk(2)
            return clean.detach(), moved
        with torch.no_grad():
            clean = teacher(images)
        return clean, teacher(augmented)
