"""Strata, samples, and the two estimators of the gradient of p, q and r against the enumerated one."""

import math

import pytest
import torch
from scipy.stats import chi2

from hf_transinv.augment.selection import (
    Draws,
    entropy,
    expected_objectives,
    mean_by_model,
    relaxed_bernoulli,
    relaxed_categorical,
    sample_gumbel,
    sampled_choices,
    stratified_choices,
)

L, K, B = 2, 3, 24


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def z_scores(samples, exact):
    """How many standard errors the mean of samples [N, ...] lies from `exact`."""
    error = samples.std(0) / math.sqrt(len(samples))
    return (samples.mean(0) - exact).abs() / error.clamp_min(1e-12)


class TestStrata:
    @pytest.mark.parametrize("batch", [8, 13, 64, 129])
    def test_shares_of_every_stratum_sum_to_one(self, batch):
        model, choice, share = stratified_choices(batch, L, K + 1, seeded())
        for k in range(L):
            for i in range(K + 1):
                torch.testing.assert_close(share[(model == k) & (choice == i)].sum().item(), 1.0)
        sizes = torch.bincount(model * (K + 1) + choice)
        assert sizes.max() - sizes.min() <= 1

    @pytest.mark.parametrize("batch", [1, 3, 7])
    def test_few_images_are_unbiased(self, batch):
        """Horvitz-Thompson: with fewer images than strata each stratum's mean of 1 is right in the mean over draws."""
        draws = 600
        generator, totals = seeded(), torch.zeros(draws, L * (K + 1), dtype=torch.float64)
        for n in range(draws):
            model, choice, share = stratified_choices(batch, L, K + 1, generator)
            assert len(set((model * (K + 1) + choice).tolist())) == batch
            totals[n].index_add_(0, model * (K + 1) + choice, share.double())
        assert (z_scores(totals, 1.0) < 4).all()

    def test_position_does_not_tell_the_stratum(self):
        generator = seeded()
        first = [stratified_choices(16, L, K + 1, generator) for _ in range(800)]
        counts = torch.bincount(torch.stack([model[0] * (K + 1) + choice[0] for model, choice, _ in first]))
        expected = 800 / (L * (K + 1))
        assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, L * (K + 1) - 1)

    def test_replays(self):
        first, second = stratified_choices(13, L, K, seeded(3)), stratified_choices(13, L, K, seeded(3))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_sampled_frequencies_follow_r_q_p():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    q, r, n = torch.tensor([0.8, 0.3]), torch.tensor([0.25, 0.75]), 40_000
    model, choice, share = sampled_choices(n, p, q, r, seeded())
    observed = torch.zeros(L, K + 1).index_put((model, choice), torch.ones(n), accumulate=True)
    expected = torch.empty(L, K + 1)
    for k in range(L):
        for i in range(K):
            expected[k, i] = n * r[k] * q[k] * p[k, i]
        expected[k, K] = n * r[k] * (1 - q[k])
    assert ((observed - expected) ** 2 / expected).sum() < chi2.ppf(0.999, L * (K + 1) - 1)
    assert torch.equal(share, torch.full((n,), 1 / n))


def test_certain_probabilities_are_obeyed():
    p, q = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([1.0, 0.0])
    model, choice, _ = sampled_choices(50, p, q, torch.tensor([1.0, 0.0]), seeded())
    assert (model == 0).all() and (choice == 1).all()
    model, choice, _ = sampled_choices(50, p, q, torch.tensor([0.0, 1.0]), seeded())
    assert (model == 1).all() and (choice == K).all()


def test_draws_are_sliced_row_by_row():
    rows = torch.arange(6)
    whole = Draws(rows[:, None], rows, rows, torch.ones(2, 3), rows, rows, (rows[:, None], rows), torch.ones(L))
    part = whole[2:4]
    assert part.z[:, 0].tolist() == part.model.tolist() == part.choice.tolist() == [2, 3]
    assert part.noise_row.tolist() == part.share.tolist() == part.gumbel[1].tolist() == [2, 3]
    assert part.noise is whole.noise and part.gumbel_r is whole.gumbel_r


class Problem:
    """A problem whose gradient can be enumerated: an image is a number, a primitive adds one to it, the objective
    is `curve` of the result."""

    def __init__(self, curve):
        self.curve = curve
        self.logits_p = torch.tensor([[0.5, -0.7, 0.2], [-0.3, 0.9, 0.1]], dtype=torch.float64, requires_grad=True)
        self.logits_q = torch.tensor([0.4, -0.6], dtype=torch.float64, requires_grad=True)
        self.logits_r = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
        self.shift = torch.tensor([[0.9, -0.4, 0.1], [-0.8, 0.6, 0.3]], dtype=torch.float64)
        self.pixel = 0.3 * torch.randn(B, generator=seeded(7), dtype=torch.float64)
        # 0 for the image itself, so that [k, K] is "clean".
        moved = torch.cat([self.shift, torch.zeros(L, 1, dtype=torch.float64)], dim=1)
        self.table = curve(self.pixel[:, None, None] + moved)

    @property
    def parameters(self):
        return self.logits_p, self.logits_q, self.logits_r

    def probabilities(self):
        return self.logits_p.softmax(1), self.logits_q.sigmoid(), self.logits_r.softmax(0)

    def gradients(self, objectives, r):
        """Of sum_k O_k to the logits of p and q, of sum_k r_k O_k to those of r, as TransInv has it: [L K + L + L]."""
        total = objectives.sum() + (r * objectives.detach()).sum()
        gradients = torch.autograd.grad(total, self.parameters)
        return torch.cat([gradient.reshape(-1) for gradient in gradients])

    def exact(self):
        """Every image under every choice."""
        p, q, r = self.probabilities()
        objectives = []
        for k in range(L):
            mean = 0.0
            for b in range(B):
                mean = mean + (1 - q[k]) * self.table[b, k, K] / B
                for i in range(K):
                    mean = mean + q[k] * p[k, i] * self.table[b, k, i] / B
            objectives.append(mean)
        return self.gradients(torch.stack(objectives), r)

    def expectation(self, images, generator):
        """One turn of `expectation` on the first `images` of a shuffled batch."""
        p, q, r = self.probabilities()
        model, choice, share = stratified_choices(images, L, K + 1, generator)
        row = torch.randperm(B, generator=generator)[:images]
        return self.gradients(expected_objectives(self.table[row, model, choice], model, choice, share, p, q), r)

    def gumbel(self, temperature, hard, generator):
        """One turn of `gumbel`."""
        p, q, r = self.probabilities()
        model, _, share = stratified_choices(B, L, 1, generator)
        weights = relaxed_categorical(p.log()[model], sample_gumbel((B, K), generator), temperature, hard)
        logistic = torch.logit(torch.rand(B, generator=generator).clamp(1e-7, 1 - 1e-7))
        applied = relaxed_bernoulli(torch.logit(q)[model], logistic, temperature, hard)
        mixed = (weights * (self.pixel[:, None] + self.shift[model])).sum(1)
        objective = self.curve(torch.lerp(self.pixel, mixed, applied))
        chosen = relaxed_categorical(r.log(), sample_gumbel((L,), generator), temperature, hard)
        return self.gradients(mean_by_model(objective, model, share, L), chosen)


