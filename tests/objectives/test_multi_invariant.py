"""multi-AIT against its equations: any number of networks, a variant each."""

import copy

import pytest
import torch

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.errors import InputError
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from hf_transinv.objectives.multi_invariant import MultiInvariantConfig, MultiInvariantTraining
from hf_transinv.objectives.turns import Batch
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of, wide_classifier
from tests.objectives.tiny import classifier
from tests.oracles import losses as oracle


def networks(count):
    """Of two architectures, all different."""
    return [(wide_classifier if index % 2 else classifier)(5, seed=index).double() for index in range(count)]


def objective_of(count, weight=3.0, **options):
    return MultiInvariantTraining(networks(count), MultiInvariantConfig(weight), **options)


@pytest.mark.parametrize(("count", "weight"), [(2, 3.0), (3, 1.5), (4, 3.0)])
def test_loss(count, weight):
    objective, batch = objective_of(count, weight, label_smoothing=0.1), batch_of(6, variants=count)
    found = losses_of(objective, batch, draws_of(objective, batch))
    answers = [
        student(images).tolist() for student, images in zip(objective.students.values(), batch.variants, strict=True)
    ]
    labelled, invariance = [0.0] * count, 0.0
    for b, label in enumerate(batch.labels.tolist()):
        for j in range(count):
            labelled[j] += oracle.cross_entropy(answers[j][b], label, 0.1) / 6
            for k in range(j + 1, count):
                invariance += oracle.ai_loss(answers[j][b], answers[k][b]) / 6
    assert found["total"].item() == pytest.approx(sum(labelled) + weight * invariance)
    assert found["ai_loss"].item() == pytest.approx(invariance)
    names = ["student", "peer", "peer2", "peer3"][:count]
    assert list(objective.students) == names and objective.variants == count
    for name, expected in zip(names, labelled, strict=True):
        assert found[f"cross_entropy_{name}"].item() == pytest.approx(expected)


def test_two_copies_and_equal_variants_cost_nothing():
    first = classifier(5).double()
    objective = MultiInvariantTraining([first, copy.deepcopy(first)], MultiInvariantConfig())
    batch = batch_of(6)
    batch = Batch(batch.images, batch.labels, 6, others=(batch.images,))
    assert losses_of(objective, batch, draws_of(objective, batch))["ai_loss"].item() == pytest.approx(0, abs=1e-12)


def test_two_copies_are_ait():
    """The same weights twice, other variants: AIT's loss with the same lambda, its gradient shared out in two."""
    first = classifier(5).double()
    several = MultiInvariantTraining([first, copy.deepcopy(first)], MultiInvariantConfig(2.0))
    one = InvariantTraining(first, InvariantConfig(2.0))
    batch = batch_of(6, variants=2)
    losses = [losses_of(objective, batch, draws_of(objective, batch))["total"] for objective in (several, one)]
    torch.testing.assert_close(*losses)
    of_each = [
        torch.autograd.grad(losses[0], list(student.parameters()), retain_graph=True)
        for student in several.students.values()
    ]
    shared = torch.autograd.grad(losses[1], list(first.parameters()))
    torch.testing.assert_close([a + b for a, b in zip(*of_each, strict=True)], list(shared))


@pytest.mark.parametrize("detach", [False, True])
def test_detach_target(detach):
    """With every left side held, a network's gradient is that of its own CE and of the KLs in which it answers."""
    objective = MultiInvariantTraining(networks(2), MultiInvariantConfig(3.0, detach))
    batch = batch_of(6, variants=2)
    total = losses_of(objective, batch, draws_of(objective, batch))["total"]
    first, second = objective.students.values()
    found = torch.autograd.grad(total, list(first.parameters()))
    answer = torch.log_softmax(first(batch.images), 1)
    target = torch.log_softmax(second(batch.others[0]), 1).detach()
    nll, kl = torch.nn.functional.nll_loss, torch.nn.functional.kl_div
    expected = nll(answer, batch.labels) + 3 * kl(answer, target, reduction="batchmean", log_target=True)
    if not detach:
        expected = expected + 3 * kl(target, answer, reduction="batchmean", log_target=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(first.parameters())))


def test_each_variant_has_its_own_draw():
    objective, batch = objective_of(2, policies=[FixedAug()]), batch_of(6, variants=2)
    seen = []
    objective.players["student"].register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
    draws = draws_of(objective, batch)
    losses_of(objective, batch, draws)
    for images, variant, drawn in zip(seen, batch.variants, draws.variants, strict=True):
        torch.testing.assert_close(images, objective.policies[0](variant, drawn.of_policies[0]))
    assert not torch.equal(draws.variants[0].of_policies[0].which, draws.variants[1].of_policies[0].which)


def test_parts_add_up():
    check_parts_add_up(objective_of(3, policies=[FixedAug()]), variants=3)


def test_everybody_learns():
    objective, batch = objective_of(2), batch_of(6, variants=2)
    losses_of(objective, batch, draws_of(objective, batch))["total"].backward()
    for student in objective.students.values():
        assert all(parameter.grad.abs().max() > 0 for parameter in student.parameters())


def test_errors():
    with pytest.raises(InputError, match="multi_ait_lambda"):
        MultiInvariantConfig(-1.0)
    only = classifier(5)
    for given, said in (
        ([only], "given 1"),
        ([only, only], "two or more different"),
        ([only, classifier(7)], r"\[5, 7\]"),
    ):
        with pytest.raises(InputError, match=said):
            MultiInvariantTraining(given, MultiInvariantConfig())
