"""Crops against loops over single images; the box law against torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.data.transforms import CropDraws, CropFlip, boxes_in, crop_resized, draw_attempts, to_float
from hf_transinv.errors import InputError


def _images(dtype: torch.dtype = torch.uint8, height: int = 9, width: int = 7) -> Tensor:
    images = torch.randint(1, 256, (5, 3, height, width), generator=torch.Generator().manual_seed(0))
    return images.to(dtype) if dtype == torch.uint8 else images.to(dtype) / 255


def _slow_pad_crop(image: Tensor, top: int, left: int, flip: bool, padding: int) -> Tensor:
    _, height, width = image.shape
    window = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            source_y, source_x = y + top - padding, x + left - padding
            if 0 <= source_y < height and 0 <= source_x < width:
                window[:, y, x] = image[:, source_y, source_x]
    return window.flip(2) if flip else window


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("padding", [0, 1, 3, 9])
def test_padded_crop_equals_a_loop_over_pixels(dtype: torch.dtype, padding: int) -> None:
    images = _images(dtype)
    augmentation = CropFlip(padding=padding)
    draws = augmentation.draw(5, (9, 7), torch.Generator().manual_seed(padding))
    draws.flip[:2] = torch.tensor([True, False])
    cropped = augmentation(images, draws)
    assert cropped.dtype == dtype and cropped.shape == images.shape
    for row, image in enumerate(images):
        top, left, flip = int(draws.top[row]), int(draws.left[row]), bool(draws.flip[row])
        torch.testing.assert_close(cropped[row], _slow_pad_crop(image, top, left, flip, padding), rtol=0, atol=0)


def test_resized_crop_equals_interpolating_each_box() -> None:
    images = _images(torch.float32)
    augmentation = CropFlip("resized")
    draws = augmentation.draw(5, (9, 7), torch.Generator().manual_seed(3))
    draws.flip[:2] = torch.tensor([True, False])
    boxes = boxes_in(draws.attempts, torch.tensor([[9, 7]]), augmentation.ratio)
    assert torch.equal(augmentation(images, draws), crop_resized(images, boxes, draws.flip))
    boxes[4] = torch.tensor([8.0, 6.0, 1.0, 1.0])
    cropped = crop_resized(images, boxes, draws.flip)
    for row, image in enumerate(images):
        top, left, height, width = boxes[row].int().tolist()
        box = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(box, (9, 7), mode="bilinear", align_corners=False)[0]
        expected = expected.flip(2) if draws.flip[row] else expected
        torch.testing.assert_close(cropped[row], expected, rtol=0, atol=1e-5)
    eight_bit = crop_resized((images * 255).round().to(torch.uint8), boxes, draws.flip)
    assert eight_bit.dtype == torch.uint8
    assert (eight_bit.float() - cropped * 255).abs().max() <= 0.51


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.5, 1.2)])
def test_boxes_follow_the_law_of_random_resized_crop(ratio: tuple[float, float]) -> None:
    """Of pictures of several shapes in one batch."""
    from torchvision.transforms import RandomResizedCrop

    shapes = [(32, 40), (80, 20), (30, 100)]
    attempts = draw_attempts(4000 * 3, (0.08, 1.0), ratio, torch.Generator().manual_seed(0))
    boxes = boxes_in(attempts, torch.tensor(shapes).repeat(4000, 1), ratio)
    torch.manual_seed(0)
    for place, (rows, columns) in enumerate(shapes):
        own, image = boxes[place::3], torch.zeros(3, rows, columns)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, (0.08, 1.0), ratio) for _ in range(4000)])
        standard_error = (own.var(0) / 4000 + theirs.float().var(0) / 4000).sqrt()
        assert ((own.mean(0) - theirs.float().mean(0)).abs() < 4 * standard_error).all()
        top, left, height, width = own.T
        assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
        assert (top + height <= rows).all() and (left + width <= columns).all()


def test_boxes_of_a_shape_that_no_attempt_fits_are_central() -> None:
    attempts = draw_attempts(3, (1.0, 1.0), (3 / 4, 4 / 3), torch.Generator().manual_seed(0))
    boxes = boxes_in(attempts, torch.tensor([[4, 64], [64, 4], [1, 1]]), (3 / 4, 4 / 3))
    assert boxes.tolist() == [[0, 29, 4, 5], [29, 0, 5, 4], [0, 0, 1, 1]]


def test_a_picture_has_the_same_box_in_a_batch_of_any_size() -> None:
    attempts = draw_attempts(67, (0.08, 1.0), (3 / 4, 4 / 3), torch.Generator().manual_seed(0))
    sizes = torch.randint(1, 400, (67, 2), generator=torch.Generator().manual_seed(1))
    boxes = boxes_in(attempts, sizes, (3 / 4, 4 / 3))
    for row in range(67):
        assert torch.equal(boxes_in(attempts[row : row + 1], sizes[row : row + 1], (3 / 4, 4 / 3))[0], boxes[row])


def test_draws_come_from_the_generator_alone_and_cover_their_range() -> None:
    augmentation = CropFlip()
    first = augmentation.draw(2000, (32, 32), torch.Generator().manual_seed(1))
    again = augmentation.draw(2000, (32, 32), torch.Generator().manual_seed(1))
    assert torch.equal(first.top, again.top) and torch.equal(first.flip, again.flip)
    assert first.top.unique().tolist() == list(range(9)) and first.left.unique().tolist() == list(range(9))
    assert 0.45 < first.flip.float().mean() < 0.55


@pytest.mark.parametrize("crop", ["pad", "resized", "none"])
def test_a_slice_of_the_draws_crops_a_slice_of_the_batch(crop: str) -> None:
    images, augmentation = _images(), CropFlip(crop)
    draws = augmentation.draw(5, (9, 7), torch.Generator().manual_seed(0))
    assert len(draws[1:4]) == 3
    assert torch.equal(augmentation(images, draws)[1:4], augmentation(images[1:4], draws[1:4]))


def test_neither_crop_nor_flip_changes_nothing() -> None:
    images, augmentation = _images(), CropFlip("none", flip=False)
    draws = augmentation.draw(5, (9, 7), torch.Generator().manual_seed(0))
    assert torch.equal(augmentation(images, draws), images)
    only_flip = CropDraws(flip=torch.tensor([True] * 5))
    assert torch.equal(augmentation(images, only_flip), images.flip(3))


def test_to_float_is_in_zero_to_one() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_float(images), torch.tensor([0.0, 0.2, 1.0]))
    assert images.tolist() == [0, 51, 255]


_BAD_ZOOMS = [{"ratio": (2.0, 1.0)}, {"ratio": (0.0, 1.0)}, {"interpolation": "nearest"}]


@pytest.mark.parametrize(
    "fields", [{"crop": "corner"}, {"padding": -1}, {"scale": (0.0, 1.0)}, {"scale": (0.9, 0.5)}, *_BAD_ZOOMS]
)
def test_fields_that_make_no_sense_are_refused(fields: dict) -> None:
    with pytest.raises(InputError):
        CropFlip(**fields)


@pytest.mark.parametrize("crop", ["pad", "none"])
def test_draws_travel_in_one_tensor(crop):
    drawn = CropFlip(crop).draw(9, (32, 24), torch.Generator().manual_seed(1))
    there = drawn._unpack(drawn._pack())
    for name in ("flip", "top", "left"):
        before, after = getattr(drawn, name), getattr(there, name)
        assert (before is None and after is None) or (torch.equal(before, after) and before.dtype == after.dtype)
