"""The augmentation models: what was drawn is what an image gets, no more and no less."""

import pytest
import torch

from hf_transinv.augment.batched_phi import learned_parameters
from hf_transinv.augment.corruptions import corrupt
from hf_transinv.augment.fixed_primitives import PRIMITIVE_POLICIES
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel, Selection
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.augment.selection import Draws, expected_objectives
from hf_transinv.errors import InputError

CPU = torch.device("cpu")
K = 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=12, size=8, seed=0):
    return torch.rand(batch, 3, size, size, generator=seeded(seed))


def build(models=2, **fields):
    torch.manual_seed(0)
    panel = AugmentationPanel(models, AugmentationConfig(**fields))
    with torch.no_grad():  # distinct, and away from the uniform start
        panel.logits_r.normal_(generator=seeded(1))
        for model in panel.models:
            model.logits_p.normal_(generator=seeded(2))
            model.logit_q.add_(0.7)
    return panel


def probabilities(panel):
    return Selection(*(values.detach() for values in panel.selection()))


def draw(panel, images, strata, seed=5):
    if strata:
        return panel.draw_strata(images.shape, CPU, seeded(seed))
    return panel.draw_samples(images.shape, CPU, seeded(seed), probabilities(panel))


def one_by_one(panel, images, draws):
    """Each image on its own, by the primitive that was drawn for it."""
    rows = []
    for b in range(len(images)):
        model, choice = panel.models[int(draws.model[b])], int(draws.choice[b])
        if choice == K:
            rows.append(images[b : b + 1])
            continue
        primitive = model.primitives[choice]
        noise = draws.noise[draws.noise_row[b]][None] if primitive.uses_noise else None
        rows.append(primitive.apply_to(images[b : b + 1], primitive(draws.z[b : b + 1]), noise))
    return torch.cat(rows)


def flat(draws):
    return [draws.z, draws.model, draws.choice, draws.noise, draws.noise_row, draws.share, *(draws.gumbel or ())]


