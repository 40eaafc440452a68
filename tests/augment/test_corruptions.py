"""The batched corruptions against slow references, and their distributions against the benchmark's table."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, poisson

from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt, jpeg
from hf_transinv.augment.corruptions.blur import blur_directional, copied_from
from hf_transinv.augment.corruptions.noise import photon_tables, shot_noise
from hf_transinv.augment.corruptions.severities import CIFAR_C, IMAGENET_C
from hf_transinv.errors import InputError
from tests.oracles import corruptions as oracle

WITHOUT_DRAWS = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
RANDOM = tuple(name for name in CORRUPTIONS if name not in WITHOUT_DRAWS)
# shot_noise is compared in distribution; snow, frost and fog in test_weather.py.
WITH_REFERENCE = tuple(name for name in CORRUPTIONS if name not in ("shot_noise", "snow", "frost", "fog"))
EXACT = ("glass_blur", "pixelate", "jpeg_compression")  # their references are whole levels
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


def glass_offsets(uniform, reach):
    """One number in [0, 1) picks one of the (2 reach)^2 pairs, row by row."""
    pair = (uniform * (2 * reach) ** 2).astype(int)
    return np.stack([pair // (2 * reach), pair % (2 * reach)], axis=-1) - reach


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
    elif name == "motion_blur":
        extra = [(angle,) for angle in (-45 + 90 * torch.rand(batch, generator=generator)).tolist()]
    elif name == "glass_blur":
        rounds = max(rounds for _, _, rounds in constants)
        uniform = torch.stack([torch.rand(batch, height, width, generator=generator) for _ in range(rounds)], dim=1)
        extra = [(glass_offsets(uniform[b].numpy(), constants[b][1]),) for b in range(batch)]
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
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_small_images_equal_the_reference_at_every_severity(name, size):
    images = natural_images(5, *size)
    corrupted = corrupt(images.float() / 255, name, EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, reference(name, images, CIFAR_C[name], seed=7), 0 if name in EXACT else 0.02)


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_large_images_equal_the_reference_with_the_constants_of_imagenet(name):
    images = natural_images(5, 72, 80)
    corrupted = corrupt(images.float() / 255, name, EACH_SEVERITY, seeded(7))
    # 488 pixels of displacement magnify float32's rounding.
    tolerance = 0.5 if name == "elastic_transform" else 0 if name in EXACT else 0.02
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


def test_the_benchmark_is_complete_and_in_its_order():
    assert (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ) == CORRUPTIONS


@pytest.mark.parametrize("size", [64, 65])
def test_shot_noise_counts_photons(size):
    """x -> Poisson(lambda x) / lambda: mean x, variance x / lambda, whole counts; 65 pixels take ImageNet-C's."""
    photons = torch.tensor((CIFAR_C if size == 64 else IMAGENET_C)["shot_noise"])
    grey = torch.full((5, 3, 80, size), 77 / 255)
    noisy = shot_noise(grey, tuple(photons.tolist()), torch.arange(5), seeded())
    counts = noisy * photons.view(-1, 1, 1, 1)
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(noisy.flatten(1).mean(1), grey.flatten(1).mean(1), rtol=0.03, atol=0)
    torch.testing.assert_close(noisy.flatten(1).var(1), 77 / 255 / photons, rtol=0.06, atol=0)

    corrupted = corrupt(grey, "shot_noise", EACH_SEVERITY, seeded())
    assert torch.equal(corrupted * 255, (noisy.clamp(0, 1) * 255 + 1e-3).floor() / 255 * 255)
    assert not corrupt(torch.zeros(5, 3, 32, 32), "shot_noise", EACH_SEVERITY, seeded()).any()


@pytest.mark.parametrize("photons", [CIFAR_C["shot_noise"], IMAGENET_C["shot_noise"]], ids=["cifar", "imagenet"])
def test_counts_of_photons_are_tabulated_with_their_probabilities(photons):
    first, kept, more = photon_tables(photons)
    cells = torch.arange(kept.shape[1])
    for severity, level in ((0, 255), (1, 0), (2, 1), (3, 77), (4, 255)):
        row = 256 * severity + level
        tabulated = kept[row].double().scatter_add(0, (cells + more[row]).long(), 1 - kept[row].double()) / len(cells)
        expected = poisson.pmf((first[row] + cells).double().numpy(), photons[severity] * level / 255)
        np.testing.assert_allclose(tabulated, expected, rtol=0, atol=1e-8)
        assert expected.sum() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("photons", "level"), [(500, 4), (50, 10), (50, 200), (3, 255)])
