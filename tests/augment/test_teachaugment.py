"""TeachAugment's networks against slow references of the whole networks, and what they promise."""

import math

import numpy as np
import pytest
import torch

from hf_transinv.augment.teach_augmentation import TeachAugmentation, recolour
from hf_transinv.errors import InputError
from tests.oracles import teachaugment as oracle

MEAN, STD, CLASSES = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(batch, size=8, seed=0, dtype=torch.float64):
    """Like photographs of eight bits, the last of them shifted: black rows and columns at its border."""
    images = torch.randint(1, 256, (batch, 3, size, size), generator=seeded(seed)).to(dtype) / 255
    images[-1, :, :2], images[-1, :, :, -1:] = 0, 0
    return images


def labels_of(batch):
    return torch.arange(batch) % CLASSES


def at_start(seed=0):
    torch.manual_seed(seed)
    return TeachAugmentation(CLASSES, MEAN, STD)


def trained(seed=0, last=0.05):
    """Away from the start: every parameter moved."""
    augmentation, generator = at_start(seed), seeded(seed + 1)
    with torch.no_grad():
        for name, parameter in augmentation.named_parameters():
            size = last if name.endswith("last") else 0.5 if "gate" in name else 0.1
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return augmentation.double()


def stacked(*augmentations):
    phis = [dict(augmentation.named_parameters()) for augmentation in augmentations]
    return {name: torch.stack([phi[name] for phi in phis]).detach() for name in phis[0]}


def dense_masks(draws):
    """Which channels of the pixel network are kept, [B, 2, 128]."""
    return torch.zeros(*draws.channels.shape[:2], 128).scatter(2, draws.channels, draws.alive).numpy()


def slow(augmentation, images, labels, draws):
    """The oracle's images, and before the warp."""
    phi = {name: parameter.detach().numpy() for name, parameter in augmentation.named_parameters()}
    arrays = (images, labels, draws.z.double(), draws.gates.double(), draws.kept.double())
    results = oracle.augment(phi, *(values.numpy() for values in arrays), dense_masks(draws), MEAN, STD)
    return [torch.from_numpy(result) for result in results]


