"""Random crop as a policy: the "rp" of Augmentation Invariant Training (Chen et al., ICCV Workshops 2021, 4.4).

    rp   pad 32 pixels by 4 pixels of zeros on each side, then crop a random window of the image's size

The ordinary augmentation (`data.transforms`) crops every variant of an image. As a policy, the crop can be given to
only one of two variants ("rp,rg").
"""

import torch
from torch import Tensor

from hf_transinv.augment.policies.policy import Policy
from hf_transinv.data.transforms import CropDraws, CropFlip


class PadCrop(Policy):
    """Shift each image by up to an eighth of its height in each direction, filling with zeros, without mirroring."""

    name = "pad_crop"
    title = "crop"
    phrase = "random crop"

    def __init__(self) -> None:
        self._crop = CropFlip("pad", flip=False)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> CropDraws:
        return self._crop.draw(shape[0], (shape[-2], shape[-1]), generator)

    def __call__(self, images: Tensor, draws: CropDraws) -> Tensor:
        return self._crop(images, draws)