class TestChosen:
    @pytest.mark.parametrize("strata", [True, False])
    @pytest.mark.parametrize("batch", [1, 3, 30])
    def test_each_image_gets_the_primitive_drawn_for_it(self, batch, strata):
        panel, images = build(), pixels(batch, 32)
        draws = draw(panel, images, strata)
        deformed, _ = panel(images, draws)
        torch.testing.assert_close(deformed, one_by_one(panel, images, draws), rtol=1e-5, atol=1e-5)
        clean = draws.choice == K
        assert torch.equal(deformed[clean], images[clean])
        assert all(not torch.equal(deformed[b], images[b]) for b in (~clean).nonzero().squeeze(1).tolist())
        assert deformed.min() >= 0 and deformed.max() <= 1

    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
    def test_images_keep_their_memory_format(self, layout):
        panel, images = build(), pixels(12).contiguous(memory_format=layout)
        deformed, _ = panel(images, draw(panel, images, True))
        assert deformed.is_contiguous(memory_format=layout)

    def test_only_drawn_images_are_deformed(self, monkeypatch):
        panel, images = build(), pixels(20)
        draws, deformed = draw(panel, images, False), {}
        for i, primitive in enumerate(panel.models[0].primitives):

            def noted(images, *rest, i=i, own=primitive.apply_to):
                deformed[i] = len(images)
                return own(images, *rest)

            monkeypatch.setattr(primitive, "apply_to", noted)
        panel(images, draws)
        assert deformed == {i: int((draws.choice == i).sum()) for i in range(K)}

    @pytest.mark.parametrize("models", [1, 3])
    def test_parameters_are_those_of_the_image_s_own_network(self, models):
        """One product for all networks against each network alone; a corruption between them has none."""
        config = AugmentationConfig(("geometric", "contrast:3", "gaussian_noise", "gaussian_blur"))
        panel, generator = AugmentationPanel(models, config), seeded(2)
        z = torch.randn(24, config.primitive.latent_dim, generator=generator)
        model, choice = torch.arange(24) % models, torch.arange(24) % 5
        found = learned_parameters([model.primitives for model in panel.models], z, model, choice)
        assert found[1] is None
        for b in range(24):
            if choice[b] not in (1, 4):
                expected = panel.models[int(model[b])].primitives[int(choice[b])](z[b][None])[0]
                torch.testing.assert_close(found[int(choice[b])][b], expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(("estimator", "strata"), [("expectation", False), ("gumbel", True)])
    def test_every_image_has_noise_of_its_own(self, estimator, strata):
        panel, images = build(estimator=estimator), pixels(20)
        draws = draw(panel, images, strata)
        noisy = torch.ones(20, dtype=torch.bool) if estimator == "gumbel" else draws.choice == 3
        assert (
            draws.noise_row[noisy].tolist() == list(range(len(draws.noise))) and (draws.noise_row[~noisy] == -1).all()
        )
        assert len(draws.noise.flatten(1).unique(dim=0)) == len(draws.noise)

    def test_a_primitive_that_nobody_drew_still_has_a_gradient(self):
        """Of zero: in a run of several processes every parameter takes part on every one."""
        panel, images = build(), pixels(1)
        draws = draw(panel, images, False)
        deformed, selection = panel(images, draws)
        (deformed.sum() + sum(values.sum() for values in selection)).backward()
        assert all(parameter.grad is not None for parameter in panel.parameters())

    def test_gradients_stay_with_the_model_that_was_drawn(self):
        panel, images = build(), pixels(20)
        draws = draw(panel, images, True)
        weights = torch.randn(images.shape, generator=seeded(3)) * (draws.model == 1).view(-1, 1, 1, 1)
        (panel(images, draws)[0] * weights).sum().backward()
        assert all(parameter.grad.abs().max() == 0 for parameter in panel.models[0].primitives.parameters())
        assert all(parameter.grad.abs().max() > 0 for parameter in panel.models[1].primitives.parameters())


@pytest.mark.parametrize(("estimator", "strata"), [("expectation", True), ("expectation", False), ("gumbel", True)])
class TestReplay:
    def test_same_generator_state_same_images(self, estimator, strata):
        panel, images = build(estimator=estimator), pixels()
        first, second = draw(panel, images, strata), draw(panel, images, strata)
        assert all(torch.equal(a, b) for a, b in zip(flat(first), flat(second), strict=True))
        assert torch.equal(panel(images, first)[0], panel(images, second)[0])
        assert not torch.equal(panel(images, draw(panel, images, strata, seed=6))[0], panel(images, first)[0])

    def test_sliced_is_the_whole_cut(self, estimator, strata):
        """To the bit but for the MLPs, whose matrix product rounds differently when it has fewer rows."""
        panel, images = build(estimator=estimator), pixels()
        draws = draw(panel, images, strata)
        whole = panel(images, draws)[0]
        parts = torch.cat([panel(images[b : b + 4], draws[b : b + 4])[0] for b in range(0, 12, 4)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
        for model in panel.models:
            for primitive in model.primitives:
                torch.nn.init.zeros_(primitive.last.weight)
        whole = panel(images, draws)[0]
        parts = torch.cat([panel(images[b : b + 4], draws[b : b + 4])[0] for b in range(0, 12, 4)])
        assert torch.equal(parts, whole)


class TestRelaxed:
    def chosen(self, panel, draws):
        """The choice that straight-through Gumbel-Softmax makes: the largest of log p + g, and logit q + l > 0."""
        selection = probabilities(panel)
        primitive = (selection.p.log()[draws.model] + draws.gumbel[0]).argmax(1)
        applied = torch.logit(selection.q)[draws.model] + draws.gumbel[1] > 0
        choice = torch.where(applied, primitive, K)
        return Draws(draws.z, draws.model, choice, draws.noise, draws.noise_row, draws.share)

    def test_hard_samples_give_the_chosen_images(self):
        panel, images = build(estimator="gumbel"), pixels(40)
        draws = draw(panel, images, True)
        chosen = self.chosen(panel, draws)
        assert set(chosen.choice.tolist()) == set(range(K + 1))
        torch.testing.assert_close(panel(images, draws)[0], panel(images, chosen)[0], rtol=0, atol=1e-5)

    def test_soft_samples_are_mixtures(self):
        """Recomputed one image at a time: b sum_i g_i a_i(x) + (1 - b) x."""
        panel, images = build(estimator="gumbel", gumbel_hard=False, gumbel_temperature=0.7), pixels(6)
        draws, selection = draw(panel, images, True), probabilities(panel)
        deformed = panel(images, draws)[0]
        for b in range(6):
            k = int(draws.model[b])
            g = ((selection.p[k].log() + draws.gumbel[0][b]) / 0.7).softmax(0)
            applied = ((selection.q[k].logit() + draws.gumbel[1][b]) / 0.7).sigmoid()
            mixed = 0
            for i, primitive in enumerate(panel.models[k].primitives):
                noise = draws.noise[draws.noise_row[b]][None]
                mixed = mixed + g[i] * primitive.apply_to(images[b][None], primitive(draws.z[b][None]), noise)[0]
            torch.testing.assert_close(deformed[b], applied * mixed + (1 - applied) * images[b], rtol=0, atol=1e-5)

    def test_gradient_reaches_p_q_and_phi(self):
        panel, images = build(estimator="gumbel", gumbel_hard=False), pixels(8)
        weights = torch.randn(images.shape, generator=seeded(3))
        (panel(images, draw(panel, images, True))[0] * weights).sum().backward()
        for model in panel.models:
            assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())

    def test_saturated_q_keeps_gradients_finite(self):
        panel, images = build(estimator="gumbel"), pixels(8)
        with torch.no_grad():
            panel.models[0].logit_q.fill_(40.0)
            panel.models[1].logit_q.fill_(-40.0)
        panel(images, draw(panel, images, True))[0].sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in panel.models.parameters() if p.grad is not None)

    def test_without_noise_none_is_drawn(self):
        panel, images = build(estimator="gumbel", primitives=("geometric", "gaussian_blur")), pixels()
        draws = draw(panel, images, True)
        assert len(draws.noise) == 0 and panel(images, draws)[0].shape == images.shape

    def test_student_turns_draw_true_choices(self):
        panel, images = build(estimator="gumbel"), pixels()
        assert draw(panel, images, False).gumbel is None


class TestSelection:
    def test_sums_to_one_and_starts_uniform(self):
        selection = AugmentationPanel(3, AugmentationConfig(q_init=0.3)).selection()
        torch.testing.assert_close(selection.p, torch.full((3, K), 1 / K))
        torch.testing.assert_close(selection.q, torch.full((3,), 0.3))
        torch.testing.assert_close(selection.r, torch.full((3,), 1 / 3))
        torch.testing.assert_close(selection.multipliers, torch.ones(3, K))
        moved = build(3).selection()
        torch.testing.assert_close(moved.p.sum(1), torch.ones(3))
        torch.testing.assert_close(moved.r.sum(), torch.tensor(1.0))

    def test_models_are_independent(self):
        panel = build(2)
        assert not {p.data_ptr() for p in panel.models[0].parameters()} & {
            p.data_ptr() for p in panel.models[1].parameters()
        }
        z = torch.randn(4, 32, generator=seeded())
        assert not torch.equal(panel.models[0].primitives[0](z), panel.models[1].primitives[0](z))


def test_preview_shows_every_primitive_of_every_model():
    panel, images = build(3), pixels(4)
    shown = panel.preview(images, seeded(8))
    assert shown.shape == (3, K, 4, 3, 8, 8) and not shown.requires_grad
    assert torch.equal(shown, panel.preview(images, seeded(8)))
    generator = seeded(8)
    z, noise = torch.randn(4, 32, generator=generator), torch.randn(images.shape, generator=generator)
    for k, model in enumerate(panel.models):
        for i in range(K):
            expected = model.primitives[i].apply_to(images, model.primitives[i](z), noise)
            assert torch.equal(shown[k, i], expected.detach())


@pytest.mark.parametrize("estimator", ["expectation", "gumbel"])
def test_stays_float32_under_autocast(estimator):
    panel, images = build(estimator=estimator), pixels()
    draws = draw(panel, images, True)
    plain, _ = panel(images, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        deformed, selection = panel(images, draws)
    assert deformed.dtype == torch.float32 and all(values.dtype == torch.float32 for values in selection)
    assert torch.equal(deformed, plain)


def test_fields_of_the_primitives_arrive():
    panel = AugmentationPanel(1, AugmentationConfig(primitive=PrimitiveConfig(latent_dim=5, hidden_dim=7)))
    assert panel.models[0].primitives[0].hidden.weight.shape == (7, 5)
    assert draw(panel, pixels(), True).z.shape == (12, 5)


class TestFixedPrimitives:
    """Corruptions of the benchmark at set strength (section 4.1), and fixed policies, as primitives."""

    NAMES = ("contrast:3", "gaussian_noise:5", "geometric")

    def test_each_image_gets_the_corruption_drawn_for_it(self):
        panel, images = build(models=1, primitives=self.NAMES), pixels(20)
        draws = draw(panel, images, True)
        deformed = panel(images, draws)[0]
        contrasted, noisy = draws.choice == 0, draws.choice == 1
        assert torch.equal(deformed[contrasted], corrupt(images[contrasted], "contrast", 3))
        expected = corrupt(images[noisy], "gaussian_noise", 5, torch.Generator().manual_seed(draws.seed))
        assert torch.equal(deformed[noisy], expected)
        assert torch.equal(deformed, panel(images, draws)[0])

    @pytest.mark.parametrize(("severity", "lower"), [(2.4, 2), (0.4, 0), (4.4, 4)])
    def test_between_two_severities_an_image_has_one_of_them(self, severity, lower):
        panel, images = build(models=1, primitives=(f"contrast:{severity}",), q_init=0.999), pixels(400)
        draws = draw(panel, images, False)
        assert (draws.choice == 0).sum() > 390
        images, deformed = images[draws.choice == 0], panel(images, draws)[0][draws.choice == 0]
        below = corrupt(images, "contrast", lower) if lower else images
        above = corrupt(images, "contrast", lower + 1)
        is_below, is_above = ((deformed == one).flatten(1).all(1) for one in (below, above))
        assert (is_below ^ is_above).all()
        assert 0.32 < is_above.float().mean() < 0.48

    @pytest.mark.parametrize("estimator", ["expectation", "gumbel"])
    def test_p_and_q_have_a_gradient_without_one_to_the_pixels(self, estimator):
        """One relaxed image that mixes corruptions, or strata weighted by p: both reach the logits."""
        panel = build(models=1, primitives=self.NAMES[:2], estimator=estimator)
        images = pixels(12).requires_grad_()
        draws = draw(panel, images, True)
        deformed, selection = panel(images, draws)
        values = deformed.square().flatten(1).mean(1)
        if estimator == "expectation":
            values = expected_objectives(values, draws.model, draws.choice, draws.share, selection.p, selection.q)
        values.sum().backward()
        assert panel.models[0].logits_p.grad.abs().max() > 0
        assert panel.models[0].logit_q.grad.abs().max() > 0
        assert len(list(panel.models[0].primitives.parameters())) == 0

    def test_learned_primitives_alone_draw_as_before(self):
        """No seed is drawn where nothing needs one, so that runs without corruptions keep their random numbers."""
        panel, images = build(), pixels()
        generator = seeded(5)
        draws = panel.draw_samples(images.shape, CPU, generator, probabilities(panel))
        assert draws.seed is None and draws[2:4].seed is None

    def test_parts_of_a_batch_have_noise_of_their_own(self):
        panel, images = build(models=1, primitives=("gaussian_noise:5",), q_init=0.999), torch.full((8, 3, 8, 8), 0.5)
        draws = draw(panel, images, False)
        first, second = panel(images[:4], draws[:4])[0], panel(images[4:], draws[4:])[0]
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("name", PRIMITIVE_POLICIES)
    def test_a_policy_is_chosen_as_a_whole(self, name):
        """The images that were drawn for it, augmented as it would augment them alone; p and q have a gradient."""
        panel, images = build(models=1, primitives=(name, "gaussian_blur")), pixels(20).requires_grad_()
        draws = draw(panel, images, True)
        deformed, selection = panel(images, draws)
        chosen, policy = draws.choice == 0, PRIMITIVE_POLICIES[name]()
        drawn = policy.draw(tuple(images[chosen].shape), torch.Generator().manual_seed(draws.seed))
        with torch.no_grad():
            assert torch.equal(deformed[chosen], policy(images[chosen], drawn))
        assert not torch.equal(deformed[chosen], images[chosen])
        values = deformed.square().flatten(1).mean(1)
        expected_objectives(values, draws.model, draws.choice, draws.share, selection.p, selection.q).sum().backward()
        assert panel.models[0].logits_p.grad.abs().min() > 0
        assert (images.grad[draws.choice != 1].flatten(1).norm(dim=1) > 0).equal(draws.choice[draws.choice != 1] == 2)
        assert set(panel.kin) == {*policy.kin, "defocus_blur"}

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("gaussian_blurr", "expected some of contrast_brightness.*augmix.*gaussian_noise:3"),
            ("cutout", "'cutout'.*soft_cutout"),
            ("rain:3", "rain.*known are gaussian_noise"),
            ("contrast:6", "above 0, up to 5"),
            ("contrast:strong", "above 0, up to 5"),
            ("contrast:0", "above 0, up to 5"),
            ("contrast:5.5", "above 0, up to 5"),
            ("contrast:-1", "above 0, up to 5"),
            ("contrast:", "above 0, up to 5"),
        ],
    )
    def test_unknown_primitives_are_refused(self, name, said):
        with pytest.raises(InputError, match=said):
            AugmentationConfig(primitives=("geometric", name))

    def test_a_primitive_twice_is_refused(self):
        with pytest.raises(InputError, match="each once"):
            AugmentationConfig(primitives=("geometric", "geometric"))