def bent(x):
    """Nonlinear in the mixed image, as a network is."""
    return torch.sin(3 * x) + x**2


class TestEstimators:
    @pytest.mark.parametrize("images", [B, 11, 5])
    def test_expectation_is_unbiased(self, images):
        """5 images are fewer than the 8 strata."""
        problem, generator = Problem(bent), seeded(1)
        samples = torch.stack([problem.expectation(images, generator) for _ in range(500)])
        assert (z_scores(samples, problem.exact()) < 4).all()

    def test_expectation_is_exact_without_variation_between_images(self):
        problem = Problem(bent)
        problem.table = problem.table[:1].expand_as(problem.table)
        torch.testing.assert_close(problem.expectation(B, seeded(1)), problem.exact(), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("hard", [False, True])
    def test_gumbel_is_biased(self, hard):
        """Some coordinate of p and some of q lie far outside what chance explains, and by an amount that matters."""
        problem, generator = Problem(bent), seeded(1)
        samples = torch.stack([problem.gumbel(1.0, hard, generator) for _ in range(800)])
        exact = problem.exact()
        scores, bias = z_scores(samples, exact), (samples.mean(0) - exact).abs()
        for part in (slice(0, L * K), slice(L * K, L * K + L)):
            assert scores[part].max() > 10
            assert bias[part].max() > 0.2 * exact[part].abs().max()

    def test_soft_gumbel_loses_its_bias_as_the_temperature_falls(self):
        problem = Problem(bent)
        exact, bias = problem.exact(), []
        for temperature in (1.0, 0.1):
            generator = seeded(1)
            samples = torch.stack([problem.gumbel(temperature, False, generator) for _ in range(800)])
            bias.append((samples.mean(0) - exact)[: L * K + L].norm())
        assert bias[1] < 0.5 * bias[0]


class TestRelaxation:
    def test_hard_samples_have_the_right_frequencies(self):
        """The Gumbel-max and logistic tricks: hard samples follow p and q whatever the temperature."""
        p, n = torch.tensor([0.6, 0.3, 0.1]), 20_000
        one_hot = relaxed_categorical(p.log(), sample_gumbel((n, K), seeded()), 0.3, True)
        torch.testing.assert_close(one_hot.sum(1), torch.ones(n))
        counts = one_hot.sum(0)
        assert ((counts - n * p) ** 2 / (n * p)).sum() < chi2.ppf(0.999, K - 1)
        logistic = torch.logit(torch.rand(n, generator=seeded(2)).clamp(1e-7, 1 - 1e-7))
        applied = relaxed_bernoulli(torch.logit(torch.tensor(0.2)), logistic, 0.3, True)
        assert abs(applied.sum() - 0.2 * n) < 4 * math.sqrt(n * 0.2 * 0.8)

    def test_straight_through_has_the_relaxed_gradient(self):
        logits, gumbel = torch.tensor([0.1, -0.5, 0.4], dtype=torch.float64), sample_gumbel((K,), seeded()).double()
        weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        gradients = []
        for hard in (False, True):
            own = logits.clone().requires_grad_()
            (relaxed_categorical(own, gumbel, 0.7, hard) * weights).sum().backward()
            gradients.append(own.grad)
        torch.testing.assert_close(*gradients)

    def test_gradients(self):
        logits, gumbel = torch.randn(4, K, dtype=torch.float64, generator=seeded()), sample_gumbel((4, K), seeded(1))
        assert torch.autograd.gradcheck(
            lambda x: relaxed_categorical(x, gumbel.double(), 0.7, False), logits.requires_grad_()
        )
        logit = torch.randn(5, dtype=torch.float64, generator=seeded(2)).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: relaxed_bernoulli(x, torch.zeros_like(x), 0.7, False), logit)


def test_gumbel_noise_has_the_gumbel_mean_and_variance():
    noise = sample_gumbel((100_000,), seeded())
    assert abs(noise.mean() - 0.5772156649) < 4 * 1.2825 / math.sqrt(1e5)
    assert abs(noise.var() - math.pi**2 / 6) < 0.05


def test_entropy():
    values = entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    torch.testing.assert_close(values, torch.tensor([math.log(4), 0.0, math.log(2)]))
