"""The batched corruptions against slow references, and their distributions against the benchmark's table."""

import numpy as np
import pytest
import torch

from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt
from hf_transinv.augment.corruptions.severities import CIFAR_C, IMAGENET_C
from hf_transinv.errors import InputError
from tests.oracles import corruptions as oracle

RANDOM = ("gaussian_noise", "impulse_noise", "elastic_transform")
EACH_SEVERITY = torch.arange(1, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def natural_images(batch=5, height=32, width=32, seed=0):
    """uint8 [B, 3, H, W]: smooth colours with edges, some pixels black, white and grey."""
    coarse = torch.rand(batch, 3, 5, 5, generator=seeded(seed)) * 1.4 - 0.2
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    images[:, :, height // 2 :, : width // 2] *= 0.4
    images[:, :, :3, :3], images[:, :, -3:, -3:], images[:, :, :3, -3:] = 0, 1, 0.5
    return (images.clamp(0, 1) * 255).round().byte()


def to_numpy(image):
    return image.permute(1, 2, 0).numpy()


def reference(name, images, constants, seed):
    """Untruncated levels [B, H, W, 3] of the oracle, severity b + 1 for image b, from the numbers `corrupt` draws."""
    batch, _, height, width = images.shape
    generator = seeded(seed)
    extra = [()] * batch
    if name == "gaussian_noise":
        extra = [(to_numpy(noise),) for noise in torch.randn(images.shape, generator=generator)]
    elif name == "impulse_noise":
        extra = [(to_numpy(uniform),) for uniform in torch.rand(images.shape, generator=generator)]
    elif name == "elastic_transform":
        moves = 2 * torch.rand(batch, 3, 2, generator=generator).double() - 1
        noise = 2 * torch.rand(batch, 2, height, width, generator=generator).double() - 1
        extra = [(constants[b][2] * moves[b].numpy(), noise[b].numpy()) for b in range(batch)]
    results = []
    for b in range(batch):
        own = constants[b] if isinstance(constants[b], tuple) else (constants[b],)
        own = own[:2] if name == "elastic_transform" else own
        results.append(getattr(oracle, name)(to_numpy(images[b]), *own, *extra[b]))
    return np.stack(results)


def assert_truncated(corrupted, expected, tolerance):
    """Equal to the truncated reference wherever that does not hang on less than `tolerance` of a level."""
    got = corrupted.permute(0, 2, 3, 1).double().numpy() * 255
    np.testing.assert_allclose(got, got.round(), atol=1e-4)
    got = got.round()
    assert (got >= np.floor(expected - tolerance)).all()
    assert (got <= np.floor(expected + tolerance)).all()
    assert (got == np.floor(expected + 1e-3)).mean() > 0.99


@pytest.mark.parametrize("size", [(32, 32), (40, 33)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_small_images_equal_the_reference_at_every_severity(name, size):
    images = natural_images(5, *size)
    corrupted = corrupt(images.float() / 255, name, EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, reference(name, images, CIFAR_C[name], seed=7), tolerance=0.02)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_images_equal_the_reference_with_the_constants_of_imagenet(name):
    images = natural_images(5, 72, 80)
    corrupted = corrupt(images.float() / 255, name, EACH_SEVERITY, seeded(7))
    # 488 pixels of displacement magnify float32's rounding.
    tolerance = 0.5 if name == "elastic_transform" else 0.02
    assert_truncated(corrupted, reference(name, images, IMAGENET_C[name], seed=7), tolerance)


def test_defocus_has_the_tabulated_taps_at_32_pixels():
    for severity, taps in enumerate([(0.0404, 0.9192), (0.1065, 0.787), (0.1664, 0.6672)], start=1):
        image = torch.zeros(1, 3, 33, 33)
        image[:, :, 16, 16] = 1
        line = np.array([taps[0], taps[1], taps[0]])
        blurred = corrupt(image, "defocus_blur", severity)[0, 0, 15:18, 15:18].numpy() * 255
        np.testing.assert_allclose(blurred, np.floor(np.outer(line, line) * 255), atol=0.01)


def test_pixelate_of_cifar_goes_through_the_tabulated_sizes():
    for severity, small in enumerate((30, 28, 27, 24, 20), start=1):
        ramp = torch.arange(32.0).mul(7).expand(1, 3, 32, 32) / 255
        pixelated = corrupt(ramp, "pixelate", severity)
        assert len(pixelated[0, 0, 0].unique()) == small
        assert torch.equal(pixelated, pixelated[:, :, :1].expand_as(pixelated))


def test_gaussian_noise_has_the_tabulated_deviation():
    grey = torch.full((5, 3, 64, 64), 0.5)
    noisy = corrupt(grey, "gaussian_noise", EACH_SEVERITY, seeded())
    deviations = noisy.flatten(1).std(dim=1)
    torch.testing.assert_close(deviations, torch.tensor(CIFAR_C["gaussian_noise"]), rtol=0.03, atol=0)
    # Truncated, not rounded: half a level is lost, and 0.5 itself is no level.
    torch.testing.assert_close(noisy.mean() * 255, torch.tensor(127.0), rtol=0, atol=0.5)


def test_impulse_noise_flips_values_half_salt_half_pepper():
    grey = torch.full((100, 3, 64, 64), 100 / 255)
    noisy = corrupt(grey, "impulse_noise", EACH_SEVERITY.repeat_interleave(20), seeded()) * 255
    amount = torch.tensor(CIFAR_C["impulse_noise"])
    for value in (0, 255):
        share = (noisy == value).view(5, -1).float().mean(dim=1)
        torch.testing.assert_close(share, amount / 2, rtol=0.1, atol=0)
    assert ((noisy == 0) | (noisy == 255) | (noisy.round() == 100)).all()
    flipped = (noisy.round() != 100).float()
    assert flipped.prod(dim=1).mean() < 0.001, "channels must be flipped independently"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_severity_for_all_equals_that_severity_for_each(name):
    images = natural_images(4).float() / 255
    for severity in (1, 4):
        alike = corrupt(images, name, severity, seeded(3))
        each = corrupt(images, name, torch.full((4,), severity, dtype=torch.uint8), seeded(3))
        assert torch.equal(alike, each)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_severities_move_the_images_further_on_the_whole(name):
    images = natural_images(40).float() / 255
    distances = [(corrupt(images, name, s, seeded(5)) - images).square().mean().item() for s in (1, 5)]
    if name == "elastic_transform":
        assert min(distances) > 0
    else:
        assert 0 < distances[0] < distances[1]


@pytest.mark.parametrize("name", RANDOM)
def test_the_generator_alone_decides(name):
    images = natural_images(2).float() / 255
    torch.manual_seed(1)
    first = corrupt(images, name, 3, seeded(1))
    torch.manual_seed(2)
    assert torch.equal(first, corrupt(images, name, 3, seeded(1)))
    assert not torch.equal(first, corrupt(images, name, 3, seeded(2)))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_input_stays_as_it_is_and_precision_does_not_leak_in(name):
    images = (natural_images(2).float() / 255).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        inside = corrupt(images, name, 2, seeded())
    outside = corrupt(images.requires_grad_(), name, 2, seeded())
    assert torch.equal(inside, outside)
    assert torch.equal(images, before)
    assert outside.dtype == torch.float32
    assert not outside.requires_grad


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_empty_batch_stays_empty(name):
    assert corrupt(torch.zeros(0, 3, 32, 32), name, 1, seeded()).shape == (0, 3, 32, 32)


def test_unknown_names_and_severities_list_the_known():
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(InputError, match=r"'rain'.*gaussian_noise.*pixelate"):
        corrupt(images, "rain", 1)
    for severity in (0, 6, torch.tensor([1, 7])):
        with pytest.raises(InputError, match="1 to 5"):
            corrupt(images, "contrast", severity)
    for severity in (torch.tensor([1.0, 2.0]), torch.tensor([1, 2, 3])):
        with pytest.raises(InputError, match=r"integer tensor of shape \[2\]"):
            corrupt(images, "contrast", severity)


def test_other_images_and_a_missing_generator_are_refused():
    for images in (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.rand(2, 1, 32, 32), torch.rand(2, 3, 4, 32)):
        with pytest.raises(InputError, match=r"expected floating point in \[0, 1\]"):
            corrupt(images, "contrast", 1)
    with pytest.raises(InputError, match=r"torch\.Generator"):
        corrupt(torch.rand(2, 3, 32, 32), "gaussian_noise", 1)
