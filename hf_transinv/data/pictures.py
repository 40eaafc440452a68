"""Pictures of differing shapes in one tensor, and crops of them, all of one size.

A crop is what torchvision's ``resized_crop(antialias=True)`` makes of it: the box cut out first, then resized by a
filter that widens where the box shrinks, so pixels outside the box have no influence.

    on the CPU       by torchvision itself, picture by picture: its kernel for 8 bits is several times as fast as a
                     batch of matrices there, and takes far longer than a step of the loop; the pictures lie apart
    on a device      all pictures at once: each box is gathered into a patch of the largest box's size, which two
                     matrices of filter weights make square

The sizes stay on the host, so nothing waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.data.transfer import send

_BICUBIC = -0.5  # the parameter of Keys' cubic kernel that Pillow has, and torch where it is antialiased


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures of differing shapes; sliced and moved like a tensor of images.

    On the host pictures may be kept apart: one behind another, they would only have been copied once more.

    Attributes:
        pixels: uint8 [P, 3], on any device: the pixels of each picture, row by row; there may be others between them.
            Of pictures apart uint8 [3, h, w] each, on the host; there may be others among them.
        starts: int64 [B], on the host: where each picture's pixels start; of pictures apart their places in `pixels`.
        sizes: int64 [B, 2], on the host: height and width of each, in pixels.
        side: of the squares that crops of them are resized to, in pixels.
    """

    pixels: Tensor | tuple[Tensor, ...]
    starts: Tensor
    sizes: Tensor
    side: int

    @classmethod
    def joined(cls, images: Sequence[Tensor], side: int) -> "Pictures":
        """Puts single images, uint8 [3, h, w] each, one behind another; `side` as the attribute."""
        sizes = _sizes(images)
        counts = sizes.prod(1)
        pixels = torch.cat([image.permute(1, 2, 0).reshape(-1, 3) for image in images])
        return cls(pixels, counts.cumsum(0) - counts, sizes, side)

    @classmethod
    def apart(cls, images: Sequence[Tensor], side: int) -> "Pictures":
        """Takes single images on the host, uint8 [3, h, w] each, as they are; `side` as the attribute."""
        return cls(tuple(images), torch.arange(len(images)), _sizes(images), side)

    @classmethod
    def of_squares(cls, images: Tensor) -> "Pictures":
        """The images of a batch, uint8 [B, 3, S, S], as pictures whose crops have the same size."""
        count, _, height, width = images.shape
        sizes = torch.tensor([[height, width]]).expand(count, 2)
        pixels = images.permute(0, 2, 3, 1).reshape(-1, 3)
        return cls(pixels, torch.arange(count) * (height * width), sizes, width)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: slice | Tensor) -> "Pictures":
        """Some of the pictures, without a copy of their pixels; an index tensor lies on the host."""
        return Pictures(self.pixels, self.starts[index], self.sizes[index], self.side)

    @property
    def shape(self) -> torch.Size:
        """Of the batch of their crops: (B, 3, side, side)."""
        return torch.Size((len(self), 3, self.side, self.side))

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device if isinstance(self.pixels, Tensor) else torch.device("cpu")

    @property
    def nbytes(self) -> int:
        """What the pictures take, in bytes."""
        return 3 * int(self.sizes.prod(1).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pictures":
        """The same with the pixels on a device, one behind another there; as of a tensor."""
        if not isinstance(self.pixels, Tensor):
            return self if torch.device(device).type == "cpu" else self.together().to(device, non_blocking)
        return Pictures(self.pixels.to(device, non_blocking=non_blocking), self.starts, self.sizes, self.side)

    def together(self) -> "Pictures":
        """The same pictures in this order, one behind another."""
        return Pictures.joined([self.picture(index) for index in range(len(self))], self.side)

    def picture(self, index: int) -> Tensor:
        """One picture, uint8 [3, h, w], a view."""
        height, width = self.sizes[index].tolist()
        start = int(self.starts[index])
        if not isinstance(self.pixels, Tensor):
            return self.pixels[start]
        return self.pixels[start : start + height * width].view(height, width, 3).permute(2, 0, 1)

    def squares(self) -> Tensor:
        """Each whole picture squeezed into a square, uint8 [B, 3, side, side]."""
        boxes = torch.cat([torch.zeros_like(self.sizes), self.sizes], dim=1)
        return crop_pictures(self, boxes, torch.zeros(len(self), dtype=torch.bool), "bilinear")


@dataclass(frozen=True)
class Crops:
    """Crops that were taken of each picture of a batch where it was decoded; sliced and moved like a tensor of images.

    Attributes:
        variants: V uint8 tensors [B, 3, side, side].
    """

    variants: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.variants[0])

    def __getitem__(self, index: slice | Tensor) -> "Crops":
        return Crops(tuple(squares[index] for squares in self.variants))

    @property
    def shape(self) -> torch.Size:
        """Of each variant."""
        return self.variants[0].shape

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Crops":
        """The same on a device; as of a tensor."""
        return Crops(tuple(squares.to(device, non_blocking=non_blocking) for squares in self.variants))

    def squares(self) -> Tensor:
        """The first crop of each picture."""
        return self.variants[0]


