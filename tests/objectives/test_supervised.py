"""Supervised training and the shared divergences against slow references."""

import math

import pytest
import torch

from hf_transinv.augment.policies.corruption import RandomCorruption
from hf_transinv.divergences import cross_entropy, kl_divergence, soft_cross_entropy
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.turns import Batch
from tests.objectives.tiny import classifier, pixels, seeded
from tests.oracles import transinv as oracle


def batch_of(size, part=slice(None), scale=1):
    return Batch(pixels(size)[part], (torch.arange(size) % 5)[part], size, scale)


def slow_loss(student, images, labels, smoothing):
    """mean_i of the cross-entropy with (1 - s) one-hot + s / C."""
    total = 0.0
    for logits, label in zip(student(images).double(), labels.tolist(), strict=True):
        total += (1 - smoothing) * oracle.label_loss(logits, label).item()
        total += smoothing * sum(oracle.label_loss(logits, c).item() for c in range(len(logits))) / len(logits)
    return total / len(images)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss(smoothing):
    student, batch = classifier(5), batch_of(6)
    objective = Supervised(student, smoothing)
    draws = objective.draw("student", batch.images.shape, seeded())
    total = objective.loss("student", objective.players, batch, draws)["total"]
    expected = slow_loss(student, batch.images, batch.labels, smoothing)
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1, 2])
def test_parts_add_up(scale):
    objective = Supervised(classifier(5))
    draws = objective.draw("student", (8, 3, 8, 8), seeded())
    whole = objective.loss("student", objective.players, batch_of(8), draws)["total"]
    parts = [batch_of(8, part, scale) for part in (slice(0, 3), slice(3, 8))]
    summed = sum(objective.loss("student", objective.players, part, draws)["total"] for part in parts) / scale
    torch.testing.assert_close(summed, whole)


def test_policies_are_applied_as_drawn_one_after_another():
    student, batch = classifier(5, size=32), batch_of(12)
    policies = (RandomCorruption(["contrast"], 0.5), RandomCorruption(["brightness"], 0.5))
    batch = Batch(pixels(12, 32), batch.labels, 12)
    objective = Supervised(student, policies=policies)
    draws = objective.draw("student", batch.images.shape, seeded())
    contrast, brightness = draws.of_policies
    corrupted = policies[1](policies[0](batch.images, contrast), brightness)
    assert not torch.equal(corrupted, batch.images)
    total = objective.loss("student", objective.players, batch, draws)["total"]
    assert total.item() == pytest.approx(slow_loss(student, corrupted, batch.labels, 0.0), rel=1e-5)


class TestDivergences:
    def test_values(self):
        target, logits = (3 * torch.randn(5, 4, generator=seeded(seed)) for seed in (0, 1))
        for b in range(5):
            for function, keep in ((soft_cross_entropy, "cross_entropy"), (kl_divergence, "kl")):
                expected = oracle.teacher_loss(target[b].double(), logits[b].double(), keep).item()
                assert function(target, logits)[b].item() == pytest.approx(expected, rel=1e-5)
            expected = oracle.label_loss(logits[b].double(), b % 4).item()
            assert cross_entropy(logits, torch.arange(5) % 4)[b].item() == pytest.approx(expected, rel=1e-5)

    def test_kl_and_cross_entropy_have_the_same_gradient(self):
        target, gradients = torch.randn(5, 4, generator=seeded()), []
        for function in (soft_cross_entropy, kl_divergence):
            logits = torch.randn(5, 4, generator=seeded(1)).requires_grad_()
            function(target, logits).sum().backward()
            gradients.append(logits.grad)
        torch.testing.assert_close(*gradients)

    def test_extreme_logits_stay_finite(self):
        sure, other = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
        assert kl_divergence(sure, sure).item() == 0
        assert kl_divergence(sure, other).item() == pytest.approx(400)

    def test_known_values(self):
        uniform, sure = torch.zeros(1, 10), 100 * torch.eye(10)[:1]
        assert soft_cross_entropy(uniform, uniform).item() == pytest.approx(math.log(10))
        assert kl_divergence(sure, uniform).item() == pytest.approx(math.log(10))

    def test_half_precision_is_computed_in_single(self):
        target, logits = (torch.randn(5, 4, generator=seeded(seed)).bfloat16() for seed in (0, 1))
        labels = torch.arange(5) % 4
        for value in (
            kl_divergence(target, logits),
            soft_cross_entropy(target, logits),
            cross_entropy(logits, labels),
        ):
            assert value.dtype == torch.float32
        torch.testing.assert_close(kl_divergence(target, logits), kl_divergence(target.float(), logits.float()))
