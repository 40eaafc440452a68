"""The primitives beyond the paper's: against plain loops, at rest, in gradients, sizes and descriptions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from hf_transinv.augment import wide_ops
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.magnitudes import describe_magnitudes
from hf_transinv.augment.primitive_sets import PRIMITIVES, SETS
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.augment.wide_primitives import WIDE_PRIMITIVES
from hf_transinv.errors import InputError

NAMES = list(WIDE_PRIMITIVES)


def uniform(*shape, seed=0, low=0.0, high=1.0, dtype=torch.float64):
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return low + (high - low) * drawn


def parameters_of(name, count, seed=1):
    low, high = torch.tensor(PRIMITIVES[name].ranges, dtype=torch.float64).unbind(1)
    return torch.lerp(low, high, uniform(count, len(low), seed=seed))


def primitive_of(name):
    torch.manual_seed(0)
    return PRIMITIVES[name](PrimitiveConfig())


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


class TestOracles:
    def test_colours(self):
        images, weights = uniform(2, 3, 4, 5), parameters_of("colour_matrix", 2)
        for image, (rg, rb, gr, gb, br, bg), found in zip(
            images.numpy(), weights.numpy(), wide_ops.mix_colours(images, weights), strict=True
        ):
            red, green, blue = image
            close(found[0], red + rg * (green - red) + rb * (blue - red))
            close(found[1], green + gr * (red - green) + gb * (blue - green))
            close(found[2], blue + br * (red - blue) + bg * (green - blue))

    def test_tones(self):
        images, bends = uniform(2, 3, 4, 5), parameters_of("tone_curve", 2)
        for image, bend, found in zip(images.numpy(), bends.numpy(), wide_ops.bend_tones(images, bends), strict=True):
            rises = np.exp(bend) / np.exp(bend).sum()
            knots = np.concatenate([[0], np.cumsum(rises)])
            close(found, np.interp(image, np.linspace(0, 1, len(knots)), knots))

    def test_filter(self):
        images, weights = uniform(2, 3, 6, 7), parameters_of("random_filter", 2)
        for image, weight, found in zip(
            images.numpy(), weights.numpy(), wide_ops.filter_image(images, weights), strict=True
        ):
            padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
            taps = (weight - weight.mean()).reshape(3, 3)
            expected = image.copy()
            for y in range(6):
                for x in range(7):
                    expected[:, y, x] += (taps * padded[:, y : y + 3, x : x + 3]).sum((1, 2))
            close(found, expected)

    def test_cover(self):
        images, given = uniform(1, 3, 6, 6), torch.tensor([[0.5, -0.5, 0.3, 0.8]], dtype=torch.float64)
        found = wide_ops.cover(images, given[:, :2], given[:, 2], given[:, 3])[0].numpy()
        image, at = images[0].numpy(), (2 * np.arange(6) + 1) / 6 - 1
        across, down = (1 / (1 + np.exp(-(0.3 - abs(at - centre)) / 0.05)) for centre in (0.5, -0.5))
        mask = 0.8 * down[:, None] * across
        np.testing.assert_allclose(found, image + mask * (image.mean((1, 2), keepdims=True) - image), atol=1e-12)

    def test_solarize(self):
        images = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64).view(1, 1, 1, 4).expand(1, 3, 1, 4)
        full = wide_ops.solarize(images, torch.full((1,), 0.5), torch.ones(1))
        torch.testing.assert_close(full[0, 0, 0, [0, 3]], images.new_tensor([0.1, 0.1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
class TestEveryOne:
    def test_rest_changes_nothing(self, name):
        images = uniform(2, 3, 8, 8)
        rest = torch.tensor([primitive_of(name).rest] * 2, dtype=torch.float64)
        torch.testing.assert_close(primitive_of(name).deform(images, rest, None), images, atol=1e-12, rtol=0)

    def test_gradients(self, name):
        primitive = primitive_of(name).double()
        inputs = uniform(2, 3, 4, 4, seed=3, low=0.02, high=0.98), parameters_of(name, 2, seed=4)
        check = torch.autograd.gradcheck
        assert check(lambda *given: primitive.deform(*given, None), [value.requires_grad_() for value in inputs])

    def test_a_strength_means_the_same_at_twice_the_side(self, name):
        primitive = primitive_of(name).double()
        small = interpolate(uniform(8, 3, 8, 8), (32, 32), mode="bicubic").clamp(0, 1)
        large = interpolate(small, (64, 64), mode="bicubic").clamp(0, 1)
        parameters = parameters_of(name, 8)
        change = primitive.apply_to(small, parameters) - small
        at_twice = interpolate(primitive.apply_to(large, parameters) - large, (32, 32), mode="area")
        assert (at_twice - change).abs().mean() < 0.2 * change.abs().mean()

    def test_it_stays_in_range_and_reaches_phi(self, name):
        primitive = primitive_of(name)
        parameters = primitive(torch.randn(16, 32, generator=torch.Generator().manual_seed(5)))
        deformed = primitive.apply_to(uniform(16, 3, 8, 8, dtype=torch.float32), parameters)
        assert deformed.min() >= 0 and deformed.max() <= 1
        deformed.square().sum().backward()
        assert all(value.grad.isfinite().all() and value.grad.abs().sum() > 0 for value in primitive.parameters())


def test_plain_grey_images_keep_their_grey_under_mixed_colours_and_filters():
    images = uniform(2, 1, 1, 1).expand(2, 3, 8, 8)
    for name in ("colour_matrix", "random_filter"):
        torch.testing.assert_close(primitive_of(name).deform(images, parameters_of(name, 2), None), images)


def test_a_tone_curve_is_monotone():
    levels = torch.linspace(0, 1, 200, dtype=torch.float64).view(1, 1, 1, -1).expand(4, 3, 1, -1)
    bent = wide_ops.bend_tones(levels, parameters_of("tone_curve", 4))
    assert (bent.diff(dim=3) > 0).all()


def test_sets_stand_for_their_primitives():
    wide = AugmentationConfig(("wide",))
    assert wide.primitives == SETS["wide"] and len(wide.primitives) == 9
    assert AugmentationConfig(("paper", "rotation")).primitives == (*SETS["paper"], "rotation")
    with pytest.raises(InputError, match="each once"):
        AugmentationConfig(("wide", "elastic"))
    with pytest.raises(
        InputError, match=r"primitive 'wider': expected some of contrast_.*one of the sets paper, wide"
    ):
        AugmentationConfig(("wider",))


def test_a_panel_of_all_primitives_deforms_and_describes_them():
    panel = AugmentationPanel(2, AugmentationConfig(tuple(PRIMITIVES)))
    generator = torch.Generator().manual_seed(0)
    draws = panel.draw_strata((56, 3, 16, 16), torch.device("cpu"), generator)
    deformed, _ = panel(uniform(56, 3, 16, 16, dtype=torch.float32), draws)
    deformed.square().mean().backward()
    assert all(value.grad.abs().sum() > 0 for model in panel.models for value in model.primitives.parameters())
    described = describe_magnitudes(panel, seed=0)
    assert all(list(of_model) == list(PRIMITIVES) for of_model in described)
    for found in (found for of_model in described for ranges in of_model.values() for found in ranges):
        assert found["low"] - 1e-4 <= found["quantiles"][0] <= found["quantiles"][2] <= found["high"] + 1e-4, found
        assert found["low"] - 1e-4 <= found["rest"] <= found["high"] + 1e-4, found
