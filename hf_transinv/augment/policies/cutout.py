"""Cutout: a square of each image is hidden (DeVries and Taylor, 2017)."""

import torch
from torch import Tensor

from hf_transinv.augment.pil_geometric import cut_out
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.spaces import MEAN_COLOR
from hf_transinv.data.transfer import send_all
from hf_transinv.errors import InputError


def draw_cutout(shape: tuple[int, ...], size: int, generator: torch.Generator) -> Tensor:
    """Draw squares around a pixel of each image.

    Args:
        shape: of the batch, (B, 3, H, W).
        size: side of the square in pixels, even.
        generator: on the CPU.

    Returns:
        Boxes (top, left, bottom, right), int64 [B, 4]; they may reach beyond the image.
    """
    batch_size, height, width = shape[0], shape[-2], shape[-1]
    y = torch.randint(height, (batch_size,), generator=generator)
    x = torch.randint(width, (batch_size,), generator=generator)
    half = size // 2
    return torch.stack((y - half, x - half, y + half, x + half), dim=1)


class Cutout(Policy):
    """Hide a square of each image. Its centre is uniform over the pixels, so it may reach beyond the edge.

    Args:
        size: side of the square in pixels, even; 16 in the CIFAR-10 recipes of AutoAugment and RandAugment, 8 in
            Cutout's own for CIFAR-100.
        fill: red, green and blue of the square, levels of 0 to 255.
    """

    name = "cutout"
    title = "Cutout"
    phrase = "Cutout"
    citation = """@article{devries2017cutout,
  title   = {Improved Regularization of Convolutional Neural Networks with Cutout},
  author  = {DeVries, Terrance and Taylor, Graham W.},
  journal = {arXiv preprint arXiv:1708.04552},
  year    = {2017}
}"""

    def __init__(self, size: int = 16, fill: tuple[int, int, int] = MEAN_COLOR) -> None:
        check_cutout_size(size)
        self.size, self.fill = size, fill

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw boxes, int64 [B, 4], on the CPU."""
        return draw_cutout(shape, self.size, generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Hide a square of each of the images [b, 3, H, W] in [0, 1]."""
        fill = torch.tensor(self.fill, dtype=images.dtype).div_(255)
        return cut_out(images, *send_all((draws, fill), images.device))


def check_cutout_size(size: int) -> None:
    """Refuse a side that is not an even number of pixels.

    Raises:
        InputError: it is not.
    """
    if size < 0 or size % 2:
        raise InputError(f"the side of Cutout is {size}: expected an even number of pixels, such as 16; 0 is none")
