"""The ordinary augmentation, crop and flip, for a whole batch at once on its device.

Sampling is separate from the image operations: ``CropFlip.draw`` draws random numbers from a given generator, and a
call with these draws is deterministic. So a batch can be replayed, or processed in parts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.data.pictures import Pictures, crop_pictures
from hf_transinv.data.transfer import send
from hf_transinv.errors import InputError

_ATTEMPTS = 10  # of torchvision.transforms.RandomResizedCrop; then its central fallback


@dataclass
class CropDraws:
    """The random numbers for each image of a batch; slicing slices all of them: ``draws[a:b]``.

    Attributes:
        flip: bool [B], mirror the image left to right.
        top: int64 [B], first row of the window in the padded image; None unless the crop is "pad".
        left: int64 [B], first column of it; None unless the crop is "pad".
        attempts: float32 [B, 4, 10], from which `boxes_in` makes the box in an image of any size; None unless the crop
            is "resized".
    """

    flip: Tensor
    top: Tensor | None = None
    left: Tensor | None = None
    attempts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, index: slice | Tensor) -> "CropDraws":
        return self._each(lambda values: values[index])

    def to(self, device: torch.device | str) -> "CropDraws":
        """The same on a device; to a GPU in one copy, for which nothing waits."""
        if torch.device(device).type != "cuda" or self.flip.device.type != "cpu" or self.attempts is not None:
            return self._each(lambda values: values.to(device))
        return self._unpack(send(self._pack(), torch.device(device)))

    def _pack(self) -> Tensor:
        """Flip and window, int64 [n, B]."""
        return torch.stack([self.flip.long(), *(x for x in (self.top, self.left) if x is not None)])

    def _unpack(self, packed: Tensor) -> "CropDraws":
        return CropDraws(packed[0].bool(), *(() if self.top is None else packed[1:]))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "CropDraws":
        windows = (self.top, self.left, self.attempts)
        return CropDraws(change(self.flip), *(None if values is None else change(values) for values in windows))


@dataclass(frozen=True)
class CropFlip:
    """Random crop and horizontal flip.

    Attributes:
        crop: "pad" moves the image inside a border of zeros, "resized" zooms into a box of it, "none" leaves it.
        flip: whether half of the images are mirrored.
        padding: width of the border in pixels; None is an eighth of the height (4 at 32 px, as in the CIFAR recipes:
            Zagoruyko and Komodakis 2016, section 3).
        scale: for "resized", range of the box's share of the area. The default is narrower than RandomResizedCrop's
            (0.08, 1), which is meant for long ImageNet schedules.
        ratio: for "resized", range of the box's width / height.
        interpolation: for "resized", bilinear or bicubic, antialiased where a box is larger than the result.

    Raises:
        InputError: a field is out of range.
    """

    crop: str = "pad"
    flip: bool = True
    padding: int | None = None
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.crop not in ("pad", "resized", "none"):
            raise InputError(f"Unknown crop {self.crop!r}. Choose one of 'pad', 'resized', 'none'.")
        if self.padding is not None and self.padding < 0:
            raise InputError(f"The crop's padding is {self.padding}. Give a number of pixels from 0 on.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"The crop's scale is {self.scale}. Give two shares of the area, 0 < low <= high <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise InputError(f"The crop's ratio is {self.ratio}. Give two shapes, width / height, 0 < low <= high.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise InputError(f"Unknown interpolation {self.interpolation!r}. Choose 'bilinear' or 'bicubic'.")

    def draw(self, batch_size: int, image_size: tuple[int, int], generator: torch.Generator) -> CropDraws:
        """Draws the parameters of a batch, on the generator's device.

        Args:
            batch_size: number of images.
            image_size: (height, width) of the images, in pixels; what is drawn for "resized" does not depend on it.
            generator: the source of all randomness here.
        """
        device = generator.device
        if self.flip:
            flip = torch.rand(batch_size, generator=generator, device=device) < 0.5
        else:
            flip = torch.zeros(batch_size, dtype=torch.bool, device=device)
        if self.crop == "resized":
            return CropDraws(flip, attempts=draw_attempts(batch_size, self.scale, self.ratio, generator))
        if self.crop == "pad":
            offsets = (2, batch_size)
            high = 2 * self._padding(image_size[0]) + 1
            top, left = torch.randint(high, offsets, generator=generator, device=device)
            return CropDraws(flip, top=top, left=left)
        return CropDraws(flip)

    def __call__(self, images: Tensor | Pictures, draws: CropDraws) -> Tensor:
        """Applies what was drawn.

        Args:
            images: [B, 3, H, W], uint8 or floating point; or, for "resized", pictures of differing shapes.
            draws: of the same B and the same image size.

        Returns:
            The same shape and dtype; of pictures uint8 [B, 3, side, side].

        Raises:
            InputError: pictures of differing shapes for another crop, or bicubic crops of images that are no 8-bit
                squares.
        """
        if draws.attempts is not None:
            return self._zoom(images, draws.attempts, draws.flip)
        if isinstance(images, Pictures):
            raise InputError(f"Pictures of differing shapes, and the crop is {self.crop!r}. Choose 'resized'.")
        draws = draws.to(images.device)
        padding = self._padding(images.shape[-2]) if self.crop == "pad" else 0
        zero = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        top = zero if draws.top is None else draws.top
        left = zero if draws.left is None else draws.left
        return crop_padded(images, top, left, draws.flip, padding)

    def _zoom(self, images: Tensor | Pictures, attempts: Tensor, flip: Tensor) -> Tensor:
        if isinstance(images, Pictures):
            boxes = boxes_in(attempts, images.sizes, self.ratio)
            return crop_pictures(images, boxes, flip, self.interpolation)
        height, width = images.shape[-2:]
        boxes = boxes_in(attempts, torch.tensor([[height, width]], device=attempts.device), self.ratio)
        if self.interpolation == "bilinear":
            packed = send(torch.cat([boxes, flip[:, None]], dim=1), images.device)
            return crop_resized(images, packed[:, :4], packed[:, 4] > 0)
        if height != width or images.is_floating_point():
            raise InputError(f"Bicubic crops need squares of 8 bits, given {width}x{height} pixels, {images.dtype}.")
        return crop_pictures(Pictures.of_squares(images), boxes, flip, self.interpolation)

    def _padding(self, height: int) -> int:
        return height // 8 if self.padding is None else self.padding


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [0, 1]."""
    return images.float().div_(255)


