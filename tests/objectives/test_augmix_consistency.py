"""AugMix's objective against its equation, image by image."""

import pytest
import torch

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.augment.policies.jitter import RandomGrayscale
from hf_transinv.errors import InputError
from hf_transinv.objectives.augmix_consistency import AugMixConsistency, AugMixConsistencyConfig
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of
from tests.objectives.tiny import classifier, seeded
from tests.oracles import losses as oracle


def objective_of(weight=12.0, policies=None, smoothing=0.0):
    policies = [FixedAug(), RandomGrayscale(0.5)] if policies is None else policies
    return AugMixConsistency(classifier(5).double(), AugMixConsistencyConfig(weight), policies, smoothing)


@pytest.mark.parametrize(("weight", "smoothing"), [(12.0, 0.0), (3.0, 0.1)])
def test_loss(weight, smoothing):
    objective, batch = objective_of(weight, smoothing=smoothing), batch_of(7)
    draws = draws_of(objective, batch)
    images, (warp, gray) = [batch.images], objective.policies
    for drawn in draws.variants:
        images.append(gray(warp(batch.images, drawn.of_policies[0]), drawn.of_policies[1]))
    assert not torch.equal(images[1], images[2]) and not torch.equal(images[0], images[1])
    answers = [objective.players["student"](one).tolist() for one in images]
    labelled = divergence = 0.0
    for b, label in enumerate(batch.labels.tolist()):
        labelled += oracle.cross_entropy(answers[0][b], label, smoothing) / 7
        divergence += oracle.jensen_shannon(*(answer[b] for answer in answers)) / 7
    found = losses_of(objective, batch, draws)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["jensen_shannon"].item() == pytest.approx(divergence)
    assert found["total"].item() == pytest.approx(labelled + weight * divergence)
    assert divergence > 0.01


def test_a_policy_that_changes_nothing_leaves_the_cross_entropy():
    objective, batch = objective_of(policies=[RandomGrayscale(0.0)]), batch_of(4)
    found = losses_of(objective, batch, draws_of(objective, batch))
    assert found["jensen_shannon"].item() == pytest.approx(0, abs=1e-12)
    assert found["total"].item() == pytest.approx(found["cross_entropy"].item())


def test_one_forward_pass():
    objective, batch = objective_of(), batch_of(4)
    seen = []
    objective.players["student"].register_forward_hook(lambda module, given, answer: seen.append(len(answer)))
    losses_of(objective, batch, draws_of(objective, batch))
    assert seen == [12]


def test_parts_add_up():
    check_parts_add_up(objective_of())


def test_the_same_generator_draws_the_same():
    objective, batch = objective_of(), batch_of(4)
    totals = [
        losses_of(objective, batch, objective.draw("student", batch.images.shape, seeded(seed)))["total"].item()
        for seed in (0, 0, 1)
    ]
    assert totals[0] == totals[1] != totals[2]


def test_errors():
    with pytest.raises(InputError, match="give it a policy"):
        objective_of(policies=[])
    with pytest.raises(InputError, match="jsd_weight"):
        AugMixConsistencyConfig(-1.0)
