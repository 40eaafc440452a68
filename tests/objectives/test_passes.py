"""What a step costs as a method is configured, and how often it shows an image: counted in real turns."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from hf_transinv.augment.policies.jitter import ColorJitter
from hf_transinv.comparison.budget import passes_of_step
from hf_transinv.models import EMATeacher
from hf_transinv.objectives.augmix_consistency import AugMixConsistency, AugMixConsistencyConfig
from hf_transinv.objectives.consistency import ConsistencyTraining
from hf_transinv.objectives.distillation import Distillation, DistillationConfig
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from hf_transinv.objectives.multi_invariant import MultiInvariantConfig, MultiInvariantTraining
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.paired import PairedConfig, PairedTraining
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from tests.benchmark.test_benchmark import PassCount
from tests.objectives.tiny import classifier, panel, pixels, teacher

BATCH = 16


def three():
    return [classifier(5, seed=seed) for seed in range(3)]


def over(task, relative="none", **options):
    teachers = nn.ModuleList([teacher(3, seed=1), teacher(4, seed=2)])
    config = TransInvConfig(inner_steps=2, tolerance_relative_to=relative, **options)
    return TransInv(task, panel(2), teachers, config)


# name: the method, and by hand: passes for an image of a step (a batch counts what one network sees), and its views
CASES = {
    "supervised": (lambda: Supervised(classifier(5)), Fraction(3), 1),
    "augmix": (lambda: AugMixConsistency(classifier(5), AugMixConsistencyConfig(), [ColorJitter()]), Fraction(9), 3),
    "consistency": (lambda: ConsistencyTraining(classifier(5), policies=[ColorJitter()]), Fraction(4), 2),
    "paired": (lambda: PairedTraining(classifier(5), PairedConfig(0.25), [ColorJitter()]), Fraction(15, 4), 1.25),
    "ait": (lambda: InvariantTraining(classifier(5), InvariantConfig()), Fraction(3), 2),
    "multi_ait of three": (lambda: MultiInvariantTraining(three(), MultiInvariantConfig()), Fraction(9), 1),
    "mutual of three": (lambda: MutualLearning(three()), Fraction(15), None),
    "distillation of two": (
        lambda: Distillation(classifier(5), [teacher(5), teacher(5, seed=2)], DistillationConfig()),
        Fraction(5),
        1,
    ),
    "transinv": (lambda: over(Supervised(classifier(5))), Fraction(2 * 3 + 3 + 3, 2), 1),
    "transinv, sum": (lambda: over(Supervised(classifier(5)), selection="sum"), Fraction(2 * 6 + 3 + 3, 2), 2),
    "transinv, crop": (lambda: over(Supervised(classifier(5)), "crop"), Fraction(2 * 3 + 3 + 4, 2), 1),
    "transinv over pairs": (
        lambda: over(PairedTraining(classifier(5), PairedConfig(0.25))),
        Fraction(15, 4) + Fraction(6, 2),
        1.25,
    ),
    "transinv over ait": (
        lambda: over(InvariantTraining(classifier(5), InvariantConfig())),
        Fraction(2 * 3 * 2 + 3 + 3, 2 * 2),
        2,
    ),
}


def play(method):
    """A whole cycle of turns; the passes for each image of its student turns, and the student's answers to one."""
    students = PassCount(method.students.values())
    teachers = PassCount([one.classifier for one in dict.fromkeys(method.teachers)])
    answers, first = [0], next(iter(method.students.values()))
    first.register_forward_hook(lambda _, inputs, __: answers.__setitem__(0, answers[0] + len(inputs[0])))
    steps, passes, views = 0, 0.0, []
    for _ in method.turns:
        players = method.next_turn(method.turn)
        size = BATCH // method.variants_a_network
        images = [pixels(size, seed=seed) for seed in range(method.variants)]
        answers[0] = 0
        for _ in players:
            method(images[0], torch.arange(size) % 5, *images[1:])["total"].backward()
            method.step()
        passes += (students.passes + teachers.passes) / BATCH
        students.passes = teachers.passes = 0
        steps += "student" in players
        views += [answers[0] / size] if players[0] == "student" else []
    return passes / steps, views[0]


@pytest.mark.parametrize("name", CASES)
def test_passes_and_views_are_those_of_real_turns(name):
    build, passes, views = CASES[name]
    method = build()
    assert passes_of_step(method) == passes
    counted, answered = play(method)
    if name.startswith("transinv"):  # of an augmentation turn's images, one in four is left as it is: nobody is asked
        asked = {"transinv, crop": 4}.get(name, 3)
        left = asked / 4 / (2 * method.variants_a_network)
        assert counted == pytest.approx(float(passes) - left)
    else:
        assert counted == pytest.approx(float(passes))
    if views is not None:  # the answers of a network to its peers are not its own turns
        assert method.views == views == answered


def test_an_average_is_a_teacher_too():
    student = classifier(5)
    method = Distillation(student, [EMATeacher(student)], DistillationConfig())
    assert passes_of_step(method) == 4