class TestValues:
    @pytest.mark.parametrize("batch", [1, 5])
    def test_against_the_whole_networks(self, batch):
        augmentation, images, labels = trained(), images_of(batch, 6), labels_of(batch)
        draws = augmentation.draw(images.shape, seeded(1))
        actual = augmentation(images, labels, draws)
        warped, coloured = slow(augmentation, images, labels, draws)
        torch.testing.assert_close(actual.coloured, coloured, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(actual.images, warped, rtol=1e-8, atol=1e-8)
        assert (actual.images - images).abs().mean() > 0.02

    def test_single_precision(self):
        """Moments in single precision stay near the reference, also of an image of one colour."""
        augmentation, images, labels = trained(), images_of(4, 8), labels_of(4)
        images[0] = 0.75
        draws = augmentation.draw(images.shape, seeded(1))
        expected, _ = slow(augmentation, images, labels, draws)
        actual = augmentation.float()(images.float(), labels, draws).images
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-4)

    def test_groups_have_parameters_and_statistics_of_their_own(self):
        both, images, labels = (trained(0), trained(5)), images_of(8), labels_of(8)
        draws = both[0].draw(images.shape, seeded(1))
        together = both[0](images, labels, draws, stacked(*both))
        for k, augmentation in enumerate(both):
            rows = slice(4 * k, 4 * k + 4)
            alone = augmentation(images[rows], labels[rows], draws[rows])
            torch.testing.assert_close(together.images[rows], alone.images)

    def test_batches_cut_between_groups_are_the_whole(self):
        models, images, labels = [trained(seed) for seed in range(4)], images_of(8), labels_of(8)
        draws = models[0].draw(images.shape, seeded(1))
        whole = models[0](images, labels, draws, stacked(*models)).images
        parts = [
            models[0](images[rows], labels[rows], draws[rows], stacked(*models[rows.start // 2 : rows.stop // 2]))
            for rows in (slice(0, 2), slice(2, 8))
        ]
        torch.testing.assert_close(torch.cat([part.images for part in parts]), whole)

    def test_ranges(self):
        """Saturated networks move every affine entry by a quarter, scales by 0.4, shifts by 0.5, and no further."""
        augmentation, images, labels = trained(last=1e4), images_of(6), labels_of(6)
        found = augmentation(images, labels, augmentation.draw(images.shape, seeded(1))).magnitudes
        widest = torch.tensor([0.25, 0.4, 0.5], dtype=torch.float64)
        assert (found <= widest + 1e-9).all()
        torch.testing.assert_close(found, widest, rtol=0.01, atol=0)

    def test_recolour(self):
        """scale x + shift by hand, folded at 0 and at 1; padding stays black, a black pixel elsewhere does not."""
        image = torch.tensor([[0.5, 0.0, 0.9], [0.2, 1.0, 0.4], [0.0, 0.0, 0.0]]).expand(1, 3, 3, 3)
        scale, shift = torch.full_like(image, 1.4), torch.full_like(image, -0.3)
        expected = torch.tensor([[0.4, 0.3, 0.96], [0.02, 0.9, 0.26], [0.0, 0.0, 0.0]])
        torch.testing.assert_close(recolour(image, scale, shift), expected.expand(1, 3, 3, 3))

    def test_recolour_is_the_triangle_wave(self):
        values = torch.linspace(-1.3, 2.3, 64, dtype=torch.float64)
        image = torch.ones(1, 3, 8, 8, dtype=torch.float64)
        actual = recolour(image, torch.zeros_like(image), values.view(8, 8).expand(1, 3, 8, 8))[0, 0].flatten()
        assert actual.tolist() == pytest.approx([oracle.triangle_wave(value) for value in values.tolist()])


class TestStart:
    @pytest.mark.parametrize("size", [8, 32])
    def test_identity_to_the_bit(self, size):
        images = images_of(6, size, dtype=torch.float32)
        augmentation = at_start()
        found = augmentation(images, labels_of(6), augmentation.draw(images.shape, seeded()))
        assert torch.equal(found.images, images) and torch.equal(found.coloured, images)
        assert torch.equal(found.magnitudes, torch.zeros(3))

    def test_other_sizes_differ_by_the_rounding_of_the_grid(self):
        images = images_of(6, 28, dtype=torch.float32)
        augmentation = at_start()
        found = augmentation(images, labels_of(6), augmentation.draw(images.shape, seeded()))
        assert torch.equal(found.coloured, images)
        torch.testing.assert_close(found.images, images, rtol=0, atol=1e-5)

    def test_it_can_leave(self):
        """The gradient of the last layers is there from the first step, also of pixels that are black or white."""
        images = images_of(6, 8, dtype=torch.float32)
        images[0, :, 3, 3], images[0, :, 4, 4] = 0.0, 1.0
        augmentation = at_start()
        augmentation(images, labels_of(6), augmentation.draw(images.shape, seeded())).images.square().sum().backward()
        for name, parameter in augmentation.named_parameters():
            assert (parameter.grad.abs().max() > 0) == name.endswith("last"), name


class TestDraws:
    def test_parts_of_a_batch(self):
        """Two processes, or micro-batches, cut what both of them draw."""
        augmentation = at_start()
        draws, again = (augmentation.draw((8, 3, 8, 8), seeded(3)) for _ in range(2))
        for name in ("z", "gates", "kept", "channels", "alive"):
            whole = getattr(draws, name)
            assert torch.equal(whole, getattr(again, name))
            parts = [getattr(draws[rows], name) for rows in (slice(0, 4), slice(4, 8))]
            assert torch.equal(torch.cat(parts), whole)

    def test_nothing_else_is_random(self):
        augmentation, images, labels = trained(), images_of(4), labels_of(4)
        draws = augmentation.draw(images.shape, seeded())
        state = torch.get_rng_state()
        first = augmentation.train()(images, labels, draws).images
        second = augmentation.eval()(images, labels, draws).images
        assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)

    def test_dropout_leaves_a_fifth(self):
        draws = at_start().draw((2000, 3, 8, 8), seeded())
        assert draws.kept.double().mean().item() == pytest.approx(0.2, abs=0.002)
        assert draws.alive.sum(2).double().mean().item() == pytest.approx(0.2 * 128, rel=0.01)
        assert (dense_masks(draws).sum(2) == draws.alive.sum(2).numpy()).all()
        assert (dense_masks(draws).mean(0) > 0.1).all()

    def test_distribution_of_the_gate(self):
        """P(g <= t) = sigmoid(tau logit(t) - logit) of a relaxed Bernoulli; nearly all draws are 0 or 1."""
        logistic, logit = at_start().draw((20_000, 3, 1, 1), seeded()).gates, 0.7
        gates = torch.sigmoid((logit + logistic.double()) / oracle.TEMPERATURE)
        for threshold in (0.01, 0.3, 0.5, 0.9):
            expected = oracle.sigmoid(oracle.TEMPERATURE * math.log(threshold / (1 - threshold)) - logit)
            assert (gates <= threshold).double().mean(0).tolist() == pytest.approx([expected] * 2, abs=0.01)
        assert abs(np.corrcoef(logistic.T.numpy())[0, 1]) < 0.03


class TestGradients:
    def test_images_and_parameters(self):
        augmentation, labels = trained(), labels_of(4)
        images = images_of(5, 4)[:4]  # without padding: its mask jumps
        draws = augmentation.draw(images.shape, seeded(2))
        names, values = zip(*augmentation.named_parameters(), strict=True)

        def run(images, *values):
            phi = {name: value.unsqueeze(0) for name, value in zip(names, values, strict=True)}
            # Seldom is an image in the bend of its gate: there only has the gate a gradient.
            half_open = type(draws)(draws.z, 0.02 * draws.gates, draws.kept, draws.channels, draws.alive)
            found = augmentation(images, labels, half_open, phi)
            return found.images, found.coloured

        inputs = [images.requires_grad_(), *(value.detach().requires_grad_() for value in values)]
        assert torch.autograd.gradcheck(run, inputs, fast_mode=True, atol=1e-4, raise_exception=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1, MEAN, STD), "2 classes"), ((3, (0.5, 0.5), STD), "1 or 3"), ((3, MEAN, (0.2, 0.0, 0.2)), "positive std")],
)
def test_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        TeachAugmentation(*arguments)
