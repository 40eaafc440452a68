"""The tolerance of TransInv's constraint: relative to entropies or crops."""

import pytest
import torch
from torch import nn

from hf_transinv.augment.selection import Selection
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.models import EMATeacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.objectives.transinv_forms import Measured, PrimitiveConstraint, TeacherConstraint
from hf_transinv.objectives.turns import only_training
from tests.objectives.test_transinv import (
    CLASSES,
    assert_same_gradients,
    batch_of,
    gradients_of,
    losses_of,
    slow_strata,
)
from tests.objectives.tiny import K, classifier, panel, seeded, teacher
from tests.oracles import transinv as oracle

RELATIVE = ("entropy", "crop")
MULTIPLIERS = ("teacher", "primitive")


def build(estimator="expectation", ordinary=None, has_average=False, **config):
    """Like `test_transinv.build`, with the student's average as the second teacher where it is asked for."""
    student = classifier(CLASSES)
    teachers = nn.ModuleList([teacher(3, 8, seed=1), EMATeacher(student) if has_average else teacher(4, 12, seed=2)])
    options = TransInvConfig(**{"r_entropy": 0.0} | config)
    return TransInv(Supervised(student), panel(2, estimator=estimator), teachers, options, ordinary)


def draws_of(objective, batch):
    return objective.draw("augmentation", batch.images.shape, seeded(5))


def slow_yardstick(objective, batch, draws, b):
    """Of one image, in float64: the entropy of its teacher's answer, or what another crop moves it by."""
    own, image = objective.teachers[int(draws.model[b])], batch.images[b][None]
    clean = own(image)[0].double()
    if objective.config.tolerance_relative_to == "entropy":
        return oracle.entropy(oracle.softmax(clean))
    cropped = objective.judges.crop(image, draws.recrop[b : b + 1])
    return oracle.teacher_loss(clean, own(cropped)[0].double(), "kl")


def slow_yardsticks(objective, batch, draws):
    """yardstick[k][i], its means over the images of each stratum that is deformed."""
    found = [[[] for _ in range(K)] for _ in objective.teachers]
    for b, choice in enumerate(draws.choice.tolist()):
        if choice < K:
            found[int(draws.model[b])][choice].append(slow_yardstick(objective, batch, draws, b).item())
    return [[sum(cell) / len(cell) for cell in row] for row in found]


def slow_total(objective, batch, draws):
    """As in `test_transinv`, where each stratum has its yardstick; with the bounds."""
    augmentation, form = objective.players["augmentation"], objective.config.multipliers
    tolerance = objective.config.tolerance
    hard, keep = slow_strata(objective, batch, draws)
    yardsticks, total, found, bounds = slow_yardsticks(objective, batch, draws), 0.0, [], []
    for k, model in enumerate(augmentation.models):
        p, q, classes = list(model.p.double()), model.q.double(), (CLASSES, objective.teachers[k].num_classes)
        multipliers = list(augmentation.multipliers[k].double())[: 1 if form == "teacher" else K]
        excess = list(augmentation.excess[k].double())[: len(multipliers)]
        bound = tolerance * sum(yardsticks[k]) / K
        if form == "primitive":
            keep[k] = [value - tolerance * own for value, own in zip(keep[k], yardsticks[k], strict=False)] + [0.0]
        fixed = [value.detach() for value in multipliers]
        threshold = bound if form == "teacher" else 0.0
        found.append(oracle.objective(form, hard[k], keep[k], p, q, classes, threshold, fixed))
        held, p, q = [torch.as_tensor(value).detach() for value in keep[k]], [x.detach() for x in p], q.detach()
        total = total + oracle.dual(form, held, p, q, threshold, multipliers)
        of_each = [bound] if form == "teacher" else [tolerance * own for own in yardsticks[k]]
        total = total + oracle.collected(excess, of_each)
        bounds.append(bound)
    r = augmentation.logits_r.double().softmax(0)
    return -(total + sum(found) + sum(r[k] * found[k].detach() for k in range(2))), bounds


@pytest.mark.parametrize("relative", RELATIVE)
@pytest.mark.parametrize("multipliers", MULTIPLIERS)
def test_the_bound_is_a_share_of_the_yardstick(relative, multipliers):
    """Value, gradients and what is logged, with strata of unequal sizes."""
    objective = build(has_average=True, tolerance_relative_to=relative, multipliers=multipliers, tolerance=0.3)
    batch = batch_of(19)
    draws = draws_of(objective, batch)
    losses = losses_of(objective, "augmentation", batch, draws)
    with only_training("augmentation", objective.players):
        expected, bounds = slow_total(objective, batch, draws)
    torch.testing.assert_close(losses["total"].item(), expected.item(), rtol=1e-5, atol=1e-5)
    assert min(bounds) > 1e-3
    for number, bound in enumerate(bounds, 1):
        torch.testing.assert_close(losses[f"bound_{number}"].item(), bound, rtol=1e-5, atol=1e-6)
    actual = gradients_of(objective, "augmentation", batch, draws)
    augmentation = objective.players["augmentation"]
    augmentation.zero_grad()
    expected.backward()
    assert_same_gradients(actual, {name: p.grad for name, p in augmentation.named_parameters()})


