"""MixUp and CutMix: timm's to the bit, whatever the parts; what a soft label costs."""

import numpy as np
import pytest
import timm.data.mixup
import torch
import torch.nn.functional as F
from timm.loss import SoftTargetCrossEntropy

from hf_transinv.config import MixingConfig
from hf_transinv.data.mixing import MixDraws, Mixing, build_mixing, cut_box
from hf_transinv.divergences import cross_entropy
from hf_transinv.errors import InputError

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=8, side=16, classes=5):
    return torch.rand(size, 3, side, side, generator=seeded(1)), torch.arange(size) % classes


class Dice:
    """Stands for NumPy's generators, new and old: answers what it is told."""

    def __init__(self, switch, share, centre):
        self.uniform, self.share, self.centre = iter((0.0, switch)), share, iter(centre)

    def random(self):
        return next(self.uniform)

    def beta(self, *_):
        return self.share

    def integers(self, *_):
        return next(self.centre)

    def randint(self, *_, size):
        return next(self.centre)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.37, 0.8, 0.999])
@pytest.mark.parametrize("centre", [(0, 0), (5, 11), (15, 23)])
def test_the_box_is_timms(monkeypatch, share, centre):
    dice = Dice(0, share, centre)
    monkeypatch.setattr(np.random, "randint", dice.randint)
    top, bottom, left, right = timm.data.mixup.rand_bbox((3, 16, 24), share)
    assert cut_box((16, 24), share, centre) == (top, left, bottom, right)


@pytest.mark.parametrize(("mixup", "cutmix", "switch"), [(0.4, 0, 0), (0, 1, 0), (0.4, 1, 0.6), (0.4, 1, 0.4)])
def test_a_batch_is_mixed_as_timm_mixes_it(monkeypatch, mixup, cutmix, switch):
    """With the same share and centre, and the images in an order in which timm's pairs are ours."""
    images, labels = batch()
    monkeypatch.setattr(np.random, "default_rng", lambda _: Dice(switch, 0.37, (2, 9)))
    mixing = Mixing(MixingConfig(mixup=mixup, cutmix=cutmix), 5)
    (mixed,), targets = mixing([images], labels, mixing.draw(images.shape, 1, seeded(), CPU))

    order = torch.tensor([0, 2, 4, 6, 7, 5, 3, 1])
    theirs = timm.data.mixup.Mixup(mixup, cutmix, label_smoothing=0.1, num_classes=5)
    dice = Dice(switch, 0.37, (2, 9))
    for name, answer in {"rand": dice.random, "beta": dice.beta, "randint": dice.randint}.items():
        monkeypatch.setattr(np.random, name, answer)
    expected, smoothed = theirs(images[order].clone(), labels[order])
    assert not torch.equal(mixed, images)
    torch.testing.assert_close(mixed[order], expected)
    logits = torch.randn(8, 5, generator=seeded(2))
    ours = cross_entropy(logits, targets, label_smoothing=0.1).mean()
    torch.testing.assert_close(ours, SoftTargetCrossEntropy()(logits[order], smoothed))


def test_shares_and_switches_have_timms_distributions():
    mixing = Mixing(MixingConfig(mixup=0.4, cutmix=2.0, mixup_prob=0.75, mixup_switch_prob=0.3), 5)
    generator = seeded()
    drawn = [mixing.draw((4, 3, 64, 64), 1, generator, CPU) for _ in range(4000)]
    mixed = [one for one in drawn if one.share < 1]
    blended = torch.tensor([one.share for one in mixed if one.box is None])
    assert abs(len(mixed) / len(drawn) - 0.75) < 0.03
    assert abs(len(blended) / len(mixed) - 0.7) < 0.03
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(blended.mean() - 0.5) < 0.03 and abs(blended.var() - 1 / (4 * 1.8)) < 0.01
    for one in mixed:
        if one.box is not None:
            top, left, bottom, right = one.box
            assert one.share == pytest.approx(1 - (bottom - top) * (right - left) / 64**2)


