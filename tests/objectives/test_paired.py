"""Training on pairs against its equation, image by image, under fixed and learned augmentations."""

from dataclasses import replace

import pytest
import torch

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import MethodConfig
from hf_transinv.objectives.paired import PairedConfig, PairedTraining
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of
from tests.objectives.tiny import K, classifier, panel, teacher
from tests.oracles import losses as oracle

POLICIES = (FixedAug(),)


def objective_of(share=0.3, weight=12.0, policies=POLICIES, smoothing=0.0):
    return PairedTraining(classifier(5).double(), PairedConfig(share, weight), policies, smoothing)


def expected_of(objective, images, deformed, labels, rows, smoothing=0.0):
    """Cross-entropy and Jensen-Shannon divergence of a batch, in plain Python."""
    student = objective.players["student"]
    answers, own = student(deformed).tolist(), student(images).tolist()
    labelled = moved = 0.0
    for row, label in enumerate(labels):
        of_deformed = oracle.cross_entropy(answers[row], label, smoothing)
        if row in rows:
            labelled += (of_deformed + oracle.cross_entropy(own[row], label, smoothing)) / 2
            moved += oracle.jensen_shannon(answers[row], own[row])
        else:
            labelled += of_deformed
    return labelled / len(labels), moved / len(labels)


@pytest.mark.parametrize(
    ("share", "smoothing", "rows"), [(0.3, 0.0, [3, 6]), (0.5, 0.1, [1, 3, 5]), (1.0, 0.0, [*range(7)])]
)
def test_loss_under_a_fixed_policy(share, smoothing, rows):
    objective, batch = objective_of(share, 3.0, smoothing=smoothing), batch_of(7)
    draws = draws_of(objective, batch)
    deformed = objective.policies[0](batch.images, draws.policies.of_policies[0])
    labelled, moved = expected_of(objective, batch.images, deformed, batch.labels.tolist(), rows, smoothing)
    found = losses_of(objective, batch, draws)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["jensen_shannon"].item() == pytest.approx(moved) and moved > 1e-3
    assert found["total"].item() == pytest.approx(labelled + 3 * moved)


def test_both_answers_of_a_pair_move():
    objective, unweighted, batch = objective_of(1.0, 12, ()), objective_of(1.0, 0, ()), batch_of(5)
    images, deformed = (x.requires_grad_() for x in (batch.images, batch.images.flip(3)))
    draws, pairs = draws_of(objective, batch), replace(batch, images=deformed, original=images)
    moved = losses_of(objective, pairs, draws)["total"] - losses_of(unweighted, pairs, draws)["total"]
    assert all(gradient.abs().max() > 1e-3 for gradient in torch.autograd.grad(moved, (images, deformed)))


def test_weights_of_classes_hold_for_both_answers_of_a_pair():
    objective, batch = objective_of(1.0), batch_of(6)
    draws = draws_of(objective, batch)
    plain, weighted = batch, replace(batch, class_weights=torch.full((5,), 2.0))
    found = [losses_of(objective, one, draws)["cross_entropy"].item() for one in (plain, weighted)]
    assert found[1] == pytest.approx(2 * found[0])


class TestUnderALearnedAugmentation:
    def build(self, share=0.3):
        task = PairedTraining(classifier(5), PairedConfig(share))
        return TransInv(task, panel(2), [teacher(3), teacher(4)], TransInvConfig())

    def batch(self, size=24):
        batch = batch_of(size)
        return replace(batch, images=batch.images.float())

    def test_the_pairs_are_of_deformed_images(self):
        objective, batch = self.build(1 / 6), self.batch()
        draws = draws_of(objective, batch)
        drawn = draws.deformations[0].passes[0]
        deformed, changed = objective.panel.deform(batch.images, drawn), (drawn.choice < K).nonzero().squeeze(1)
        by_primitive = sorted(changed.tolist(), key=lambda row: (drawn.model[row], drawn.choice[row]))
        rows = [by_primitive[place * len(changed) // 4] for place in range(4)]
        labelled, moved = expected_of(objective.task, batch.images, deformed, batch.labels.tolist(), rows)
        found = losses_of(objective, batch, draws)
        assert len(changed) > 4 and found["cross_entropy"].item() == pytest.approx(labelled, rel=1e-4)
        assert found["jensen_shannon"].item() == pytest.approx(moved, rel=1e-3)

    @pytest.mark.parametrize("logit_q", [-30, 30])
    def test_no_more_are_shown_than_were_deformed(self, logit_q):
        objective, batch, asked = self.build(1.0), self.batch(8), []
        with torch.no_grad():
            for model in objective.panel.models:
                model.logit_q.fill_(logit_q)
        objective.players["student"].register_forward_hook(lambda module, given, answer: asked.append(len(answer)))
        found = losses_of(objective, batch, draws_of(objective, batch))
        assert asked == [8 if logit_q < 0 else 16]
        assert (found["jensen_shannon"] == 0) == (logit_q < 0) and found["total"].isfinite()


def test_parts_add_up():
    check_parts_add_up(objective_of(0.4))


def test_parts_add_up_under_a_learned_augmentation():
    objective, whole = TestUnderALearnedAugmentation().build(0.5), batch_of(16)
    whole = replace(whole, images=whole.images.float())
    draws = draws_of(objective, whole)
    parts = [
        losses_of(objective, replace(whole, images=whole.images[rows], labels=whole.labels[rows]), draws[rows])
        for rows in (slice(0, 5), slice(5, 16))
    ]
    for name, value in losses_of(objective, whole, draws).items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in parts), rel=1e-5)


def test_a_batch_has_one_pair_at_least():
    draws = objective_of(0.3).draw("student", (2, 3, 8, 8), torch.Generator())
    assert draws.is_paired.tolist() == [False, True]
    assert objective_of(0.3).draw("student", (20, 3, 8, 8), torch.Generator()).is_paired.sum() == 6


@pytest.mark.parametrize("fields", [(0.0,), (0.0009,), (1.1,), (float("nan"),), (0.5, -1.0), (0.5, float("inf"))])
def test_refused(fields):
    with pytest.raises(InputError, match="paired_"):
        PairedConfig(*fields)


def test_it_needs_an_augmentation():
    with pytest.raises(InputError, match="give it an augmentation"):
        MethodConfig("paired")
    assert MethodConfig("paired", ("transinv",)).title == "paired + TransInv"