@pytest.mark.parametrize("relative", RELATIVE)
def test_a_relaxed_choice_has_the_mean_of_all_images(relative):
    objective, batch = build("gumbel", tolerance_relative_to=relative, tolerance=0.3), batch_of(9)
    draws = draws_of(objective, batch)
    losses = losses_of(objective, "augmentation", batch, draws)
    for k in range(2):
        rows = (draws.model == k).nonzero().squeeze(1).tolist()
        mean = sum(slow_yardstick(objective, batch, draws, b).item() for b in rows) / len(rows)
        torch.testing.assert_close(losses[f"bound_{k + 1}"].item(), 0.3 * mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relative", ["none", *RELATIVE])
@pytest.mark.parametrize("multipliers", MULTIPLIERS)
@pytest.mark.parametrize("scale", [1, 2])
def test_parts_add_up(relative, multipliers, scale):
    """Micro-batches add up, processes average."""
    objective = build(has_average=True, tolerance_relative_to=relative, multipliers=multipliers)
    draws = draws_of(objective, batch_of(8))
    whole = gradients_of(objective, "augmentation", batch_of(8), draws)
    expected = losses_of(objective, "augmentation", batch_of(8), draws)
    found, summed = {name: 0.0 for name in expected}, {name: 0.0 for name in whole}
    for part in (slice(0, 3), slice(3, 8)):
        batch = batch_of(8, part, scale)
        for name, value in losses_of(objective, "augmentation", batch, draws[part]).items():
            found[name] += value.item() / scale
        for name, gradient in gradients_of(objective, "augmentation", batch, draws[part]).items():
            if gradient is not None:
                summed[name] = summed[name] + gradient / scale
    assert found == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5, abs=1e-5)
    assert_same_gradients(summed, whole)


@pytest.mark.parametrize("form", [TeacherConstraint, PrimitiveConstraint])
@pytest.mark.parametrize("is_relative", [False, True])
def test_the_multipliers_terms_move_nothing_else(form, is_relative):
    """Shares are in the graph of p where chains are: p must learn from O_k alone."""
    one, own = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, K])
    share = torch.rand(4, generator=seeded(1)).requires_grad_()
    p, q = torch.full((2, K), 1 / K, requires_grad=True), torch.full((2,), 0.5, requires_grad=True)
    multipliers, excess = torch.ones(2, K, requires_grad=True), torch.zeros(2, K, requires_grad=True)
    selection = Selection(p, q, torch.full((2,), 0.5), multipliers, excess)
    yardstick = torch.tensor([0.1, 0.2, 0.3, 0.0]) if is_relative else None
    hard, keep = torch.rand(2, 4, generator=seeded(2)).requires_grad_()
    measured = Measured(hard, keep, one, own, share, selection, 1.0, False, yardstick)
    ascent = form(0.2, is_relative, 2)(measured)
    inputs = (share, p, q, hard, keep, multipliers, excess)
    *others, of_multipliers, of_bounds = torch.autograd.grad(ascent.dual, inputs, allow_unused=True)
    assert others == [None] * 5
    assert of_multipliers.abs().max() > 0 and of_bounds.min() >= 0 < of_bounds.max()


def test_the_yardstick_costs_what_it_says():
    """Answers of teachers to the images of a turn: entropy costs none, crop one more for each image that is judged."""
    asked = {}
    for relative in ("none", *RELATIVE):
        objective, batch = build(tolerance_relative_to=relative), batch_of(16)
        counts = []
        for own in objective.teachers:
            own.register_forward_hook(lambda _, inputs, __, counts=counts: counts.append(len(inputs[0])))
        losses_of(objective, "augmentation", batch, draws_of(objective, batch))
        asked[relative] = sum(counts)
    judged = 16 * K // (K + 1)
    assert asked == {"none": 2 * judged, "entropy": 2 * judged, "crop": 3 * judged}


def test_the_crop_is_the_run_s_own_in_whatever_form():
    """Mirrored alone; and resized, whose bicubic form is for 8-bit images."""
    batch = batch_of(8)
    mirror = build(tolerance_relative_to="crop", ordinary=CropFlip("none"))
    draws = draws_of(mirror, batch)
    flipped = torch.where(draws.recrop.flip[:, None, None, None], batch.images.flip(3), batch.images)
    assert torch.equal(mirror.judges.crop(batch.images, draws.recrop), flipped)
    resized = build(tolerance_relative_to="crop", ordinary=CropFlip("resized", interpolation="bicubic"))
    assert losses_of(resized, "augmentation", batch, draws_of(resized, batch))["bound_1"] > 0


def test_what_is_not_asked_for_changes_nothing():
    """Neither draws nor the state; an entropy draws nothing either."""
    shape, ends = (8, 3, 8, 8), []
    for relative in ("none", "entropy"):
        generator = seeded(5)
        build(tolerance_relative_to=relative).draw("augmentation", shape, generator)
        ends.append(generator.get_state())
    assert torch.equal(*ends)
    objective, batch = build(), batch_of(8)
    losses = losses_of(objective, "augmentation", batch, draws_of(objective, batch))
    assert set(losses) == {"total", "hard", "keep"} and objective.extra_state() == {}


def test_the_last_bounds_are_found_in_the_metrics():
    history = [{"p": 0, "augmentation/bound_1": 1.0, "augmentation/bound_2": 2.0}, {"p": 0}]
    assert build(tolerance_relative_to="entropy").form.last_bounds(history) == [1.0, 2.0]
    assert build(tolerance_relative_to="entropy").form.last_bounds(history[1:]) == []
    assert build(tolerance=0.2).form.last_bounds([]) == [0.2, 0.2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tolerance_relative_to": "image"}, "'image' is not one of none, entropy, crop"),
        ({"tolerance": float("nan")}, "tolerance must be positive"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"objective": "paper", "tolerance_relative_to": "crop"}, "tolerance_relative_to is of objective constrained"),
        ({"tolerance_relative_to": "crop", "ordinary": CropFlip("none", flip=False)}, "move nothing"),
    ],
)
def test_what_cannot_be_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        build(**fields)