BatchImages = Tensor | Pictures | Crops  # of a batch


def _sizes(images: Sequence[Tensor]) -> Tensor:
    return torch.tensor([image.shape[1:] for image in images], dtype=torch.int64).view(-1, 2)


def crop_pictures(pictures: Pictures, boxes: Tensor, flip: Tensor, interpolation: str) -> Tensor:
    """Cuts a box out of each picture, resizes it to a square, antialiased, and mirrors it where asked.

    Args:
        pictures: B of them.
        boxes: [B, 4], (top, left, height, width) in whole pixels, inside the picture; on the host.
        flip: bool [B], on the host.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [B, 3, side, side], on the pictures' device.
    """
    crop = _crop_one_by_one if pictures.device.type == "cpu" else crop_at_once
    return crop(pictures, boxes, flip, interpolation)


def _crop_one_by_one(pictures: Pictures, boxes: Tensor, flip: Tensor, interpolation: str) -> Tensor:
    side = pictures.side
    squares = torch.empty(len(pictures), side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for index, (box, is_mirrored) in enumerate(zip(boxes.long().tolist(), flip.tolist(), strict=True)):
        squares[index] = crop_picture(pictures.picture(index), box, is_mirrored, side, interpolation)
    return squares


def crop_picture(picture: Tensor, box: Sequence[int], is_mirrored: bool, side: int, interpolation: str) -> Tensor:
    """One crop of one picture on the host: uint8 [3, h, w] -> [3, side, side]; see `crop_pictures`."""
    from torchvision.transforms.v2 import functional

    top, left, height, width = box
    cut = picture[:, top : top + height, left : left + width]
    # The kernel is faster on whole pixels without gaps, and what it makes of them is laid out like them.
    cut = cut.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    mode = functional.InterpolationMode(interpolation)
    square = functional.resize(cut, [side, side], interpolation=mode, antialias=True)
    return square.flip(2) if is_mirrored else square


def crop_at_once(pictures: Pictures, boxes: Tensor, flip: Tensor, interpolation: str) -> Tensor:
    """`crop_pictures` for a device: within one of 255 levels of what torchvision makes on the CPU."""
    if not isinstance(pictures.pixels, Tensor):
        pictures = pictures.together()
    pixels: Tensor = pictures.pixels  # type: ignore[assignment]
    count, side, device = len(pictures), pictures.side, pictures.device
    boxes = boxes.long()
    tallest, widest = boxes[:, 2:].amax(0).tolist()
    packed = torch.stack([pictures.starts, pictures.sizes[:, 1], *boxes.unbind(1), flip.long()])
    start, stride, top, left, height, width, is_mirrored = send(packed, device)
    rows = top[:, None] + torch.arange(tallest, device=device).minimum(height[:, None] - 1)
    columns = left[:, None] + torch.arange(widest, device=device).minimum(width[:, None] - 1)
    first = start[:, None] + rows * stride[:, None]
    patches = pixels[first[:, :, None] + columns[:, None, :]].permute(0, 3, 1, 2)
    values = patches.to(torch.float32, memory_format=torch.contiguous_format)
    across = resizing_weights(width, side, widest, interpolation)
    across = torch.where(is_mirrored.bool()[:, None, None], across.flip(1), across)
    down = resizing_weights(height, side, tallest, interpolation)
    # Columns first, and no value beyond 255 between the two: as Pillow and torchvision do.
    narrow = torch.bmm(values.view(count, 3 * tallest, widest), across.mT).clamp_(0, 255)
    square = torch.matmul(down[:, None], narrow.view(count, 3, tallest, side))
    return square.round_().clamp_(0, 255).to(torch.uint8)


def resizing_weights(lengths: Tensor, side: int, longest: int, interpolation: str) -> Tensor:
    """The weights by which lines of differing lengths become lines of one length, antialiased.

    Args:
        lengths: int64 [B], pixels of each line.
        side: pixels of every resulting line.
        longest: the largest of the lengths, or more.
        interpolation: "bilinear" or "bicubic".

    Returns:
        float32 [B, side, longest]; every row sums to 1, and is 0 beyond its line's length.
    """
    scale = lengths.float()[:, None, None] / side
    places = torch.arange(longest, device=lengths.device)
    centres = (torch.arange(side, device=lengths.device)[:, None] + 0.5) * scale
    distances = (places + 0.5 - centres) / scale.clamp(min=1)
    weights = _kernel(distances.abs_(), interpolation) * (places < lengths[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _kernel(distances: Tensor, interpolation: str) -> Tensor:
    """The filter at distances of 0 and more, in pixels of the coarser of the two grids."""
    if interpolation == "bilinear":
        return (1 - distances).clamp_(min=0)
    x, a = distances, _BICUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
