"""The differentiable image functions against slow references, and their gradients against finite differences."""

import numpy as np
import pytest
import torch

from hf_transinv.augment import ops
from tests.oracles import transinv as oracle

IDENTITY = torch.eye(2, 3, dtype=torch.float64)


def uniform(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_like(images, seed=9):
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def affine(batch, seed=1, extent=0.25):
    return IDENTITY + uniform(batch, 2, 3, seed=seed, low=-extent, high=extent)


def each(images, function, *parameters):
    """The oracle, image by image."""
    rows = zip(images.numpy(), *(values.numpy() for values in parameters), strict=True)
    return torch.from_numpy(np.stack([function(*row) for row in rows]))


def assert_exact(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


class TestValues:
    def test_contrast_brightness(self):
        images, alpha, beta = uniform(3, 3, 4, 5), uniform(3, seed=1, high=1.8), uniform(3, seed=2, low=-0.5)
        actual = ops.adjust_contrast_brightness(images, alpha, beta)
        assert_exact(actual, each(images, oracle.contrast_brightness, alpha, beta))

    @pytest.mark.parametrize("extent", [0.25, 1.5])
    @pytest.mark.parametrize("size", [(6, 6), (5, 8)])
    def test_affine(self, size, extent):
        images, theta = uniform(3, 3, *size), affine(3, extent=extent)
        assert_exact(ops.warp_affine(images, theta), each(images, oracle.warp_affine, theta))

    def test_affine_moves_one_pixel_to_the_right(self):
        images = uniform(1, 3, 4, 4)
        theta = IDENTITY.clone()
        theta[0, 2] = -2 / 4  # half the image is 1, so a pixel is 2 / W; the output looks to its left
        moved = ops.warp_affine(images, theta[None])
        assert_exact(moved[..., 1:], images[..., :-1])
        assert moved[..., 0].abs().max() == 0

    def test_affine_padding(self):
        images = uniform(1, 3, 4, 4)
        theta = IDENTITY.clone()
        theta[0, 2] = -2 / 4
        border = ops.warp_affine(images, theta[None], "border")
        assert_exact(border[..., 0], images[..., 0])

    @pytest.mark.parametrize("size", [(7, 6), (4, 3)])
    def test_blur(self, size):
        images, variance, gamma = uniform(3, 2, *size), uniform(3, seed=1, low=0.05, high=1.8), uniform(3, seed=2)
        radius = min(ops.blur_radius(1.8), size[0] - 1, size[1] - 1)
        expected = each(images, lambda *row: oracle.gaussian_blur(*row, radius), variance, gamma)
        assert_exact(ops.blur_gaussian(images, variance, gamma, 5), expected)

    def test_blur_in_another_unit(self):
        images, variance, gamma = uniform(2, 3, 8, 8), uniform(2, seed=1, low=0.05, high=1.8), uniform(2, seed=2)
        expected = ops.blur_gaussian(images, 4 * variance, gamma, 7)
        assert_exact(ops.blur_gaussian(images, variance, gamma, 7, unit=4.0), expected)

    def test_square_pixels_are_counted_along_the_shorter_side(self):
        assert ops.square_pixel(torch.zeros(1, 3, 32, 48)) == 1 and ops.square_pixel(torch.zeros(1, 3, 300, 224)) == 49

    def test_blur_radius_holds_three_standard_deviations(self):
        assert ops.blur_radius(1.8) == 5 and ops.blur_radius(1.0) == 3 and ops.blur_radius(0.01) == 1

    def test_noise(self):
        images, variance = uniform(3, 3, 4, 4), uniform(3, seed=1, high=0.12)
        noise = noise_like(images)
        expected = each(images, oracle.gaussian_noise, variance, noise)
        assert_exact(ops.add_gaussian_noise(images, variance, noise), expected)

    @pytest.mark.parametrize(("mode", "reference"), [("clamp", oracle.clamped), ("fold", oracle.folded)])
    def test_into_range(self, mode, reference):
        images = uniform(2, 3, 6, 6, low=-3.0, high=4.0)
        brought = ops.into_range(images, mode)
        assert brought.min() >= 0 and brought.max() <= 1
        assert_exact(brought, each(images, reference))
        assert_exact(ops.into_range(brought, mode), brought)


def test_identity_parameters_give_the_identity():
    images = uniform(2, 3, 6, 6)
    one, zero = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assert torch.equal(ops.adjust_contrast_brightness(images, one, zero), images)
    assert_exact(ops.warp_affine(images, IDENTITY.expand(2, 2, 3)), images)
    assert_exact(ops.blur_gaussian(images, one, one, 5), images)
    for unit in (0.25, 1.0, 256.0):  # of images of 16, 32 and 512 pixels
        assert_exact(ops.blur_gaussian(images, zero, zero, 5, unit), images)
    assert_exact(ops.add_gaussian_noise(images, zero, noise_like(images)), images)


def test_noise_of_no_variance_has_a_finite_gradient():
    images, variance = uniform(1, 3, 2, 2), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    ops.add_gaussian_noise(images, variance, noise_like(images)).sum().backward()
    assert torch.isfinite(variance.grad).all()


class TestGradients:
    """gradcheck with respect to the image and to every parameter."""

    def check(self, function, *inputs):
        assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs])

    def test_contrast_brightness(self):
        self.check(ops.adjust_contrast_brightness, uniform(2, 2, 3, 3), uniform(2, seed=1), uniform(2, seed=2))

    @pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
    def test_affine(self, padding_mode):
        self.check(lambda x, t: ops.warp_affine(x, t, padding_mode), uniform(2, 1, 4, 4), affine(2))

    def test_blur(self):
        variance = uniform(2, seed=1, low=0.2, high=1.8)
        self.check(lambda *values: ops.blur_gaussian(*values, 2), uniform(2, 1, 4, 4), variance, uniform(2, seed=2))

    def test_noise(self):
        images = uniform(2, 2, 3, 3)
        self.check(ops.add_gaussian_noise, images, uniform(2, seed=1, low=0.01, high=0.12), noise_like(images))

    @pytest.mark.parametrize("mode", ["clamp", "fold"])
    def test_into_range(self, mode):
        self.check(lambda x: ops.into_range(x, mode), uniform(2, 2, 3, 3, low=-0.9, high=1.9))

    def test_fold_keeps_a_gradient_where_clamp_has_none(self):
        for mode, expected in (("clamp", 0.0), ("fold", 1.0)):
            images = torch.tensor([[[[-0.4, 1.3]]]], requires_grad=True)
            ops.into_range(images, mode).sum().backward()
            assert (images.grad.abs() == expected).all()
