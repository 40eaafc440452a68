"""Crops that a stream takes where it decodes, against torchvision's of the whole pictures."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.data.batches import generator_of
from hf_transinv.data.decoding import decode_image, fit
from hf_transinv.data.pictures import Crops
from hf_transinv.data.sources import open_source
from hf_transinv.data.stream_crops import BatchCrops, StreamCrops, box_in
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.data.transforms import CropFlip, boxes_in, draw_attempts
from tests.data.conftest import encode, numbered_pixels

SHAPES = ((40, 60), (47, 90), (48, 60), (100, 50), (20, 14), (24, 24))
SIDE = 16


@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=40),
    st.sampled_from([((0.08, 1.0), (3 / 4, 4 / 3)), ((0.35, 1.0), (0.5, 2.0)), ((0.9, 1.0), (2.0, 3.0))]),
)
@settings(max_examples=200, deadline=None)
def test_a_box_is_that_of_the_batch(seed: int, sizes: list, ranges: tuple) -> None:
    scale, ratio = ranges
    attempts = draw_attempts(len(sizes), scale, ratio, torch.Generator().manual_seed(seed))
    expected = boxes_in(attempts, torch.tensor(sizes), ratio).long().tolist()
    found = [list(box_in(own, *size, ratio)) for own, size in zip(attempts.numpy(), sizes, strict=True)]
    assert found == expected


def _feed(path: str, rank: int = 0, world: int = 1, **options) -> StreamingFeed:
    source = open_source(path, streaming=True)
    return StreamingFeed(source, 6, 0, rank, world, image_size=SIDE, buffer_size=8, **options)


def _photos(write_parquet, shapes: Sequence[tuple[int, int]] = SHAPES, broken: Sequence[int] = ()) -> tuple:
    images = [encode(numbered_pixels(row, *shape)) for row, shape in enumerate(shapes)]
    held = [b"broken" if row in broken else image for row, image in enumerate(images)]
    return write_parquet(held, [row % 2 for row in range(len(images))], row_group=2), images


def _rows(path: str, images: Sequence[bytes], batches: int, **options) -> list[list[int]]:
    """Which image is at each place of the batches, by their squares."""
    squares = [fit(decode_image(image, ""), SIDE) for image in images]
    with closing(_feed(path, **options)) as feed:
        return [
            [next(row for row, square in enumerate(squares) if torch.equal(square, image)) for image in batch]
            for batch, _ in (feed.next_batch() for _ in range(batches))
        ]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("variants", "world"), [(1, 1), (2, 1), (2, 2)])
def test_crops_are_those_of_torchvision_from_the_whole_pictures(write_parquet, variants, world, interpolation) -> None:
    """In every batch of every epoch, whoever takes them; drawn for places in the batch of all processes."""
    path, images = _photos(write_parquet)
    order = _rows(path, images, 3)
    augmentation = CropFlip("resized", interpolation=interpolation)
    mode = functional.InterpolationMode(interpolation)
    with_crops = {"crop": augmentation, "variants": variants, "interpolation": interpolation}
    feeds = [_feed(path, rank, world, **with_crops) for rank in range(world)]
    for epoch in range(3):  # one batch each
        found = [feed.next_batch()[0] for feed in feeds]
        assert all(isinstance(own, Crops) and own.shape == (6 // world, 3, SIDE, SIDE) for own in found)
        generator = generator_of(0, epoch, 0, 0, 1)
        for variant in range(variants):
            squares = torch.cat([own.variants[variant] for own in found])
            draws = augmentation.draw(6, (SIDE, SIDE), generator)
            for place, row in enumerate(order[epoch]):
                image = decode_image(images[row], "")
                (box,) = boxes_in(draws.attempts[place][None], torch.tensor([image.shape[1:]]), augmentation.ratio)
                expected = functional.resized_crop(image, *box.int().tolist(), [SIDE] * 2, mode, antialias=True)
                expected = expected.flip(2) if draws.flip[place] else expected
                assert torch.equal(squares[place], expected), (epoch, variant, place)
    for feed in feeds:
        feed.close()


def test_a_resumed_stream_takes_the_same_crops(write_parquet) -> None:
    path, _ = _photos(write_parquet, SHAPES * 3)
    crop = {"crop": CropFlip("resized"), "variants": 2}
    with closing(_feed(path, **crop)) as feed, closing(_feed(path, **crop)) as resumed:
        for _ in range(4):
            feed.next_batch()
        resumed.load_state_dict(feed.state_dict())
        for _ in range(4):
            own, others = feed.next_batch()[0], resumed.next_batch()[0]
            assert all(torch.equal(*pair) for pair in zip(own.variants, others.variants, strict=True))
            assert not torch.equal(*own.variants)


def test_the_crop_of_a_skipped_picture_is_taken_from_the_next_good_one(write_parquet) -> None:
    path, images = _photos(write_parquet, broken=(3,))
    whole = [image for row, image in enumerate(images) if row != 3]
    ((*order,),) = _rows(path, whole, 1, on_bad_image="skip")
    with closing(_feed(path, on_bad_image="skip", crop=CropFlip("resized", scale=(1.0, 1.0), flip=False))) as feed:
        crops, _ = feed.next_batch()
        assert feed.num_skipped == 1
    crop = CropFlip("resized", scale=(1.0, 1.0), flip=False)
    batch = BatchCrops(StreamCrops(crop, SIDE), 6, 0, 0, range(6))
    expected = [batch.of(place)(decode_image(whole[row], ""))[0] for place, row in enumerate(order)]
    assert torch.equal(crops.squares(), torch.stack(expected))


def test_other_crops_are_left_to_others(write_parquet) -> None:
    path, images = _photos(write_parquet)
    with closing(_feed(path, crop=CropFlip("pad"))) as feed:
        squares, _ = feed.next_batch()
    expected = [fit(decode_image(images[row], ""), SIDE) for row in _rows(path, images, 1)[0]]
    assert torch.equal(squares, torch.stack(expected))


def _crops(variants: int, side: int = SIDE, **options):
    return BatchCrops(StreamCrops(CropFlip("resized", **options), side, variants), 40, 0, 0, range(40))


@pytest.mark.parametrize("variants", [1, 3])
def test_large_jpegs_are_decoded_no_larger_than_their_crops_need(variants: int) -> None:
    """Every box keeps twice the crop's side, and is what the average of the pixels would show."""
    coarse = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (768, 1024), mode="bicubic").clamp(0, 1)[0].mul(255).byte()
    encoded = encode(smooth.permute(1, 2, 0).numpy(), "JPEG", quality=95)
    crops, whole, sizes = _crops(variants, 96, scale=(0.08, 1.0)), decode_image(encoded, ""), set()
    for place in range(40):
        own = crops.of(place)
        image = decode_image(encoded, "", own.enough)
        sizes.add(image.shape[1])
        if image.shape[1] < 768:
            boxes = [box_in(attempts, *image.shape[1:], (3 / 4, 4 / 3)) for attempts in own.attempts]
            assert min(min(box[2:]) for box in boxes) >= 2 * 96 - 1
        found = own(image).float()
        averaged = torch.nn.functional.interpolate(whole[None].float(), image.shape[1:], mode="area")
        expected = own(averaged[0].round().byte()).float()
        assert (found - expected).abs().mean() < 1
    assert sizes == {768, 384} if variants == 3 else {768, 384} <= sizes <= {768, 384, 192}


def test_of_a_strip_the_centre_is_used() -> None:
    image = torch.zeros(3, 4, 4000, dtype=torch.uint8)
    image[:, :, 1984:2016] = 200
    for place in range(40):
        assert (_crops(1).of(place)(image) == 200).all()


def test_crops_are_sliced_and_moved_like_images() -> None:
    crops = Crops(tuple(torch.from_numpy(np.arange(5 * 3).reshape(5, 3, 1, 1)).byte() + 100 * v for v in range(2)))
    assert len(crops) == 5 and crops.shape == (5, 3, 1, 1) and torch.equal(crops.squares(), crops.variants[0])
    assert torch.equal(crops[1:3].variants[1], crops.variants[1][1:3]) and len(crops[1:3]) == 2
    with pretended_device():
        there = crops.to(DEVICE, non_blocking=True)
        assert all(variant.device == DEVICE for variant in there.variants)
