"""Crops of pictures of differing shapes against torchvision's, one by one."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.data.decoding import decode_image, shrink
from hf_transinv.data.pictures import Pictures, crop_at_once, crop_pictures
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.data.transforms import CropFlip, boxes_in
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels

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


# Splits and feeds of whole pictures


def _photos(write_parquet, shapes=((40, 60), (90, 30), (20, 14), (30, 400), (16, 16), (33, 33)), **options):
    images = [encode(numbered_pixels(row, *shape)) for row, shape in enumerate(shapes)]
    return write_parquet(images, [row % 2 for row in range(len(images))], **options), images


def _load(path, **options):
    return ResidentSplit.load(open_source(path), image_size=16, show_progress=False, **options)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_split_keeps_whole_pictures(write_parquet, interpolation):
    path, images = _photos(write_parquet)
    split = _load(path, stored_size=24, interpolation=interpolation)
    assert split.images.sizes.tolist() == [[24, 36], [72, 24], [20, 14], [24, 192], [16, 16], [24, 24]]
    assert len(split) == 6 and split.labels.tolist() == [0, 1] * 3 and split.images.shape == (6, 3, 16, 16)
    for row, encoded in enumerate(images):
        expected = shrink(decode_image(encoded, ""), 24, interpolation)
        assert torch.equal(split.images.picture(row), expected)
    taken, labels = split.take(torch.tensor([5, 2]))
    assert torch.equal(taken.picture(1), split.images.picture(2)) and labels.tolist() == [1, 0]
    assert split.images.picture(2).shape == (3, 20, 14), "a smaller picture stays as it is"


def test_squares_of_the_size_itself_stay_one_tensor(write_parquet):
    path, _ = _photos(write_parquet, [(16, 16)] * 5)
    whole, plain = _load(path, stored_size=18), _load(path)
    assert isinstance(whole.images, torch.Tensor) and torch.equal(whole.images, plain.images)
    assert whole.images.stride() == plain.images.stride() and (whole.digests == plain.digests).all()


def test_broken_pictures_are_left_out(write_parquet):
    path, images = _photos(write_parquet)
    images[1], images[4] = b"broken", None
    path = write_parquet(images, [0, 1] * 3)
    with pytest.raises(InputError, match=r"Row 1 .*--on_bad_image skip"):
        _load(path, stored_size=24)
    split = _load(path, stored_size=24, on_bad_image="skip")
    assert split.num_skipped == 2 and split.labels.tolist() == [0, 0, 1, 1] and len(split.files) == 4
    assert split.images.sizes.tolist() == [[24, 36], [20, 14], [24, 192], [24, 24]]
    with pytest.raises(InputError, match="not one image"):
        _load(write_parquet([b"broken"] * 2, [0, 1]), stored_size=24, on_bad_image="skip")


@pytest.mark.parametrize("world", [1, 2])
def test_the_pictures_of_all_processes_are_the_batch_of_one(write_parquet, world):
    path, _ = _photos(write_parquet, row_group=2)
    split = _load(path, stored_size=24)
    expected = {labels_and_pixels(split.images, row, split.labels) for row in range(6)}
    seen = []
    for rank in range(world):
        images, labels = ResidentFeed(split, 6, 0, rank, world).next_batch()
        assert len(images) == 6 // world and images.shape[1:] == (3, 16, 16)
        seen += [labels_and_pixels(images, row, labels) for row in range(len(images))]
    assert len(seen) == 6 and set(seen) == expected


def labels_and_pixels(pictures, row, labels):
    return int(labels[row]), pictures.picture(row).contiguous().numpy().tobytes()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_device_is_sent_one_tensor_and_is_not_waited_for(interpolation):
    """Of 7 pictures or of 70 it is the same number of kernels."""
    images, augmentation = _images(), CropFlip("resized", interpolation=interpolation)
    counts = []
    with pretended_device() as counter:
        for repeats in (1, 10):
            split = ResidentSplit(Pictures.joined(images * repeats, 8).to(DEVICE), torch.zeros(7 * repeats), [])
            pictures, _ = split.take(torch.arange(7 * repeats).flip(0))
            draws = augmentation.draw(7 * repeats, (8, 8), torch.Generator().manual_seed(0))
            counter.take()
            squares = augmentation(pictures, draws)
            counts.append(counter.take())
            assert squares.device == DEVICE and counts[-1].waits == 0 and counts[-1].copies == 1
        there = squares.cpu()
    assert counts[0].kernels == counts[1].kernels < 100
    host = augmentation(Pictures.joined((images * 10)[::-1], 8), draws)
    assert (there.int() - host.int()).abs().max() <= 1


# On a CPU


def test_pictures_apart_are_those_one_behind_another():
    images = _images()
    apart, joined = Pictures.apart(images, 8), Pictures.joined(images, 8)
    augmentation = CropFlip("resized")
    draws = augmentation.draw(len(SHAPES), (8, 8), torch.Generator().manual_seed(0))
    order = torch.tensor([6, 0, 3, 0, 5, 2, 1])
    assert apart.nbytes == joined.nbytes == joined.pixels.numel() and apart.device.type == "cpu"
    assert torch.equal(augmentation(apart[order], draws), augmentation(joined[order], draws))
    assert torch.equal(augmentation(apart[order][2:5], draws[2:5]), augmentation(joined[order], draws)[2:5])
    assert torch.equal(apart.squares(), joined.squares()) and apart.to("cpu") is apart
    assert apart.picture(3) is images[3], "without a copy"
    boxes = boxes_in(draws.attempts, apart.sizes, augmentation.ratio)
    assert torch.equal(*(crop_at_once(some, boxes, draws.flip, "bilinear") for some in (apart, joined)))
    with pretended_device():
        there = apart[order].to(DEVICE, non_blocking=True)
        assert there.device == DEVICE and torch.equal(there.pixels.cpu(), joined[order].together().pixels)


def test_a_split_on_the_host_keeps_its_pictures_apart(write_parquet):
    """On a device they lie one behind another."""
    path, _ = _photos(write_parquet)
    split = _load(path, stored_size=24)
    assert isinstance(split.images.pixels, tuple)
    with pretended_device():
        there = _load(path, stored_size=24, device=DEVICE)
        assert torch.equal(there.images.pixels.cpu(), split.images.together().pixels)
