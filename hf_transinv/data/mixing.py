"""MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), with the options of timm's in its mode "batch".

    MixUp     x = lam x_i + (1 - lam) x_j                           lam ~ Beta(alpha, alpha), one for the whole batch
    CutMix    x = x_i, with a box of x_j                            lam: the share of x_i that is left
    target    lam y_i + (1 - lam) y_j                               label smoothing is the cross-entropy's own

timm mixes image i with image B - 1 - i. Here it is its neighbour, i XOR 1: pairs that are whole in every process and
micro-batch of even size. As the order of a batch is random, so is the partner, in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.config import MixingConfig
from hf_transinv.data.balance import balanced_weights
from hf_transinv.data.erasing import ErasingDraws, RandomErasing
from hf_transinv.errors import InputError


@dataclass(frozen=True)
class MixDraws:
    """What was drawn for a batch; sliced by its rows: ``draws[a:b]``.

    Attributes:
        share: lam, of the image itself, in [0, 1]; 1: nothing is mixed.
        box: (top, left, bottom, right) of CutMix in pixels; None: MixUp.
        erased: for each variant of the images, what was drawn for random erasing; empty: nothing is erased.
    """

    share: float = 1.0
    box: tuple[int, int, int, int] | None = None
    erased: tuple[ErasingDraws, ...] = ()

    def __getitem__(self, rows: slice) -> "MixDraws":
        return replace(self, erased=tuple(drawn[rows] for drawn in self.erased))


class Mixing:
    """What is done to the images, labels and losses of the student's turns, after crop and flip.

    Images are erased, then mixed, as in timm. All variants of an image are mixed with the same variant of the same
    other image, in the same way, so that they have one label; each is erased anew.

    Args:
        config: what is done.
        num_classes: C.
        class_weights: float32 [C], on the images' device; None: all are 1.
    """

    def __init__(self, config: MixingConfig, num_classes: int, class_weights: Tensor | None = None) -> None:
        self.config, self.num_classes, self.class_weights = config, num_classes, class_weights
        mode = config.random_erasing_mode or "pixel"
        self.erasing = RandomErasing(config.random_erasing, mode) if config.random_erasing else None

    def draw(
        self, shape: tuple[int, ...], variants: int, generator: torch.Generator, device: torch.device
    ) -> MixDraws:
        """Draws for a whole batch.

        Args:
            shape: of the batch, (B, 3, H, W).
            variants: of each image.
            generator: on the CPU.
            device: of the images.
        """
        erased = tuple(self.erasing.draw(shape, generator, device) for _ in range(variants)) if self.erasing else ()
        share, box = self._draw_mix(shape[-2:], generator) if self.config.mixes else (1.0, None)
        return MixDraws(share, box, erased)

    def _draw_mix(
        self, image_size: tuple[int, ...], generator: torch.Generator
    ) -> tuple[float, tuple[int, int, int, int] | None]:
        config = self.config
        # NumPy's generator has the Beta distribution, torch's has not.
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if random.random() >= (1.0 if config.mixup_prob is None else config.mixup_prob):
            return 1.0, None
        switch = 0.5 if config.mixup_switch_prob is None else config.mixup_switch_prob
        cuts = bool(config.cutmix) and (not config.mixup or random.random() < switch)
        alpha = config.cutmix if cuts else config.mixup
        share = float(random.beta(alpha, alpha))
        if not cuts:
            return share, None
        height, width = image_size
        box = cut_box((height, width), share, (int(random.integers(height)), int(random.integers(width))))
        top, left, bottom, right = box
        return 1 - (bottom - top) * (right - left) / (height * width), box

    def __call__(self, variants: Sequence[Tensor], labels: Tensor, draws: MixDraws) -> tuple[list[Tensor], Tensor]:
        """Erases and mixes as drawn.

        Args:
            variants: of the images, each [b, 3, H, W] in [0, 1].
            labels: class indices, int64 [b].
            draws: of these images.

        Returns:
            The variants, and the labels: as they were where nothing is mixed, otherwise the share of each class,
            float32 [b, C].

        Raises:
            InputError: images are to be mixed, and b is odd.
        """
        images = list(variants)
        if self.erasing:
            images = [self.erasing(one, drawn) for one, drawn in zip(images, draws.erased, strict=True)]
        if draws.share == 1:
            return images, labels
        if len(labels) % 2:
            raise InputError(
                f"mixup and cutmix mix an image with its neighbour, and one of {len(labels)} images has none: give a "
                "batch_size that leaves every process and micro-batch an even number"
            )
        targets = F.one_hot(labels, self.num_classes).float()
        return [_mixed(one, draws.share, draws.box) for one in images], _blended(targets, draws.share)


def build_mixing(
    config: MixingConfig, num_classes: int, class_counts: Sequence[int] | None, device: torch.device
) -> Mixing | None:
    """What a configuration asks for; None where it is nothing but the order of the images.

    Args:
        config: the regularisers.
        num_classes: C.
        class_counts: training images of each class; None: not known.
        device: of the images.

    Raises:
        InputError: classes are to be weighted, and it is not known how frequent they are, or one has no image.
    """
    weights = None
    if config.class_weights:
        if class_counts is None:
            raise InputError(
                "class_weights balanced needs to know how many training images each class has, which this stream does "
                "not say: leave out streaming or class_weights"
            )
        weights = balanced_weights(class_counts).to(device)
    return Mixing(config, num_classes, weights) if config.titles or config.class_weights else None


def cut_box(image_size: tuple[int, int], share: float, centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of CutMix, clipped to the image.

    Args:
        image_size: (height, width) in pixels.
        share: lam, of the image that is outside of the unclipped box.
        centre: (y, x) in pixels.

    Returns:
        (top, left, bottom, right) in pixels.
    """
    edges = []
    for size, middle in zip(image_size, centre, strict=True):
        cut = int(size * (1 - share) ** 0.5)
        edges.append((max(middle - cut // 2, 0), min(middle + (cut + 1) // 2, size)))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


def _mixed(images: Tensor, share: float, box: tuple[int, int, int, int] | None) -> Tensor:
    if box is None:
        return _blended(images, share)
    top, left, bottom, right = box
    place = (..., slice(top, bottom), slice(left, right))
    mixed = images.clone()
    mixed[place] = _neighbours(images[place])
    return mixed


def _blended(values: Tensor, share: float) -> Tensor:
    return values * share + _neighbours(values) * (1 - share)


def _neighbours(values: Tensor) -> Tensor:
    """The row i XOR 1 in place of each row i, of an even number."""
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
