"""Distillation by the teacher's most probable classes: the equation, its options, and whose classes are whose."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.errors import InputError
from hf_transinv.models import EMATeacher, Teacher
from hf_transinv.objectives.distillation import Distillation, DistillationConfig, shared_columns
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of, wide_classifier
from tests.objectives.tiny import classifier
from tests.oracles import losses as oracle

NAMES = ["apple", "bear", "chair", "dolphin", "elm"]


def student_of(names=NAMES, seed=0):
    student = classifier(len(names), seed=seed).double()
    student.label_names = names
    return student


def teacher_of(names=NAMES, seed=1):
    built = wide_classifier(5 if names is None else len(names), seed=seed).double()
    built.label_names = names
    return Teacher(built, name="wise")


def objective_of(*teachers, student=None, policies=(), smoothing=0.0, **fields):
    config = DistillationConfig(**{"distill_top_k": 2} | fields)
    panel = nn.ModuleList(teachers or [teacher_of()])
    return Distillation(student or student_of(), panel, config, policies, smoothing)


def slow_distillation(teacher, student, k, temperature, renormalise, t_squared):
    """Mean over the images of lambda's factor."""
    total = sum(
        oracle.top_k(one, two, k, temperature, renormalise)
        for one, two in zip(teacher.tolist(), student.tolist(), strict=True)
    )
    return total / len(teacher) * (temperature**2 if t_squared else 1.0)


