"""Snow, frost and fog against slow references, frost's folder of photographs, and its synthetic textures."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.augment.corruptions import corrupt
from hf_transinv.augment.corruptions.frost import FROST_FILES, frost_textures, synthetic_photographs
from hf_transinv.augment.corruptions.severities import CIFAR_C, IMAGENET_C
from hf_transinv.errors import InputError
from tests.oracles import weather as oracle

EACH_SEVERITY = torch.arange(1, 6)
CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def natural_images(batch=5, height=32, width=32, seed=0):
    """uint8 [B, 3, H, W]: smooth colours of unlike brightness, with a black and a white corner; the last is black."""
    coarse = torch.rand(batch, 3, 5, 5, generator=seeded(seed)) * torch.linspace(0.5, 1, batch).view(-1, 1, 1, 1)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    images[1, :, :3, :3], images[2, :, -3:, -3:], images[-1] = 0, 1, 0
    return (images * 255).round().byte()


def in_rows(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def frost_folder(tmp_path):
    """Five pictures of unlike sizes, the smallest just large enough for 64 pixel crops after scaling."""
    for number, name in enumerate(FROST_FILES):
        shape = (323 + 20 * number, 400 - 15 * number, 3)
        picture = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / name)
    return tmp_path


def snow_reference(images, constants, seed):
    generator = seeded(seed)
    batch, _, height, width = images.shape
    noise = torch.randn(batch, 1, height, width, generator=generator).double().numpy()
    angles = (-135 + 90 * torch.rand(batch, generator=generator)).tolist()
    arguments = zip(in_rows(images), constants, noise, angles, strict=True)
    return np.stack([oracle.snow(image, *own, plane[0], angle) for image, own, plane, angle in arguments])


def fog_reference(images, constants, seed, side):
    uniform = 2 * torch.rand(len(images), side**2 - 1, generator=seeded(seed)).double() - 1
    arguments = zip(in_rows(images), constants, uniform.tolist(), strict=True)
    return np.stack([oracle.fog(image, *own, side, numbers) for image, own, numbers in arguments])


def frost_reference(images, constants, seed, photographs, step):
    results = []
    uniform = torch.rand(len(images), 3, generator=seeded(seed)).tolist()
    for image, own, (first, second, third) in zip(in_rows(images), constants, uniform, strict=True):
        photograph = photographs[int(5 * first)]
        height, width = (len(range(step // 2, size, step)) for size in photograph.shape[:2])
        top, left = int(second * (height - image.shape[0])), int(third * (width - image.shape[1]))
        results.append(oracle.frost(image, *own, photograph, step, top, left))
    return np.stack(results)


def assert_truncated(corrupted, expected, tolerance=0.01):
    """Equal to the truncated reference wherever that does not hang on less than `tolerance` of a level."""
    got = in_rows(corrupted.double()) * 255
    np.testing.assert_allclose(got, got.round(), atol=1e-4)
    assert (got.round() >= np.floor(expected - tolerance)).all()
    assert (got.round() <= np.floor(expected + tolerance)).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 33), (9, 64)])
def test_small_snow_equals_the_reference_at_every_severity(height, width):
    images = natural_images(5, height, width)
    corrupted = corrupt(images.float() / 255, "snow", EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, snow_reference(images, CIFAR_C["snow"], 7))


def test_large_snow_equals_the_reference_with_the_constants_of_imagenet():
    images = natural_images(5, 72, 80)
    corrupted = corrupt(images.float() / 255, "snow", EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, snow_reference(images, IMAGENET_C["snow"], 7))


@pytest.mark.parametrize(("height", "width", "side"), [(32, 32, 32), (40, 33, 64), (9, 64, 64), (8, 8, 8)])
def test_small_fog_equals_the_sequential_algorithm_at_every_severity(height, width, side):
    images = natural_images(5, height, width)
    corrupted = corrupt(images.float() / 255, "fog", EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, fog_reference(images, CIFAR_C["fog"], 7, side))


def test_large_fog_equals_the_sequential_algorithm_with_the_constants_of_imagenet():
    images = natural_images(5, 72, 80)
    corrupted = corrupt(images.float() / 255, "fog", EACH_SEVERITY, seeded(7))
    assert_truncated(corrupted, fog_reference(images, IMAGENET_C["fog"], 7, side=128))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 33), (64, 64)])
def test_small_frost_takes_every_fifth_pixel_of_the_photographs(frost_folder, height, width):
    photographs = [np.asarray(Image.open(frost_folder / name)) for name in FROST_FILES]
    images = natural_images(20, height, width)
    severities = EACH_SEVERITY.repeat(4)
    corrupted = corrupt(images.float() / 255, "frost", severities, seeded(7), frost_folder=str(frost_folder))
    assert_truncated(corrupted, frost_reference(images, CIFAR_C["frost"] * 4, 7, photographs, step=5))


def test_large_frost_takes_the_photographs_as_they_are(frost_folder):
    photographs = [np.asarray(Image.open(frost_folder / name)) for name in FROST_FILES]
    images = natural_images(20, 72, 80)
    severities = EACH_SEVERITY.repeat(4)
    corrupted = corrupt(images.float() / 255, "frost", severities, seeded(7), frost_folder=str(frost_folder))
    assert_truncated(corrupted, frost_reference(images, IMAGENET_C["frost"] * 4, 7, photographs, step=1))


def test_the_resize_of_the_original_averages_nothing():
    """Bilinear at a fifth of the size samples at (i + 1/2) 5 - 1/2 = 5 i + 2, round(size / 5) times."""
    for size in range(320, 331):
        places = [(i + 0.5) * 5 - 0.5 for i in range(round(size / 5))]
        assert places == list(range(2, size, 5))


def test_snow_on_black_is_the_same_upside_down():
    snowy = corrupt(torch.zeros(5, 3, 32, 32), "snow", EACH_SEVERITY, seeded())
    assert torch.equal(snowy, snowy.rot90(2, dims=(2, 3)))
    assert torch.equal(snowy, snowy[:, :1].expand_as(snowy))
    # Between the flakes black is lifted to half of what is not kept of it.
    lowest = snowy.amin(dim=(1, 2, 3)) * 255
    lifted = torch.tensor([127.5 * (1 - row[-1]) for row in CIFAR_C["snow"]])
    assert (lowest >= (lifted + 1e-3).floor() - 1e-3).all()
    torch.testing.assert_close(lowest[:3], (lifted + 1e-3).floor()[:3], rtol=0, atol=1e-3)


def test_fog_on_grey_keeps_the_peak_and_reaches_down_to_no_fog():
    grey = torch.full((5, 3, 32, 32), 0.8)
    foggy = corrupt(grey, "fog", EACH_SEVERITY, seeded())
    mix = torch.tensor([row[0] for row in CIFAR_C["fog"]])
    torch.testing.assert_close(foggy.amax(dim=(1, 2, 3)), grey[:, 0, 0, 0], rtol=0, atol=1 / 255)
    torch.testing.assert_close(foggy.amin(dim=(1, 2, 3)), 0.64 / (0.8 + mix), rtol=0, atol=1 / 255)
    assert not corrupt(torch.zeros(1, 3, 32, 32), "fog", 5, seeded()).any()


@pytest.mark.parametrize("name", ["snow", "frost", "fog"])
def test_one_severity_for_all_equals_that_severity_for_each(name):
    images = natural_images(5).float() / 255
    mixed = corrupt(images, name, EACH_SEVERITY, seeded(3))
    for severity in range(1, 6):
        alike = corrupt(images, name, severity, seeded(3))
        assert torch.equal(alike[severity - 1], mixed[severity - 1])


def test_another_folder_gives_other_frost_and_other_corruptions_ignore_it(frost_folder):
    images = natural_images(5).float() / 255
    frosted = [corrupt(images, "frost", 3, seeded(), frost_folder=f) for f in (None, str(frost_folder))]
    assert not torch.equal(*frosted)
    fogged = [corrupt(images, "fog", 3, seeded(), frost_folder=f) for f in (None, "nowhere")]
    assert torch.equal(*fogged)


def test_a_missing_or_broken_photograph_is_named_with_its_folder(frost_folder):
    images = torch.rand(2, 3, 32, 32)
    (frost_folder / "frost4.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=rf"frost4\.jpg in the frost folder {frost_folder}.*frost5\.jpg"):
        corrupt(images, "frost", 1, seeded(), frost_folder=str(frost_folder))
    cut = (frost_folder / "frost2.png").read_bytes()[:1000]
    (frost_folder / "frost2.png").write_bytes(cut)
    with pytest.raises(InputError, match=rf"frost2\.png in the frost folder {frost_folder}"):
        corrupt(images, "frost", 1, seeded(), frost_folder=str(frost_folder))
    (frost_folder / "frost1.png").unlink()
    with pytest.raises(InputError, match=rf"frost1\.png in the frost folder {frost_folder}.*hendrycks/robustness"):
        corrupt(images, "frost", 1, seeded(), frost_folder=str(frost_folder))


def test_a_photograph_smaller_than_the_images_is_named_with_both_sizes(frost_folder):
    Image.new("RGB", (160, 157)).save(frost_folder / "frost3.png")
    with pytest.raises(InputError, match=rf"frost3\.png in the frost folder {frost_folder} has 31 x 32 .*32 x 32"):
        corrupt(torch.rand(2, 3, 32, 32), "frost", 1, seeded(), frost_folder=str(frost_folder))
    corrupted = corrupt(torch.rand(2, 3, 31, 32), "frost", 1, seeded(), frost_folder=str(frost_folder))
    assert corrupted.shape == (2, 3, 31, 32)


def test_synthetic_textures_are_the_same_each_time_and_unlike_each_other():
    first, sizes = frost_textures(None, 5, 32, 32, CPU)
    frost_textures.cache_clear()
    synthetic_photographs.cache_clear()
    again, _ = frost_textures(None, 5, 32, 32, CPU)
    assert torch.equal(first, again)
    assert first.dtype == torch.uint8
    assert sizes.tolist() == [list(first.shape[2:])] * 5
    assert len({texture.numpy().tobytes() for texture in first}) == 5


def test_synthetic_textures_fit_large_images():
    textures, sizes = frost_textures(None, 1, 300, 310, CPU)
    assert (sizes >= 310).all()
    assert tuple(sizes[0]) == textures.shape[2:]


def test_synthetic_textures_look_like_the_photographs_in_numbers():
    """Against figures measured on the authors' photographs 1 to 5, every fifth pixel, levels of 255."""
    textures = frost_textures(None, 5, 32, 32, CPU)[0].double()
    means = [(78, 149, 166), (201, 205, 214), (201, 205, 214), (138, 153, 166), (112, 123, 135)]
    deviations = [(27, 16, 15), (21, 22, 23), (21, 22, 23), (29, 29, 30), (44, 43, 42)]
    torch.testing.assert_close(textures.mean(dim=(2, 3)), torch.tensor(means).double(), rtol=0, atol=2)
    torch.testing.assert_close(textures.std(dim=(2, 3)), torch.tensor(deviations).double(), rtol=0.05, atol=0)
    steps = textures.mean(dim=1).diff(dim=2).abs().mean(dim=(1, 2))
    torch.testing.assert_close(steps, torch.tensor([10.6, 14.3, 14.3, 21.8, 29.4]).double(), rtol=1 / 3, atol=0)


def test_synthetic_textures_have_more_ice_at_the_edges():
    textures = frost_textures(None, 5, 32, 32, CPU)[0].double().mean(dim=1)
    height, width = textures.shape[1:]
    middle = torch.zeros(height, width, dtype=torch.bool)
    middle[height // 4 : -height // 4, width // 4 : -width // 4] = True
    excess = textures[:, ~middle].mean(dim=1) - textures[:, middle].mean(dim=1)
    assert (excess > 0.2 * textures.std(dim=(1, 2))).all()
