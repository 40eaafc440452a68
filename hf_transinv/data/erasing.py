"""Random erasing: a rectangle of an image is hidden (Zhong et al., AAAI 2020), with the options of timm's.

timm erases normalised images, with standard normal numbers or with 0. Here images are in [0, 1], whatever network sees
them: normal numbers have the mean and the standard deviation of ImageNet's pixels and are clipped to [0, 1], and the
constant is the mean.
"""

import math
from dataclasses import dataclass, replace

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from hf_transinv.data.transfer import send

_AREA = (0.02, 1 / 3)  # share of the image, as in timm and in the paper (section 4.4)
_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))  # of height / width; the same
_ATTEMPTS = 10  # timm's; then the image stays as it is


@dataclass(frozen=True)
class ErasingDraws:
    """What was drawn for a batch; sliced by its rows: ``draws[a:b]``.

    Attributes:
        boxes: int64 [B, 4] on the CPU, (top, left, height, width) in pixels; height and width 0: nothing is erased.
        noise: float32 [N, 3, H, W] on the images' device, standard normal, of the N erased images of the whole batch
            (at least one); None: a constant is filled in.
        row: int64 [B] on the CPU, each image's row of the noise; 0 where nothing is erased.
    """

    boxes: Tensor
    noise: Tensor | None
    row: Tensor

    def __getitem__(self, rows: slice) -> "ErasingDraws":
        return replace(self, boxes=self.boxes[rows], row=self.row[rows])


class RandomErasing:
    """Erases a rectangle of some images.

    Args:
        probability: that an image is erased, in [0, 1].
        mode: "pixel": each pixel gets a random colour; "const": all get the mean colour.
    """

    def __init__(self, probability: float, mode: str = "pixel") -> None:
        self.probability, self.mode = probability, mode
        self.mean = torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> ErasingDraws:
        """Draws for a whole batch.

        Args:
            shape: of the batch, (B, 3, H, W).
            generator: on the CPU. On another device it seeds that device's own, so that noise is not copied.
            device: of the images.
        """
        is_chosen = torch.rand(shape[0], generator=generator) <= self.probability
        numbers = torch.rand(4, shape[0], _ATTEMPTS, generator=generator)
        boxes = rectangles(numbers, shape[-2:]) * is_chosen.unsqueeze(1)
        is_erased = boxes[:, 2] > 0
        if self.mode == "const":
            return ErasingDraws(boxes, None, torch.zeros(shape[0], dtype=torch.int64))
        there = generator
        if device.type != "cpu":
            there = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        noise = torch.randn(max(1, int(is_erased.sum())), *shape[1:], generator=there, device=device)
        return ErasingDraws(boxes, noise, (is_erased.cumsum(0) - 1).clamp(min=0))

    def __call__(self, images: Tensor, draws: ErasingDraws) -> Tensor:
        """Erases images [b, 3, H, W] in [0, 1] as drawn; in the same layout in memory."""
        height, width = images.shape[-2:]
        boxes, row = send(torch.cat((draws.boxes, draws.row.unsqueeze(1)), 1), images.device).split((4, 1), 1)
        top, left, rows, columns = boxes.view(-1, 4, 1, 1, 1).unbind(1)
        y = torch.arange(height, device=images.device).view(-1, 1)
        x = torch.arange(width, device=images.device)
        is_inside = (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
        self.mean, self.std = self.mean.to(images), self.std.to(images)  # copied once
        fill = self.mean
        if draws.noise is not None:
            fill = torch.addcmul(fill, draws.noise[row.squeeze(1)].to(images.dtype), self.std).clamp_(0, 1)
        return torch.where(is_inside, fill, images, out=torch.empty_like(images))


def rectangles(numbers: Tensor, image_size: tuple[int, ...]) -> Tensor:
    """The rectangles of timm's RandomErasing: each image takes the first of its attempts that is smaller than it.

    Args:
        numbers: uniform in [0, 1), [4, B, attempts]: for the area, the logarithm of height / width, and the place from
            top to bottom and from left to right.
        image_size: (height, width) of the images, in pixels.

    Returns:
        int64 [B, 4], (top, left, height, width) in pixels; all 0 where no attempt was small enough.
    """
    (height, width), (area, log_aspect, down, right) = image_size, numbers.double()
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
    aspect = torch.exp(_LOG_ASPECT[0] + (_LOG_ASPECT[1] - _LOG_ASPECT[0]) * log_aspect)
    rows, columns = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (rows < height) & (columns < width)
    top, left = (down * (height - rows + 1)).floor(), (right * (width - columns + 1)).floor()
    attempts = torch.stack((top, left, rows, columns), 2).long() * fits.unsqueeze(2)
    return attempts[torch.arange(len(attempts)), fits.int().argmax(1)]
