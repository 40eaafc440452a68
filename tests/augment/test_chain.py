"""Chains: several primitives one after another on each image, with the gradient of p exact in expectation."""

import pytest
import torch

from hf_transinv.augment.augmentation_config import AugmentationConfig
from hf_transinv.augment.saving import load_augmentation, save_augmentation
from hf_transinv.augment.selection import expected_objectives
from hf_transinv.errors import InputError
from tests.augment.test_learned import CPU, K, build, draw, one_by_one, pixels, probabilities, seeded
from tests.objectives.test_transinv import batch_of, gradients_of, losses_of
from tests.objectives.test_transinv import build as transinv
from tests.objectives.tiny import panel as tiny_panel


def drawn(panel, images, strata, seed=5):
    if strata:
        return panel.draw_strata(images.shape, CPU, seeded(seed), probabilities(panel))
    return draw(panel, images, False, seed)


@pytest.mark.parametrize("strata", [True, False])
def test_links_are_applied_one_after_another(strata):
    panel, images = build(chain=3), pixels(24)
    draws = drawn(panel, images, strata)
    expected = images
    for link in (draws, *draws.links):
        expected = one_by_one(panel, expected, link)
    torch.testing.assert_close(panel(images, draws)[0], expected, rtol=0, atol=1e-5)
    assert len(draws.links) == 2 and not torch.equal(draws.choice, draws.links[0].choice)


@pytest.mark.parametrize("strata", [True, False])
def test_images_that_stay_as_they_are_stay_so_in_all_links(strata):
    panel, images = build(chain=2), pixels(30)
    draws = drawn(panel, images, strata)
    stays = draws.choice == K
    assert 0 < stays.sum() < 30 and torch.equal(draws.links[0].choice == K, stays)
    assert torch.equal(panel(images, draws)[0][stays], images[stays])


def test_a_chain_of_one_is_as_before():
    panel, images = build(), pixels()
    draws = drawn(panel, images, True)
    assert draws.links == () and torch.equal(draws.z, draw(panel, images, True).z)


def test_parts_of_a_batch_are_those_of_the_whole():
    panel, images = build(chain=2), pixels(12)
    draws = drawn(panel, images, True)
    whole = panel(images, draws)[0]
    parts = torch.cat([panel(images[b : b + 4], draws[b : b + 4])[0] for b in range(0, 12, 4)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_the_gradient_of_p_is_that_of_the_mean_over_all_chains():
    """With a number for each pair of primitives in the place of an objective, against the sum over all pairs."""
    panel = build(models=1, chain=2)
    table = torch.randn(K + 1, K + 1, generator=seeded(7))
    p, q = (panel.selection()[index] for index in (0, 1))
    exact = q[0] * (p[0][:, None] * p[0] * table[:K, :K]).sum() + (1 - q[0]) * table[K, K]
    wanted = torch.autograd.grad(exact, [panel.models[0].logits_p, panel.models[0].logit_q])
    generator, found, values = seeded(0), [], []
    for _ in range(800):
        selection = panel.selection()
        draws = panel.draw_strata((64, 3, 1, 1), CPU, generator, probabilities(panel))
        (draws,) = panel.dealt(CPU, [draws])
        weights = panel.link_weights(draws, selection)
        objective = table[draws.choice, draws.links[0].choice]
        mean = expected_objectives(
            objective, draws.model, draws.choice, draws.share * weights, selection.p, selection.q
        ).sum()
        values.append(mean.item())
        found.append(torch.autograd.grad(mean, [panel.models[0].logits_p, panel.models[0].logit_q]))
    assert sum(values) / len(values) == pytest.approx(exact.item(), abs=0.02)
    for each, expected in zip(zip(*found, strict=True), wanted, strict=True):
        stacked = torch.stack(each)
        deviation = stacked.std(0) / len(found) ** 0.5
        assert ((stacked.mean(0) - expected).abs() < 4 * deviation + 1e-6).all()
        assert deviation.max() < 0.02


def test_a_turn_of_the_augmentation_reaches_every_parameter():
    objective = transinv(models=tiny_panel(2, chain=2), objective="normalised")
    batch = batch_of(32)
    draws = objective.draw("augmentation", batch.images.shape, seeded(3))
    assert torch.isfinite(losses_of(objective, "augmentation", batch, draws)["total"])
    gradients = gradients_of(objective, "augmentation", batch, draws)
    moved = [name for name, gradient in gradients.items() if gradient is not None and gradient.abs().max() > 0]
    assert gradients.keys() - {"multipliers", "excess"} <= set(moved)


def test_it_is_saved_with_the_rest(tmp_path):
    panel = build(models=1, chain=2)
    assert load_augmentation(save_augmentation(panel, ["a"], tmp_path)).config.chain == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"chain": 0}, "chain must be at least 1"), ({"chain": 2, "estimator": "gumbel"}, "needs estimator expectation")],
)
def test_refused(fields, said):
    with pytest.raises(InputError, match=said):
        AugmentationConfig(**fields)