def test_drawn_counts_are_poissons(photons, level):
    grey = torch.full((5, 3, 100, 100), level / 255)
    counts = (shot_noise(grey, (photons,) * 5, torch.arange(5), seeded()) * photons).round().long().flatten()
    expected = poisson.pmf(np.arange(1000), photons * level / 255) * len(counts)
    drawn, common = torch.bincount(counts, minlength=1000).numpy(), expected > 20
    rare = np.array([drawn[~common].sum()]), np.array([expected[~common].sum()])
    drawn, expected = np.append(drawn[common], rare[0]), np.append(expected[common], rare[1])
    assert ((drawn - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, len(drawn) - 1)


def test_glass_blur_of_one_pixel_offsets_is_one_gather_and_of_more_is_not():
    """At reach 1 sources lie before their pixel, so none has been overwritten; at 2 the authors' loop rereads."""
    image = np.arange(24 * 24 * 3).reshape(24, 24, 3)
    rng = np.random.default_rng(0)
    for reach, one_gather in ((1, True), (2, False), (4, False)):
        offsets = rng.integers(-reach, reach, size=(24, 24, 2))
        inside = np.zeros((24, 24, 1), dtype=int)
        inside[reach + 1 : 24 - reach + 1, reach + 1 : 24 - reach + 1] = 1
        y, x = np.moveaxis(np.indices((24, 24)).transpose(1, 2, 0) + inside * offsets, -1, 0)
        assert np.array_equal(oracle.glass_loop(image, reach, offsets), image[y, x]) == one_gather


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_chains_of_copies_are_followed_to_their_end(reach):
    """Everything points one pixel on (as far as reach allows): the longest chains that there are."""
    forward = np.full((12, 40, 2), 0)
    forward[..., 1] = min(reach - 1, 1)
    places = np.arange(12 * 40).reshape(12, 40, 1)
    expected = oracle.glass_loop(places, reach, forward)
    offset_y, offset_x = torch.tensor(forward).float().permute(2, 0, 1)[:, None]
    source = copied_from(offset_y, offset_x, torch.full((1, 1, 1), float(reach)), doublings=6)
    np.testing.assert_array_equal(source.view(12, 40), expected[..., 0])


def test_motion_blur_goes_one_way_only():
    point = torch.zeros(4, 1, 21, 21)
    point[:, :, 10, 10] = 1
    five, two = torch.full((4,), 5), torch.full((4,), 2.0)
    for images in (point, point.repeat(1, 3, 1, 1)):
        blurred = blur_directional(images, five, two, torch.tensor([0.0, 90.0, -90.0, 45.0]))
        torch.testing.assert_close(blurred.sum(dim=(2, 3)), torch.ones(4, images.shape[1]))
        # A pixel looks along the angle, so a point is drawn out against it.
        assert (blurred[0, 0, 10, :11] > 0).sum() == 11
        assert torch.equal(blurred[0].mT, blurred[1])
        assert torch.equal(blurred[1].flip(1), blurred[2])
        assert (blurred[3, 0].diagonal()[:11] > 0).sum() == 8


def test_zoom_blur_has_the_tabulated_numbers_of_factors():
    counts = [len(np.arange(1, *constants)) for constants in CIFAR_C["zoom_blur"]]
    assert counts == [7, 12, 16, 21, 26]


@pytest.mark.parametrize("size", [(32, 32), (48, 33), (34, 40)])
def test_images_that_share_a_jpeg_do_not_see_each_other(size, monkeypatch):
    """Stacked where their height allows it, in strips of two here, and mixed with another severity."""
    monkeypatch.setattr(jpeg, "_STRIP_IMAGES", 2)
    images = torch.cat([natural_images(3, *size), natural_images(3, *size, seed=1).flip(2)])
    severity = torch.tensor([3, 3, 1, 3, 3, 3])
    constants = [CIFAR_C["jpeg_compression"][own - 1] for own in severity.tolist()]
    corrupted = corrupt(images.float() / 255, "jpeg_compression", severity)
    assert_truncated(corrupted, reference("jpeg_compression", images, constants, seed=0), 0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_severity_for_all_equals_that_severity_for_each(name):
    images = natural_images(4).float() / 255
    for severity in (1, 4):
        alike = corrupt(images, name, severity, seeded(3))
        each = corrupt(images, name, torch.full((4,), severity, dtype=torch.uint8), seeded(3))
        assert torch.equal(alike, each)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_severities_in_the_batch_change_nothing(name):
    images = natural_images(5).float() / 255
    mixed = corrupt(images, name, EACH_SEVERITY, seeded(3))
    for severity in range(1, 6):
        assert torch.equal(corrupt(images, name, severity, seeded(3))[severity - 1], mixed[severity - 1])


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


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (0.0, 255.0), (0.0, 1.001)])
def test_images_outside_0_to_1_are_refused_with_their_range(low, high):
    images = torch.rand(2, 3, 32, 32)
    images[0, 0, 0, 0], images[1, 2, 31, 31] = low, high
    images[:, :, 1, 1] = 0
    for name in ("contrast", "jpeg_compression"):
        with pytest.raises(InputError, match=rf"from {low:.4g} to .*expected \[0, 1\].*before normalising"):
            corrupt(images, name, 1)
    with pytest.raises(InputError, match="nan"):
        corrupt(torch.full((2, 3, 32, 32), float("nan")), "contrast", 1)


def test_other_images_and_a_missing_generator_are_refused():
    for images in (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.rand(2, 1, 32, 32), torch.rand(2, 3, 4, 32)):
        with pytest.raises(InputError, match=r"expected floating point in \[0, 1\]"):
            corrupt(images, "contrast", 1)
    for name in CORRUPTIONS:
        if name in WITHOUT_DRAWS:
            corrupt(torch.rand(2, 3, 32, 32), name, 1)
        else:
            with pytest.raises(InputError, match=rf"{name}.*torch\.Generator"):
                corrupt(torch.rand(2, 3, 32, 32), name, 1)