@pytest.mark.parametrize(("renormalise", "t_squared"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("k", "temperature", "weight"), [(2, 2.0, 1.0), (5, 10.0, 0.5), (3, 1.0, 2.0)])
def test_loss(k, temperature, weight, renormalise, t_squared):
    options = {"distill_renormalise": renormalise, "distill_t_squared": t_squared, "distill_lambda": weight}
    objective = objective_of(smoothing=0.1, distill_top_k=k, distill_temperature=temperature, **options)
    batch = batch_of(6)
    found = losses_of(objective, batch, draws_of(objective, batch))
    answers = objective.players["student"](batch.images)
    labels = batch.labels.tolist()
    labelled = sum(oracle.cross_entropy(answers[b].tolist(), label, 0.1) / 6 for b, label in enumerate(labels))
    teacher = objective.teachers[0](batch.images)
    distilled = slow_distillation(teacher, answers, k, temperature, renormalise, t_squared)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["distillation"].item() == pytest.approx(distilled)
    assert found["total"].item() == pytest.approx(labelled + weight * distilled)


@pytest.mark.parametrize("k", [0, 5])
@pytest.mark.parametrize("renormalise", [False, True])
def test_all_classes_are_the_plain_divergence(k, renormalise):
    """PyTorch's kl_div is the reference, of the value and of the gradient."""
    objective = objective_of(distill_top_k=k, distill_temperature=4.0, distill_renormalise=renormalise)
    batch, student = batch_of(6), objective.players["student"]
    found = losses_of(objective, batch, draws_of(objective, batch))["total"]
    answers, target = student(batch.images), objective.teachers[0](batch.images)
    expected = F.cross_entropy(answers, batch.labels) + F.kl_div(
        torch.log_softmax(answers / 4, 1), torch.log_softmax(target / 4, 1), reduction="batchmean", log_target=True
    )
    parameters = list(student.parameters())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_gradient_keeps_its_size_with_t_squared():
    """At a high temperature the gradient of KL falls as 1/T^2 (Hinton et al., 2015, section 2.1)."""
    sizes = {}
    for t_squared in (False, True):
        for temperature in (50.0, 100.0):
            fields = {"distill_temperature": temperature, "distill_t_squared": t_squared, "distill_top_k": 0}
            objective, batch = objective_of(**fields), batch_of(6)
            losses = losses_of(objective, batch, draws_of(objective, batch))
            labelled = F.cross_entropy(objective.players["student"](batch.images), batch.labels)
            gradients = torch.autograd.grad(losses["total"] - labelled, [*objective.players["student"].parameters()])
            sizes[t_squared, temperature] = sum(gradient.norm() for gradient in gradients).item()
    assert sizes[True, 100.0] / sizes[True, 50.0] == pytest.approx(1, abs=0.05)
    assert sizes[False, 100.0] / sizes[False, 50.0] == pytest.approx(1 / 4, abs=0.05)


def test_several_teachers():
    first, second = teacher_of(seed=1), teacher_of(seed=2)
    batch, student = batch_of(6), student_of()

    def distilled(*teachers):
        objective = objective_of(*teachers, student=student)
        return losses_of(objective, batch, draws_of(objective, batch))["distillation"].item()

    assert distilled(first, second) == pytest.approx((distilled(first) + distilled(second)) / 2)
    assert distilled(first, first) == pytest.approx(distilled(first))


def test_teacher_and_student_see_the_same_augmented_images():
    objective, batch = objective_of(policies=[FixedAug()]), batch_of(6)
    seen = []
    for module in (objective.players["student"], objective.teachers[0]):
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    draws = draws_of(objective, batch)
    losses_of(objective, batch, draws)
    augmented = objective.policies[0](batch.images, draws.of_policies[0])
    assert not torch.equal(augmented, batch.images)
    assert len(seen) == 2 and all(torch.equal(images, augmented) for images in seen)


def test_teachers_never_move():
    objective, batch = objective_of(), batch_of(6)
    losses_of(objective, batch, draws_of(objective, batch))["total"].backward()
    assert not any(
        p.requires_grad or p.grad is not None for teacher in objective.teachers for p in teacher.parameters()
    )
    assert not any(module.training for module in objective.teachers[0].modules())


def test_an_average_among_the_teachers_follows():
    student = student_of()
    average = EMATeacher(student, decay=0.5)
    objective = objective_of(teacher_of(), average, average, student=student)
    assert objective.extra_state() == {"distillation_ema": average}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1
    objective.after_step("student", objective.players)
    assert average.num_updates == 1
    for own, new in zip(average.classifier.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(own, new - 0.1)  # the first update: d = 1 / 10


class TestClasses:
    def test_the_same_names(self):
        assert shared_columns(teacher_of(NAMES), student_of()) is None

    def test_another_order_is_mapped(self):
        order = [3, 0, 4, 1, 2]
        one, other = teacher_of(), teacher_of([NAMES[c] for c in order])
        with torch.no_grad():  # the same teacher, its columns permuted
            last, permuted = one.classifier.network[3], other.classifier.network[3]
            permuted.weight.copy_(last.weight[order])
            permuted.bias.copy_(last.bias[order])
        assert shared_columns(other, student_of()).tolist() == [1, 3, 4, 0, 2]
        batch = batch_of(6)
        totals = [
            losses_of(objective, batch, draws_of(objective, batch))["total"].item()
            for objective in (objective_of(one), objective_of(other))
        ]
        assert totals[0] == pytest.approx(totals[1])

    def test_more_classes_answer_among_the_shared(self):
        wise = teacher_of(["fox", "elm", "bear", "apple", "goat", "chair", "dolphin"])
        objective, batch = objective_of(wise, distill_temperature=3.0), batch_of(6)
        found = losses_of(objective, batch, draws_of(objective, batch))["distillation"].item()
        answer = wise(batch.images)[:, [3, 2, 5, 6, 1]]
        student = objective.players["student"](batch.images)
        assert found == pytest.approx(slow_distillation(answer, student, 2, 3.0, False, False))

    def test_other_names_are_refused(self):
        others = (["apple", "bear", "chair", "dolphin", "fir"], [*NAMES[:4], "fir", "goat"], ["Apple", *NAMES[1:]])
        for names, counts in zip(others, (5, 6, 5), strict=True):
            with pytest.raises(
                InputError, match=rf"'wise' has {counts} classes, the student 5, and not each.*by name"
            ):
                objective_of(teacher_of(names))

    def test_without_names_the_order_is_trusted(self, caplog):
        with caplog.at_level(logging.WARNING):
            assert shared_columns(teacher_of(None), student_of()) is None
        assert "order of the classes is trusted" in caplog.text

    def test_without_names_the_counts_must_agree(self):
        with pytest.raises(InputError, match="5 classes, the student 4, and the names of the classes are not known"):
            objective_of(teacher_of(None), student=student_of(NAMES[:4]))


def test_parts_add_up():
    mapped = teacher_of(["fox", *reversed(NAMES)], seed=2)
    check_parts_add_up(objective_of(teacher_of(), mapped, policies=[FixedAug()]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"distill_lambda": -1.0}, "distill_lambda"),
        ({"distill_top_k": -1}, "distill_top_k"),
        ({"distill_temperature": 0.0}, "distill_temperature"),
        ({"distill_top_k": 1, "distill_renormalise": True}, "compares 1 with 1"),
    ],
)
def test_config_errors(fields, said):
    with pytest.raises(InputError, match=said):
        DistillationConfig(**fields)


def test_errors():
    with pytest.raises(InputError, match="at least one teacher"):
        Distillation(student_of(), nn.ModuleList(), DistillationConfig())


def test_more_classes_than_there_are_is_all_of_them(caplog):
    batch = batch_of(6)
    objectives = (objective_of(distill_top_k=6), objective_of(distill_top_k=0))
    found = [losses_of(objective, batch, draws_of(objective, batch)) for objective in objectives]
    assert "distill_top_k 6 is more than the 5 classes there are: all of them count" in caplog.text
    assert found[0]["total"] == found[1]["total"]
