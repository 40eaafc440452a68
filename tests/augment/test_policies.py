"""All policies in float32; random corruptions: shares as drawn, and what was drawn is what an image gets."""

import math

import pytest
import torch
from scipy.stats import chi2

from hf_transinv.augment.corruptions import CORRUPTIONS, common, corrupt
from hf_transinv.augment.policies import POLICIES, PolicyConfig, build_policies
from hf_transinv.augment.policies.corruption import CorruptionConfig, RandomCorruption
from hf_transinv.augment.policies.policy import VariantDraws, apply_all, apply_all_variants, draw_all
from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=8):
    return torch.rand(batch, 3, 32, 32, generator=seeded())


@pytest.mark.parametrize("name", POLICIES)
def test_stays_float32_under_autocast(name):
    config = PolicyConfig(corruption_policy=CorruptionConfig(corruption=CORRUPTIONS))
    policies, images = build_policies((name,), config), pixels()
    draws = draw_all(policies, tuple(images.shape), seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = apply_all(policies, images, draws)
    torch.testing.assert_close(mixed, apply_all(policies, images, draws), rtol=0, atol=0)


@pytest.mark.parametrize("name", POLICIES)
def test_on_a_device_its_draws_take_one_copy_and_nothing_waits(name):
    waiting = ("shot_noise", "zoom_blur", "jpeg_compression")
    corruptions = tuple(each for each in CORRUPTIONS if each not in waiting)
    config = PolicyConfig(corruption_policy=CorruptionConfig(corruption=corruptions))
    policies, images = build_policies((name,), config), pixels(40)
    draws = draw_all(policies, tuple(images.shape), seeded())
    expected = apply_all(policies, images, draws)
    common.constant.cache_clear()  # of a device that was pretended before
    with pretended_device() as counter:
        there = images.to(DEVICE)
        for _ in range(2):  # what stays on the device is made once
            counter.take()
            found = apply_all(policies, there, draws)
        count = counter.take()
        own = 2 if name == "corruption" else 0  # the taps of glass_blur, twice
        assert (count.copies, count.waits) == (1 + own, 0), count.places
        assert found.device == DEVICE
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", POLICIES)
def test_variants_are_what_each_alone_is(name):
    config = PolicyConfig(corruption_policy=CorruptionConfig(corruption=("contrast", "gaussian_noise")))
    policies, images, generator = build_policies(("cutout", name), config), pixels(24), seeded()
    draws = VariantDraws(tuple(draw_all(policies, tuple(images.shape), generator) for _ in range(2)))
    for variant, drawn in zip(apply_all_variants(policies, images, draws), draws.variants, strict=True):
        assert torch.equal(variant, apply_all(policies, images, drawn))


def test_shares_are_as_asked():
    n, names = 20_000, ["contrast", "brightness", "pixelate"]
    draws = RandomCorruption(names, clean_share=0.3, severities=(2, 4)).draw((n, 3, 32, 32), seeded())
    clean = draws.which == -1
    assert abs(clean.sum() - 0.3 * n) < 4 * math.sqrt(n * 0.3 * 0.7)
    for values, known in ((draws.which[~clean], (0, 1, 2)), (draws.severity, (2, 4))):
        counts = torch.stack([(values == value).sum() for value in known])
        assert counts.sum() == len(values)
        expected = len(values) / len(known)
        assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, len(known) - 1)


@pytest.mark.parametrize(("share", "clean"), [(0.0, 0), (1.0, 100)])
def test_all_or_none(share, clean):
    assert (RandomCorruption(["pixelate"], share).draw((100, 3, 32, 32), seeded()).which == -1).sum() == clean


def test_images_get_what_was_drawn():
    policy, images = RandomCorruption(["contrast", "brightness"], 0.4), pixels(16)
    draws = policy.draw((16, 3, 32, 32), seeded())
    corrupted = policy(images, draws)
    assert set(draws.which.tolist()) == {-1, 0, 1}
    for b in range(16):
        expected = images[b : b + 1]
        if draws.which[b] >= 0:  # neither of the two is random
            expected = corrupt(expected, policy.names[draws.which[b]], draws.severity[b : b + 1], seeded())
        torch.testing.assert_close(corrupted[b : b + 1], expected, rtol=0, atol=1e-6 if draws.which[b] >= 0 else 0)


def test_replays_and_leaves_its_input_alone():
    policy, images = RandomCorruption(["gaussian_noise"], 0.5), pixels()
    kept, draws = images.clone(), policy.draw((8, 3, 32, 32), seeded())
    assert torch.equal(policy(images, draws), policy(images, draws)) and torch.equal(images, kept)
    assert not torch.equal(policy(images, draws), policy(images, policy.draw((8, 3, 32, 32), seeded(1))))


def test_parts_follow_the_same_draws_with_noise_of_their_own():
    policy, images = RandomCorruption(["gaussian_noise"], 0.0, (5,)), pixels(1).expand(8, -1, -1, -1)
    draws = policy.draw((8, 3, 32, 32), seeded())
    first, second = draws[0:4], draws[4:8]
    assert torch.equal(torch.cat([first.severity, second.severity]), draws.severity)
    assert torch.equal(policy(images[:4], first), policy(images[:4], draws[0:4]))
    assert not torch.equal(policy(images[:4], first), policy(images[4:], second))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"names": ["rain"]}, "rain"),
        ({"names": []}, r"\(none\)"),
        ({"names": ["pixelate"], "clean_share": 1.5}, "clean_share"),
        ({"names": ["pixelate"], "severities": ()}, "severities"),
        ({"names": ["pixelate"], "severities": (0, 1)}, "severities"),
    ],
)
def test_errors(arguments, said):
    with pytest.raises(InputError, match=said):
        RandomCorruption(**arguments)


def test_frost_is_taken_from_the_folder(tmp_path):
    policy = RandomCorruption(["frost"], clean_share=0.0, frost_folder=str(tmp_path))
    with pytest.raises(InputError, match=r"frost1\.png"):
        policy(pixels(), policy.draw((8, 3, 32, 32), seeded()))