def test_parts_are_mixed_as_the_whole_and_variants_alike():
    images, labels = batch()
    variants = [images, images.flip(3)]
    for config in (MixingConfig(mixup=1.0), MixingConfig(cutmix=1.0, random_erasing=0.7)):
        mixing = Mixing(config, 5)
        draws = mixing.draw(images.shape, 2, seeded(3), CPU)
        whole, targets = mixing(variants, labels, draws)
        for rows in (slice(0, 2), slice(2, 8)):
            part, own = mixing([one[rows] for one in variants], labels[rows], draws[rows])
            assert torch.equal(own, targets[rows])
            assert all(torch.equal(one, all_of_it[rows]) for one, all_of_it in zip(part, whole, strict=True))
        first, second = draws.erased or (None, None)
        assert first is second is None or not torch.equal(first.boxes, second.boxes)


def test_the_layout_in_memory_stays():
    images, labels = batch()
    images = images.contiguous(memory_format=torch.channels_last)
    for config in (MixingConfig(mixup=1.0), MixingConfig(cutmix=1.0), MixingConfig(random_erasing=1.0)):
        mixing = Mixing(config, 5)
        (mixed,), _ = mixing([images], labels, mixing.draw(images.shape, 1, seeded(), CPU))
        assert not torch.equal(mixed, images) and mixed.stride() == images.stride()


def test_an_odd_number_of_images_is_refused():
    images, labels = batch(7)
    with pytest.raises(InputError, match=r"one of 7 images has none.*an even number"):
        Mixing(MixingConfig(mixup=1.0), 5)([images], labels, MixDraws(0.3))


def test_what_is_not_mixed_keeps_its_labels_and_draws_no_number():
    images, labels = batch(7)
    mixing = Mixing(MixingConfig(class_weights="balanced"), 5, torch.ones(5))
    generator = seeded()
    before = generator.get_state()
    (same,), own = mixing([images], labels, mixing.draw(images.shape, 1, generator, CPU))
    assert same is images and own is labels and torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 3.0, 1.0, 0.5, 0.3])])
def test_a_soft_label_costs_the_weighted_sum_of_the_hard_ones(smoothing, weights):
    """Loss and gradient, also under weights of classes."""
    logits = torch.randn(6, 5, dtype=torch.float64, generator=seeded(), requires_grad=True)
    first, second = torch.arange(6) % 5, torch.arange(6).flip(0) % 5
    shares = 0.3 * F.one_hot(first, 5).float() + 0.7 * F.one_hot(second, 5).float()
    soft = cross_entropy(logits, shares, smoothing, weights)
    hard = [cross_entropy(logits, labels, smoothing, weights) for labels in (first, second)]
    expected = 0.3 * hard[0] + 0.7 * hard[1]
    torch.testing.assert_close(soft, expected, rtol=1e-6, atol=0)
    slopes = [torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (soft, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-7)


def test_class_weights_are_torchs():
    logits, labels = torch.randn(6, 5, generator=seeded()), torch.tensor([0, 0, 0, 1, 2, 4])
    weights = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0])
    found = cross_entropy(logits, labels, class_weights=weights)
    torch.testing.assert_close(found, -weights[labels] * logits.log_softmax(1)[torch.arange(6), labels])
    expected = F.cross_entropy(logits, labels, weights)  # divided by the sum of the weights
    torch.testing.assert_close(found.sum() / weights[labels].sum(), expected)


def test_class_weights_need_counts():
    config = MixingConfig(class_weights="balanced")
    assert build_mixing(config, 2, [3, 1], CPU).class_weights.tolist() == pytest.approx([4 / 6, 2])
    with pytest.raises(InputError, match="which this stream does not say: leave out"):
        build_mixing(config, 2, None, CPU)
    assert build_mixing(MixingConfig(sampler="balanced"), 2, None, CPU) is None
