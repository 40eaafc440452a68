"""Crops of pictures of differing shapes against torchvision's, one by one."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from hf_transinv.data.pictures import Pictures, crop_at_once, crop_pictures
from hf_transinv.data.transforms import CropFlip, boxes_in
from hf_transinv.errors import InputError

SHAPES = [(40, 53), (24, 24), (90, 12), (7, 9), (24, 60), (1, 1), (33, 100)]


def _images():
    """Noise beside large even areas, whose borders a wrong order of rounding shows."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator) for shape in SHAPES]
    images[0][:, :, 20:] = 0
    images[6][:, 10:] = 255
    return images


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [24, 16, 8])
@pytest.mark.parametrize("crop", [crop_pictures, crop_at_once])
def test_crops_are_those_of_torchvision(crop, side, interpolation):
    """The way of a device, run on the CPU, may round one level otherwise."""
    images = _images()
    pictures = Pictures.joined(images, side)
    assert len(pictures) == len(SHAPES) and pictures.shape == (len(SHAPES), 3, side, side)
    worst = 0
    for seed in range(4):
        augmentation = CropFlip("resized", scale=(0.08, 1.0), interpolation=interpolation)
        draws = augmentation.draw(len(SHAPES), (side, side), torch.Generator().manual_seed(seed))
        boxes = boxes_in(draws.attempts, pictures.sizes, augmentation.ratio)
        boxes[0] = torch.tensor([0.0, 0.0, *SHAPES[0]])
        squares = crop(pictures, boxes, draws.flip, interpolation)
        assert squares.dtype == torch.uint8 and squares.shape == pictures.shape
        for row, image in enumerate(images):
            mode = functional.InterpolationMode(interpolation)
            box = boxes[row].int().tolist()
            expected = functional.resized_crop(image, *box, [side, side], interpolation=mode, antialias=True)
            expected = expected.flip(2) if draws.flip[row] else expected
            worst = max(worst, (squares[row].int() - expected.int()).abs().max().item())
    assert worst <= (0 if crop is crop_pictures else 1)


def test_pictures_are_views_that_are_sliced_like_a_tensor():
    images = _images()
    pictures = Pictures.joined(images, 8)
    for row, image in enumerate(images):
        assert torch.equal(pictures.picture(row), image)
    some = pictures[2:5]
    assert len(some) == 3 and torch.equal(some.picture(1), images[3]) and some.pixels is pictures.pixels
    assert torch.equal(pictures[torch.tensor([6, 0, 6])].picture(0), images[6])
    assert pictures.to("cpu", non_blocking=True).device.type == "cpu"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_slice_of_the_draws_crops_a_slice_of_the_pictures(interpolation):
    pictures, augmentation = Pictures.joined(_images(), 8), CropFlip("resized", interpolation=interpolation)
    draws = augmentation.draw(len(SHAPES), (8, 8), torch.Generator().manual_seed(0))
    assert torch.equal(augmentation(pictures, draws)[2:5], augmentation(pictures[2:5], draws[2:5]))


def test_bicubic_crops_of_squares_are_those_of_torchvision():
    images = torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation = CropFlip("resized", flip=False, interpolation="bicubic")
    draws = augmentation.draw(4, (12, 12), torch.Generator().manual_seed(0))
    boxes = boxes_in(draws.attempts, torch.tensor([[12, 12]]), augmentation.ratio)
    mode = functional.InterpolationMode.BICUBIC
    for row, square in enumerate(augmentation(images, draws)):
        box = boxes[row].int().tolist()
        assert torch.equal(square, functional.resized_crop(images[row], *box, [12, 12], mode, antialias=True))
    with pytest.raises(InputError, match="squares of 8 bits"):
        augmentation(images / 255, draws)


def test_whole_pictures_as_squares():
    images = _images()
    squares = Pictures.joined(images, 8).squares()
    for row, image in enumerate(images):
        assert torch.equal(squares[row], functional.resize(image, [8, 8], antialias=True))


@pytest.mark.parametrize("crop", ["pad", "none"])
def test_other_crops_of_pictures_are_refused(crop):
    pictures, augmentation = Pictures.joined(_images(), 8), CropFlip(crop)
    with pytest.raises(InputError, match="Choose 'resized'"):
        augmentation(pictures, augmentation.draw(len(SHAPES), (8, 8), torch.Generator().manual_seed(0)))
