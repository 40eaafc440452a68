"""The learned primitives: ranges, starts, gradients to phi, and the image functions they stand for."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from hf_transinv.augment.learned import AugmentationConfig
from hf_transinv.augment.primitives import PAPER_PRIMITIVES as PRIMITIVES
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.errors import InputError
from tests.oracles import transinv as oracle

NAMES = list(PRIMITIVES)
PAPER = {
    "contrast_brightness": [(0.2, 1.8), (-0.5, 0.5)],
    "geometric": [(-0.25, 0.25)] * 6,
    "gaussian_blur": [(0.0, 1.0), (0.0, 1.8)],
    "gaussian_noise": [(0.0, 0.12)],
}


def build(name, **fields):
    torch.manual_seed(0)
    return PRIMITIVES[name](PrimitiveConfig(**fields))


def seeded(*shape, seed=0, normal=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) if normal else torch.rand(shape, generator=generator)


def reference(name, image, parameters, noise):
    if name == "contrast_brightness":
        return oracle.contrast_brightness(image, *parameters)
    if name == "geometric":
        return oracle.warp_affine(image, np.eye(2, 3) + parameters.reshape(2, 3))
    if name == "gaussian_blur":
        gamma, variance = parameters
        unit = (min(image.shape[-2:]) / 32) ** 2  # the variance is stated for 32 pixels
        return oracle.gaussian_blur(
            image, variance * unit, gamma, radius=min(5, *(side - 1 for side in image.shape[-2:]))
        )
    return oracle.gaussian_noise(image, parameters[0], noise)


@pytest.mark.parametrize("name", NAMES)
class TestEveryPrimitive:
    @pytest.mark.parametrize("logit", [-1e4, -120.0, -5.0, 5.0, 120.0, 1e4])
    def test_ranges_are_never_left(self, name, logit):
        primitive = build(name)
        with torch.no_grad():
            primitive.last.bias.fill_(logit)
        parameters = primitive(seeded(16, 32, normal=True))
        images, noise = seeded(16, 3, 8, 8), seeded(16, 3, 8, 8, normal=True)
        low, high = torch.tensor(PAPER[name]).unbind(1)
        assert (parameters >= low).all() and (parameters <= high).all()
        deformed = primitive.apply_to(images, parameters, noise)
        assert deformed.shape == images.shape and deformed.min() >= 0 and deformed.max() <= 1
        deformed.sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in primitive.parameters())

    def test_starts_where_it_says(self, name):
        """With z's weights silenced the parameters are the sigmoid of `start` between the bounds."""
        primitive = build(name)
        with torch.no_grad():
            primitive.last.weight.zero_()
        low, high = np.array(PAPER[name]).T
        expected = low + (high - low) / (1 + np.exp(-np.array(primitive.start)))
        actual = primitive(seeded(4, 32, normal=True)).detach().numpy()
        np.testing.assert_allclose(actual, np.tile(expected, (4, 1)), rtol=1e-5, atol=1e-6)

    def test_strength_varies_with_z(self, name):
        parameters = build(name)(seeded(64, 32, normal=True))
        assert (parameters.std(0) > 1e-3).all()

    @pytest.mark.parametrize("mode", ["clamp", "fold"])
    def test_equals_the_oracle(self, name, mode):
        primitive = build(name, out_of_range=mode)
        images, noise = seeded(3, 3, 7, 6), seeded(3, 3, 7, 6, normal=True, seed=1)
        parameters = primitive(seeded(3, 32, normal=True, seed=2))
        back = oracle.clamped if mode == "clamp" else oracle.folded
        for b, deformed in enumerate(primitive.apply_to(images, parameters, noise)):
            own = parameters[b].detach().double().numpy()
            expected = back(reference(name, images[b].double().numpy(), own, noise[b].double().numpy()))
            np.testing.assert_allclose(deformed.detach().numpy(), expected, atol=2e-6)

    def test_gradient_reaches_phi(self, name):
        primitive = build(name)
        images, noise = seeded(8, 3, 8, 8), seeded(8, 3, 8, 8, normal=True, seed=1)
        weights = seeded(8, 3, 8, 8, normal=True, seed=3)
        (primitive.apply_to(images, primitive(seeded(8, 32, normal=True)), noise) * weights).sum().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in primitive.parameters())

    def test_nothing_random_inside(self, name):
        primitive = build(name)
        images, noise, z = seeded(2, 3, 8, 8), seeded(2, 3, 8, 8, normal=True), seeded(2, 32, normal=True)
        first = primitive.apply_to(images, primitive(z), noise)
        assert torch.equal(first, primitive.apply_to(images, primitive(z), noise))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gaussian_noise"])  # noise is of each pixel
def test_a_strength_means_the_same_at_twice_the_side(name):
    primitive = build(name)
    small = interpolate(seeded(8, 3, 10, 10), (32, 32), mode="bicubic").clamp(0, 1)
    large = interpolate(small, (64, 64), mode="bicubic").clamp(0, 1)
    parameters = torch.lerp(primitive.low, primitive.high, seeded(8, len(primitive.low), seed=1))
    change = primitive.apply_to(small, parameters) - small
    at_twice = interpolate(primitive.apply_to(large, parameters) - large, (32, 32), mode="area")
    assert (at_twice - change).abs().mean() < 0.2 * change.abs().mean()


def test_noise_and_blur_start_weak():
    """The docstring's promise: below the middle of the range."""
    z = seeded(256, 32, normal=True)
    assert build("gaussian_noise")(z)[:, 0].mean() < 0.12 / 4
    assert build("gaussian_blur")(z)[:, 1].mean() < 1.8 / 2 * 0.7


def test_geometric_range_is_a_field():
    primitive = build("geometric", geometric_range=0.4)
    with torch.no_grad():
        primitive.last.bias.fill_(1e4)
    assert torch.equal(primitive(seeded(1, 32)), torch.full((1, 6), 0.4))


@pytest.mark.parametrize("mode", ["zeros", "border", "reflection"])
def test_padding_mode_is_what_a_warp_shows_outside(mode):
    primitive = build("geometric", padding_mode=mode, geometric_range=1.0)
    shift = torch.tensor([[0.0, 0.0, -1.0, 0.0, 0.0, 0.0]])
    moved = primitive.apply_to(torch.full((1, 3, 8, 8), 0.5), shift)
    assert (moved.min() == 0) == (mode == "zeros") and moved.max() == 0.5


@pytest.mark.parametrize(
    "fields", [{"latent_dim": 0}, {"hidden_dim": 0}, {"padding_mode": "wrap"}, {"out_of_range": "tanh"}]
)
def test_primitive_config_errors(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        PrimitiveConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"primitives": ("polarize",)}, "polarize"),
        ({"primitives": ()}, "expected some of"),
        ({"q_init": 1.0}, "q_init must be between 0 and 1, given 1.0"),
        ({"q_init": 0.0}, "q_init must be between 0 and 1, given 0.0"),
        ({"estimator": "reinforce"}, "reinforce"),
        ({"gumbel_temperature": 0.0}, "positive"),
    ],
)
def test_augmentation_config_errors(fields, said):
    with pytest.raises(InputError, match=said):
        AugmentationConfig(**fields)
