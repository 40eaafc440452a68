"""The consistency term against its equation, image by image, under fixed and learned augmentations."""

from dataclasses import replace

import pytest
import torch

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import MethodConfig
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.consistency import ConsistencyConfig, ConsistencyTraining
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of
from tests.objectives.tiny import K, classifier, panel, seeded, teacher
from tests.oracles import losses as oracle

POLICIES = (FixedAug(),)


def objective_of(policies=POLICIES, smoothing=0.0, max_steps=10, **fields):
    return ConsistencyTraining(classifier(5).double(), ConsistencyConfig(**fields), policies, smoothing, max_steps)


def expected_of(objective, images, deformed, labels, smoothing=0.0):
    """Cross-entropy and KL divergence of a batch, in plain Python."""
    answers = objective.players["student"](deformed).tolist()
    target = objective.average or objective.players["student"]
    clean = target(images).tolist()
    labelled = [oracle.cross_entropy(answer, label, smoothing) for answer, label in zip(answers, labels, strict=True)]
    moved = [
        oracle.kl(oracle.probabilities(own), oracle.probabilities(answer))
        for own, answer in zip(clean, answers, strict=True)
    ]
    return sum(labelled) / len(images), sum(moved) / len(images)


@pytest.mark.parametrize(
    ("target", "weight", "smoothing"), [("clean", 1.0, 0.0), ("clean", 4.0, 0.1), ("ema", 2.0, 0.0)]
)
def test_loss_under_a_fixed_policy(target, weight, smoothing):
    objective = objective_of(smoothing=smoothing, consistency_target=target, consistency_weight=weight)
    if target == "ema":
        with torch.no_grad():
            next(objective.average.classifier.parameters()).mul_(0.5)
    batch = batch_of(7)
    draws = draws_of(objective, batch)
    deformed = objective.policies[0](batch.images, draws.of_policies[0])
    labelled, moved = expected_of(objective, batch.images, deformed, batch.labels.tolist(), smoothing)
    found = losses_of(objective, batch, draws)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["consistency"].item() == pytest.approx(moved) and moved > 0.01
    assert found["total"].item() == pytest.approx(labelled + weight * moved)


def test_no_gradient_goes_through_the_target():
    objective, batch = objective_of(consistency_weight=3.0), batch_of(5)
    draws = draws_of(objective, batch)
    student = objective.players["student"]
    losses_of(objective, batch, draws)["total"].backward()
    found = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    target = student(batch.images).detach().softmax(1)
    logits = student(objective.policies[0](batch.images, draws.of_policies[0]))
    labelled = torch.nn.functional.cross_entropy(logits, batch.labels)
    (labelled + 3.0 * torch.nn.functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")).backward()
    for gradient, parameter in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


class TestUnderALearnedAugmentation:
    def build(self, **fields):
        task = ConsistencyTraining(classifier(5), ConsistencyConfig(**fields), max_steps=10)
        return TransInv(task, panel(2), [teacher(3), teacher(4)], TransInvConfig())

    def test_loss(self):
        objective, batch = self.build(consistency_weight=2.0), batch_of(24)
        batch = replace(batch, images=batch.images.float())
        draws = draws_of(objective, batch)
        deformed = objective.panel.deform(batch.images, draws.deformations[0].passes[0])
        labelled, moved = expected_of(objective.task, batch.images, deformed, batch.labels.tolist())
        found = losses_of(objective, batch, draws)
        assert found["consistency"].item() == pytest.approx(moved, rel=1e-4) and moved > 0.01
        assert found["total"].item() == pytest.approx(labelled + 2 * moved, rel=1e-4)

    def test_only_deformed_images_are_asked_again(self):
        objective, batch = self.build(), batch_of(24)
        batch, asked = replace(batch, images=batch.images.float()), []
        draws = draws_of(objective, batch)
        objective.players["student"].register_forward_hook(lambda module, given, answer: asked.append(len(answer)))
        losses_of(objective, batch, draws)
        changed = int((draws.deformations[0].passes[0].choice < K).sum())
        assert asked == [24, changed] and 0 < changed < 24

    def test_a_batch_of_which_nothing_was_deformed(self):
        objective, batch = self.build(), batch_of(4)
        batch = replace(batch, images=batch.images.float())
        with torch.no_grad():
            for model in objective.panel.models:
                model.logit_q.fill_(-30)
        found = losses_of(objective, batch, draws_of(objective, batch))
        assert found["consistency"].item() == 0 and found["total"].item() == pytest.approx(
            found["cross_entropy"].item()
        )


def test_parts_add_up():
    check_parts_add_up(objective_of())
    check_parts_add_up(objective_of(consistency_target="ema", consistency_warmup=0.5))


def test_the_weight_rises_over_the_warm_up():
    objective = objective_of(consistency_weight=4.0, consistency_warmup=0.5)
    weights = []
    for _ in range(7):
        weights.append(float(objective.ramp.weight))
        objective.after_step("student", objective.players)
    assert weights == pytest.approx([0, 0.8, 1.6, 2.4, 3.2, 4, 4])


def test_the_average_follows_the_student():
    objective = objective_of(consistency_target="ema")
    assert isinstance(objective.average, EMATeacher) and set(objective.extra_state()) == {"ramp", "target"}
    before = next(objective.average.parameters()).clone()
    with torch.no_grad():
        next(objective.players["student"].parameters()).add_(1)
    objective.after_step("student", objective.players)
    assert not torch.equal(before, next(objective.average.parameters()))


def test_the_same_generator_draws_the_same():
    objective, batch = objective_of(), batch_of(4)
    totals = [
        losses_of(objective, batch, objective.draw("student", batch.images.shape, seeded(seed)))["total"].item()
        for seed in (0, 0, 1)
    ]
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"consistency_target": "teacher"}, "is not one of clean, ema"),
        ({"consistency_weight": -1.0}, "consistency_weight"),
        ({"consistency_weight": float("nan")}, "consistency_weight"),
        ({"consistency_warmup": 1.5}, "consistency_warmup"),
    ],
)
def test_refused(fields, said):
    with pytest.raises(InputError, match=said):
        ConsistencyConfig(**fields)


def test_it_needs_an_augmentation():
    with pytest.raises(InputError, match="give it an augmentation"):
        MethodConfig("consistency")
    assert MethodConfig("consistency", ("transinv",)).title == "consistency + TransInv"