def crop_padded(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Cuts from each zero-padded image a window of the image's own size, then mirrors it where asked.

    Args:
        images: [B, C, H, W], any dtype.
        top: int64 [B], in 0 ... 2 * padding.
        left: int64 [B], in 0 ... 2 * padding.
        flip: bool [B].
        padding: width of the border, in pixels.
    """
    batch_size, _, height, width = images.shape
    # Channels last: the one gather below then moves whole pixels.
    padded = F.pad(images, (padding,) * 4).permute(0, 2, 3, 1).contiguous()
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch_size, width)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - columns, columns)
    index = torch.arange(batch_size, device=images.device)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_resized(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Cuts a box out of each image and enlarges it bilinearly to the image's size, then mirrors it where asked.

    Equal to ``F.interpolate(box, mode="bilinear", align_corners=False)`` on each box: pixels outside it have no
    influence.

    Args:
        images: [B, C, H, W], uint8 or floating point.
        boxes: [B, 4], (top, left, height, width) in pixels, inside the image.
        flip: bool [B].
    """
    height, width = images.shape[-2:]
    y = _positions(boxes[:, 0], boxes[:, 2], height)
    x = _positions(boxes[:, 1], boxes[:, 3], width)
    x = torch.where(flip[:, None], x.flip(1), x)
    grid_y = ((2 * y + 1) / height - 1)[:, :, None].expand(-1, height, width)
    grid_x = ((2 * x + 1) / width - 1)[:, None, :].expand(-1, height, width)
    grid = torch.stack((grid_x, grid_y), dim=3)
    values = images if images.is_floating_point() else images.float()
    cut = F.grid_sample(values, grid.to(values.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return cut if images.is_floating_point() else cut.round_().clamp_(0, 255).to(images.dtype)


def draw_attempts(
    batch_size: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draws what the boxes of torchvision's RandomResizedCrop are made from, whatever the sizes of the images.

    Args:
        batch_size: number of images, B.
        scale: range of the box's share of the area.
        ratio: range of its width / height.
        generator: the source of all randomness here.

    Returns:
        float32 [B, 4, 10], on the generator's device, ten attempts of each: the share of the area, uniform in scale;
        width / height, whose logarithm is uniform; and how far down and to the right of all possible places, [0, 1).
    """
    area, log_ratio, down, right = torch.rand(4, batch_size, _ATTEMPTS, generator=generator, device=generator.device)
    area = scale[0] + (scale[1] - scale[0]) * area
    shape = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * log_ratio)
    return torch.stack((area, shape, down, right), dim=1)


def boxes_in(attempts: Tensor, sizes: Tensor, ratio: tuple[float, float]) -> Tensor:
    """Makes the boxes of torchvision's RandomResizedCrop in images of given sizes.

    Each image takes the first of its ten attempts that fits into it, or else the largest central box of an allowed
    shape. All operations here are exactly rounded, so an image has the same box in a batch of any size.

    Args:
        attempts: float32 [B, 4, 10], see `draw_attempts`.
        sizes: int64 [B, 2] or [1, 2], height and width of the images in pixels, on the same device.
        ratio: range of the box's width / height.

    Returns:
        float32 [B, 4]: (top, left, height, width), whole pixels.
    """
    height, width = sizes.float()[:, :, None].unbind(1)
    share, shape, down, right = attempts.unbind(1)
    area = height * width * share
    box_width = (area * shape).sqrt().round()
    box_height = (area / shape).sqrt().round()
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    top = (down * (height - box_height + 1)).floor().minimum(height - box_height)
    left = (right * (width - box_width + 1)).floor().minimum(width - box_width)
    tried = torch.stack((top, left, box_height, box_width), dim=2)
    first = fits.int().argmax(dim=1)
    chosen = tried[torch.arange(len(tried), device=first.device), first]
    return torch.where(fits.any(dim=1)[:, None], chosen, _central_boxes(sizes, ratio))


def _central_boxes(sizes: Tensor, ratio: tuple[float, float]) -> Tensor:
    height, width = sizes.double().unbind(1)
    box_height = (width / ratio[0]).round().clamp(min=1).minimum(height)
    box_width = (height * ratio[1]).round().clamp(min=1).minimum(width)
    top, left = ((height - box_height) / 2).floor(), ((width - box_width) / 2).floor()
    return torch.stack((top, left, box_height, box_width), dim=1).float()


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Returns [B, size]: the position of output pixels in the image, within the centres of the box's outer pixels."""
    centres = (torch.arange(size, device=start.device) + 0.5) / size
    inside = (centres * length[:, None] - 0.5).clamp_(min=0).minimum(length[:, None] - 1)
    return start[:, None] + inside
