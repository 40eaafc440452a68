"""Grayscale and colour jitter against torchvision's functions, image by image."""

import math
from itertools import permutations

import pytest
import torch
from scipy.stats import chi2
from torchvision.transforms.v2 import functional

from hf_transinv.augment.policies.jitter import ColorJitter, JitterDraws, RandomGrayscale
from hf_transinv.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=12):
    return torch.rand(batch, 3, 8, 8, generator=seeded())


CHANGES = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


class TestColorJitter:
    @pytest.mark.parametrize("max_bias", [0.1, 0.9])
    def test_values(self, max_bias):
        policy, images = ColorJitter(max_bias), pixels(24)
        draws = policy.draw(images.shape, seeded(1))
        found = policy(images, draws)
        assert {tuple(order) for order in draws.order.tolist()} == set(permutations(range(3)))
        for b, image in enumerate(images):
            for change in draws.order[b].tolist():
                image = CHANGES[change](image, draws.factors[b, change].item())
            torch.testing.assert_close(found[b], image, atol=1e-6, rtol=0)

    def test_by_hand(self):
        """Brightness 0.5, contrast 2, saturation 1 of one grey and one white pixel: 0.25, 0.5 -> 0.125, 0.625."""
        images = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
        found = ColorJitter(1.0)(images, JitterDraws(torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([[0, 1, 2]])))
        expected = torch.tensor([0.125, 0.625]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # the luminance's weights sum to 0.9999

    def test_draws(self):
        n = 12_000
        draws = ColorJitter(0.1).draw((n, 3, 8, 8), seeded())
        assert draws.factors.min() >= 0.9 and draws.factors.max() <= 1.1
        deviation = 0.2 / math.sqrt(12 * n)
        assert ((draws.factors.mean(0) - 1).abs() < 4 * deviation).all()
        assert (torch.corrcoef(draws.factors.T) - torch.eye(3)).abs().max() < 4 / math.sqrt(n)
        counts = (draws.order * torch.tensor([9, 3, 1])).sum(1).bincount()
        counts = counts[counts > 0]
        assert len(counts) == 6
        assert ((counts - n / 6) ** 2 / (n / 6)).sum() < chi2.ppf(0.999, 5)

    def test_no_bias_is_the_image(self):
        policy, images = ColorJitter(0.0), pixels()
        torch.testing.assert_close(policy(images, policy.draw(images.shape, seeded())), images)


class TestRandomGrayscale:
    def test_values(self):
        policy, images = RandomGrayscale(0.5), pixels()
        draws = policy.draw(images.shape, seeded())
        assert 0 < draws.sum() < len(draws)
        for image, gray, augmented in zip(images, draws, policy(images, draws), strict=True):
            expected = functional.rgb_to_grayscale(image, num_output_channels=3) if gray else image
            torch.testing.assert_close(augmented, expected)

    @pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
    def test_share(self, probability):
        n = 20_000
        count = RandomGrayscale(probability).draw((n, 3, 8, 8), seeded()).sum().item()
        assert abs(count - n * probability) <= 4 * math.sqrt(n * probability * (1 - probability))


@pytest.mark.parametrize("policy", [ColorJitter(0.8), RandomGrayscale(0.5)])
class TestBoth:
    def test_parts_are_the_whole(self, policy):
        images = pixels()
        draws = policy.draw(images.shape, seeded(2))
        parts = [policy(images[part], draws[part]) for part in (slice(0, 5), slice(5, 12))]
        torch.testing.assert_close(torch.cat(parts), policy(images, draws))

    def test_replays_in_range_and_leaves_its_input_alone(self, policy):
        images = pixels()
        kept, draws = images.clone(), policy.draw(images.shape, seeded())
        augmented = policy(images, draws)
        assert torch.equal(augmented, policy(images, draws)) and torch.equal(images, kept)
        assert augmented.shape == images.shape and augmented.min() >= 0 and augmented.max() <= 1
        assert not torch.equal(augmented, policy(images, policy.draw(images.shape, seeded(1))))

    def test_gradients(self, policy):
        images = (0.2 + 0.6 * torch.rand(3, 3, 2, 2, generator=seeded(), dtype=torch.float64)).requires_grad_()
        mild = ColorJitter(0.05) if isinstance(policy, ColorJitter) else policy  # away from the clamp
        draws = mild.draw(images.shape, seeded())
        assert torch.autograd.gradcheck(lambda x: mild(x, draws), [images])


def test_errors():
    with pytest.raises(InputError, match=r"probability of 1\.5"):
        RandomGrayscale(1.5)
    with pytest.raises(InputError, match="max_bias of -1"):
        ColorJitter(-1)
