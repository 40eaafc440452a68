"""The shared formulas against slow references, at their extremes, and their gradients."""

import math

import pytest
import torch

from hf_transinv import divergences
from tests.objectives.tiny import seeded
from tests.oracles import losses as oracle


def logits(count, batch=6, classes=5, dtype=torch.float64):
    return [3 * torch.randn(batch, classes, generator=seeded(seed), dtype=dtype) for seed in range(count)]


def rows(function, *arguments):
    """A reference, image by image."""
    lists = zip(*(argument.tolist() for argument in arguments), strict=True)
    return torch.tensor([function(*one) for one in lists], dtype=torch.float64)


def test_symmetric_kl():
    first, second = logits(2)
    expected = rows(oracle.ai_loss, first, second)
    torch.testing.assert_close(divergences.symmetric_kl(first, second), expected)
    torch.testing.assert_close(divergences.symmetric_kl(first, second, detach_target=True), expected)
    torch.testing.assert_close(divergences.symmetric_kl(second, first), expected)


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_of_symmetric_kl_by_hand(detach):
    """d KL(p2 || p1) / d l1 = p1 - p2, and through the left side d KL(p1 || p2) / d l1 = p1 (ln p1/p2 - KL)."""
    first, second = logits(2)
    first.requires_grad_()
    divergences.symmetric_kl(first, second, detach).sum().backward()
    for slope, one, two in zip(first.grad.tolist(), first.tolist(), second.tolist(), strict=True):
        p_1, p_2 = oracle.probabilities(one), oracle.probabilities(two)
        for c, value in enumerate(slope):
            expected = p_1[c] - p_2[c]
            if not detach:
                expected += p_1[c] * (math.log(p_1[c] / p_2[c]) - oracle.kl(p_1, p_2))
            assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_jensen_shannon(count):
    each = logits(count)
    torch.testing.assert_close(divergences.jensen_shannon(*each), rows(oracle.jensen_shannon, *each))


def test_jensen_shannon_at_its_ends():
    same, _ = logits(2)
    torch.testing.assert_close(divergences.jensen_shannon(same, same, same), torch.zeros(6, dtype=torch.float64))
    sure = 300 * torch.eye(3)
    apart = divergences.jensen_shannon(sure[:1], sure[1:2], sure[2:])
    assert apart.item() == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k(k, renormalise, temperature):
    teacher, student = logits(2)
    expected = rows(lambda t, s: oracle.top_k(t, s, k, temperature, renormalise), teacher, student)
    found = divergences.top_k_kl(teacher, student, k, temperature, renormalise)
    torch.testing.assert_close(found, expected)
    if k == 5:
        torch.testing.assert_close(found, divergences.kl_divergence(teacher, student, temperature))
        torch.testing.assert_close(found, divergences.kl_divergence(teacher / temperature, student / temperature))


def test_top_k_by_hand():
    """f_T = (1/2, 1/4, 1/4), f_S = (1/4, 1/4, 1/2): the first class alone has 1/2 ln 2."""
    teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
    student = torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert divergences.top_k_kl(teacher, student, 1).item() == pytest.approx(0.5 * math.log(2))
    assert divergences.top_k_kl(student, teacher, 1).item() == pytest.approx(0.5 * math.log(2))


def test_top_k_is_smallest_with_all_the_mass_on_the_k():
    """Its gradient vanishes at the teacher's proportions on K classes and nothing elsewhere, where it is negative."""
    teacher = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    student = torch.tensor([[math.log(4 / 7), math.log(3 / 7), -60.0, -60.0]], dtype=torch.float64, requires_grad=True)
    value = divergences.top_k_kl(teacher, student, 2)
    (slope,) = torch.autograd.grad(value.sum(), student)
    assert slope.abs().max() < 1e-12 and value.item() < 0


def test_euclidean():
    first, second = logits(2)
    torch.testing.assert_close(divergences.euclidean_distance(first, second), rows(oracle.euclidean, first, second))
    equal = first.clone().requires_grad_()
    divergences.euclidean_distance(equal, first).sum().backward()
    assert torch.equal(equal.grad, torch.zeros_like(first))


@pytest.mark.parametrize(
    "function",
    [
        divergences.symmetric_kl,
        divergences.jensen_shannon,
        divergences.euclidean_distance,
        divergences.kl_divergence,
        divergences.soft_cross_entropy,
        lambda a, b: divergences.kl_divergence(a, b, 4.0),
        lambda a, b: divergences.top_k_kl(a, b, 2, 2.0),
        lambda a, b: divergences.top_k_kl(a, b, 2, 2.0, True),
    ],
)
def test_gradients(function):
    arguments = [one.requires_grad_() for one in logits(2, batch=3)]
    assert torch.autograd.gradcheck(function, arguments)


def test_extreme_logits_stay_finite():
    sure, other = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    assert divergences.symmetric_kl(sure, other).item() == pytest.approx(800)
    assert divergences.jensen_shannon(sure, other).item() == pytest.approx(math.log(2))
    assert divergences.top_k_kl(sure, other, 1).item() == pytest.approx(400)


def test_half_precision_is_computed_in_single():
    first, second = (one.bfloat16() for one in logits(2))
    for function in (divergences.symmetric_kl, divergences.jensen_shannon, divergences.euclidean_distance):
        assert function(first, second).dtype == torch.float32
        torch.testing.assert_close(function(first, second), function(first.float(), second.float()))
    cool = divergences.top_k_kl(first, second, 2, 10.0)
    torch.testing.assert_close(cool, divergences.top_k_kl(first.float(), second.float(), 2, 10.0))
