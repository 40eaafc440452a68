"""Random crops taken where the pictures of a stream are decoded: what is kept and sent is the crop alone.

What is drawn for a batch is a function of (seed, epoch, place of the batch), as the order of the rows is: so crops are
known before their pictures, a JPEG of which only a small part of the pixels is needed is decoded at a reduced scale,
and a run that is resumed takes the same crops.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_transinv.data.batches import generator_of
from hf_transinv.data.decoding import not_too_long
from hf_transinv.data.pictures import Crops, crop_picture
from hf_transinv.data.transforms import CropFlip

_OF_CROPS = 1  # the last number of the key to what is drawn here; none of the keys to the order of rows is as long
_PIXELS_FOR_ONE = 2  # of a box at a reduced scale, to a side; with less one would see how it was reduced

Box = tuple[int, int, int, int]  # top, left, height, width in whole pixels


@dataclass(frozen=True)
class StreamCrops:
    """How crops are taken from the pictures of a stream.

    Attributes:
        augmentation: with crop "resized".
        side: of the crops, in pixels.
        variants: V, crops of each picture, drawn one by one.
        seed: of what is drawn, from 0 on.
    """

    augmentation: CropFlip
    side: int
    variants: int = 1
    seed: int = 0


class BatchCrops:
    """The crops of a batch: drawn when it is made, taken as its pictures are decoded, in any order and by any thread.

    Args:
        how: they are taken.
        batch_size: rows of the batch, of all processes together.
        epoch: from 0 on.
        number: of the batch in its epoch, from 0 on.
        own: places in the batch of this process's pictures.
    """

    def __init__(self, how: StreamCrops, batch_size: int, epoch: int, number: int, own: range) -> None:
        generator = generator_of(how.seed, epoch, number, 0, _OF_CROPS)
        drawn = [how.augmentation.draw(batch_size, (0, 0), generator) for _ in range(how.variants)]
        self._attempts = np.stack([draws.attempts.numpy() for draws in drawn if draws.attempts is not None])
        self._flips = np.stack([draws.flip.numpy() for draws in drawn])
        # Whole pixels lie together, as a crop is made.
        pixels = torch.empty(how.variants, len(own), how.side, how.side, 3, dtype=torch.uint8)
        self._squares = pixels.permute(0, 1, 4, 2, 3)
        self._how, self._own = how, own

    def of(self, place: int) -> "PictureCrops":
        """Those of the picture at a place in the batch."""
        return PictureCrops(
            self._how, self._attempts[:, place], self._flips[:, place], self._squares[:, place - self._own.start]
        )

    def taken(self) -> Crops:
        """Those of all own pictures."""
        return Crops(tuple(self._squares))


@dataclass(frozen=True)
class PictureCrops:
    """The crops of one picture.

    Attributes:
        how: they are taken.
        attempts: float32 [V, 4, 10].
        flips: bool [V], whether each is mirrored.
        target: uint8 [V, 3, side, side], where they are written.
    """

    how: StreamCrops
    attempts: np.ndarray
    flips: np.ndarray
    target: Tensor

    def enough(self, height: int, width: int) -> int:
        """Pixels of the shorter side of a picture of that shape, with which its boxes have twice the crops' side."""
        if min(height, width) < 2 * _PIXELS_FOR_ONE * self.how.side:
            return min(height, width)  # half of it would not do even for the largest box
        shortest = min(min(box[2:]) for box in self._boxes(height, width))
        return math.ceil(_PIXELS_FOR_ONE * self.how.side * min(height, width) / shortest)

    def __call__(self, picture: Tensor) -> Tensor:
        """Takes them from the decoded picture, uint8 [3, h, w], and returns the target."""
        picture = not_too_long(picture)
        for square, box, flip in zip(self.target, self._boxes(*picture.shape[1:]), self.flips, strict=True):
            square.copy_(crop_picture(picture, box, flip, square.shape[-1], self.how.augmentation.interpolation))
        return self.target

    def _boxes(self, height: int, width: int) -> list[Box]:
        return [box_in(attempts, height, width, self.how.augmentation.ratio) for attempts in self.attempts]


def box_in(attempts: np.ndarray, height: int, width: int, ratio: tuple[float, float]) -> Box:
    """`boxes_in` for one picture, in a seventh of the time: exactly the same boxes.

    Args:
        attempts: float32 [4, 10], see `draw_attempts`.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        ratio: range of the box's width / height.
    """
    high, wide = np.float32(height), np.float32(width)
    for share, shape, down, right in attempts.T:
        area = high * wide * share
        box_width, box_height = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = min(math.floor(down * np.float32(height - box_height + 1)), height - box_height)
            left = min(math.floor(right * np.float32(width - box_width + 1)), width - box_width)
            return top, left, box_height, box_width
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    box_height = min(max(round(width / ratio[0]), 1), height)
    box_width = min(max(round(height * ratio[1]), 1), width)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
