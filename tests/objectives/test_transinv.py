"""TransInv's losses and gradients against eq. 5 written slowly, and what several teachers, parts of a batch and
the hole in the objective do to them."""

import math

import pytest
import torch
from torch import nn

from hf_transinv.augment.selection import Draws
from hf_transinv.divergences import cross_entropy
from hf_transinv.errors import InputError
from hf_transinv.models import EMATeacher, Teacher
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.adversarial import TaskDraws
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import DeformationDraws, TransInv, TransInvConfig
from hf_transinv.objectives.transinv_forms import DAMPING, ascend_dual
from hf_transinv.objectives.turns import Batch, only_training
from tests.objectives.tiny import K, classifier, panel, pixels, seeded, teacher
from tests.oracles import transinv as oracle

FORMS = {
    "paper": {"objective": "paper", "keep": "kl"},
    "paper, cross-entropy": {"objective": "paper", "keep": "cross_entropy"},
    "normalised": {"objective": "normalised"},
    "a multiplier a teacher": {"objective": "constrained", "multipliers": "teacher"},
    "a multiplier a primitive": {"objective": "constrained", "multipliers": "primitive"},
}
ORACLE_FORM = dict(zip(FORMS, ("paper", "paper", "normalised", "teacher", "primitive"), strict=True))
CLASSES = 5


def build(estimator="expectation", teachers=None, models=None, **config):
    """A student of 5 classes for 8 px; teachers of 3 and 4 classes, the second for 12 px."""
    teachers = teachers or nn.ModuleList([teacher(3, 8, seed=1), teacher(4, 12, seed=2)])
    augmentation = models or panel(len(teachers), estimator=estimator)
    return TransInv(Supervised(classifier(CLASSES)), augmentation, teachers, TransInvConfig(**config))


def batch_of(size, part=slice(None), scale=1, seed=0):
    labels = torch.randint(CLASSES, (size,), generator=seeded(seed + 1))
    return Batch(pixels(size, seed=seed)[part], labels[part], size, scale)


def losses_of(objective, player, batch, draws):
    with only_training(player, objective.players):
        return objective.loss(player, objective.players, batch, draws)


def gradients_of(objective, player, batch, draws):
    """Of the total, by name; None where a parameter has no part in it."""
    net = objective.players[player]
    net.zero_grad()
    losses_of(objective, player, batch, draws)["total"].backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def assert_same_gradients(actual, expected, atol=2e-5):
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient is None or actual[name] is None:
            assert gradient is None and actual[name] is None, name
        else:
            torch.testing.assert_close(actual[name].double(), gradient.double(), rtol=1e-4, atol=atol, msg=name)


def deformations(draws):
    """What the panel drew for a student's turn: one set, or one a teacher."""
    return draws.deformations[0].passes


def deform_one(augmentation, image, draws, b):
    choice = int(draws.choice[b])
    if choice == K:
        return image
    primitive = augmentation.models[int(draws.model[b])].primitives[choice]
    noise = draws.noise[draws.noise_row[b]][None] if primitive.uses_noise else None
    return primitive.apply_to(image[None], primitive(draws.z[b][None]), noise)[0]


def slow_strata(objective, batch, draws):
    """hard[k][i], less that of the clean images, and keep[k][i]: means over each stratum's images, in float64."""
    augmentation, student = objective.players["augmentation"], objective.players["student"]
    hard = [[[] for _ in range(K + 1)] for _ in objective.teachers]
    keep = [[[] for _ in range(K + 1)] for _ in objective.teachers]
    for b, image in enumerate(batch.images):
        k, i = int(draws.model[b]), int(draws.choice[b])
        moved = deform_one(augmentation, image, draws, b)
        losses = (oracle.label_loss(student(x[None])[0].double(), int(batch.labels[b])) for x in (moved, image))
        hard[k][i].append(next(losses) - next(losses).detach())
        clean = objective.teachers[k](image[None])[0].double().detach()
        answer = objective.teachers[k](moved[None])[0].double()
        keep[k][i].append(oracle.teacher_loss(clean, answer, objective.config.keep))
    means = [[[sum(cell) / len(cell) for cell in row] for row in table] for table in (hard, keep)]
    return means[0], means[1]


def slow_objectives(objective, form, hard, keep):
    """O_k and the dual terms from the strata; multipliers are constants in the first, keep in the second."""
    tolerance, objectives, duals = objective.config.tolerance, [], []
    for k, model in enumerate(objective.players["augmentation"].models):
        p, q = model.p.double(), model.q.double()
        classes = (CLASSES, objective.teachers[k].num_classes)
        multipliers = objective.players["augmentation"].multipliers[k].double()
        fixed = multipliers.detach()[: 1 if form == "teacher" else K]
        objectives.append(oracle.objective(form, hard[k], keep[k], list(p), q, classes, tolerance, list(fixed)))
        if form in ("teacher", "primitive"):
            held = [value.detach() for value in keep[k]]
            p, q = p.detach(), q.detach()
            duals.append(oracle.dual(form, held, list(p), q, tolerance, list(multipliers[: len(fixed)])))
            excess = objective.players["augmentation"].excess[k].double()[: len(fixed)]
            duals.append(oracle.collected(list(excess), [tolerance] * len(fixed)))
    return objectives, duals


def slow_total(objective, form, batch, draws):
    """What the augmentation's turn descends, from eq. 5 and 6: -(sum_k O_k + sum_k r_k O_k + bonuses) - dual."""
    objectives, duals = slow_objectives(objective, form, *slow_strata(objective, batch, draws))
    augmentation = objective.players["augmentation"]
    total = sum(objectives) + sum(duals)
    for model in augmentation.models:
        total = total + objective.config.p_entropy * oracle.entropy(list(model.p.double()))
    if objective.config.selection == "r":
        r = list(augmentation.logits_r.double().softmax(0))
        total = total + sum(r[k] * objectives[k].detach() for k in range(len(r)))
        total = total + objective.config.r_entropy * oracle.entropy(r)
    return -total


class TestOracle:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("selection", ["r", "sum"])
    def test_augmentation(self, form, selection):
        """Value, and gradient to phi, p, q, r, the multipliers and where bounds add up; uneven strata."""
        objective = build(**FORMS[form], selection=selection, p_entropy=0.1)
        batch = batch_of(19)
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        losses = losses_of(objective, "augmentation", batch, draws)
        with only_training("augmentation", objective.players):
            expected = slow_total(objective, ORACLE_FORM[form], batch, draws)
        torch.testing.assert_close(losses["total"].item(), expected.item(), rtol=1e-5, atol=1e-5)
        actual = gradients_of(objective, "augmentation", batch, draws)
        augmentation = objective.players["augmentation"]
        augmentation.zero_grad()
        expected.backward()
        assert_same_gradients(actual, {name: p.grad for name, p in augmentation.named_parameters()})
        assert (actual["logits_r"] is None) == (selection == "sum")
        for name in ("multipliers", "excess"):
            assert (actual[name] is None) == (FORMS[form]["objective"] != "constrained")
        moving = [name for name, gradient in actual.items() if gradient is not None and gradient.abs().max() > 0]
        assert {f"models.{k}.{which}" for k in (0, 1) for which in ("logits_p", "logit_q")} <= set(moving)
        assert sum("primitives" in name for name in moving) == 2 * K * 4

    def test_terms_that_are_logged(self):
        objective = build(objective="paper")
        batch = batch_of(16)
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        losses = losses_of(objective, "augmentation", batch, draws)
        strata, models = slow_strata(objective, batch, draws), objective.players["augmentation"].models
        clean = cross_entropy(objective.student(batch.images), batch.labels).mean().item()
        for name, table, added in zip(("hard", "keep"), strata, (clean, 0.0), strict=True):
            means = [oracle.under(row, list(m.p.double()), m.q.double()) for row, m in zip(table, models, strict=True)]
            torch.testing.assert_close(losses[name].item(), (sum(means) / 2).item() + added, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_student(self, smoothing):
        objective = build()
        objective.task.label_smoothing = smoothing
        batch = batch_of(12)
        draws = objective.draw("student", batch.images.shape, seeded(5))
        expected = 0.0
        for b, image in enumerate(batch.images):
            moved = deform_one(objective.players["augmentation"], image, deformations(draws)[0], b).detach()
            logits = objective.players["student"](moved[None])[0].double()
            expected = expected + (1 - smoothing) * oracle.label_loss(logits, int(batch.labels[b])) / 12
            for label in range(CLASSES):
                expected = expected + smoothing / CLASSES * oracle.label_loss(logits, label) / 12
        student = objective.players["student"]
        names, parameters = zip(*student.named_parameters(), strict=True)
        slow = dict(zip(names, torch.autograd.grad(expected, parameters), strict=True))
        total = losses_of(objective, "student", batch, draws)["total"]
        torch.testing.assert_close(total.item(), expected.item(), rtol=1e-5, atol=1e-5)
        assert_same_gradients(gradients_of(objective, "student", batch, draws), slow)

    @pytest.mark.parametrize("form", [form for form in FORMS if "primitive" not in form])
    def test_gumbel(self, form):
        """The relaxed choice is in the image, so an image's objective has no weight but its share."""
        objective = build("gumbel", **FORMS[form])
        batch, augmentation = batch_of(9), objective.players["augmentation"]
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        moved, _ = augmentation(batch.images, draws)
        objectives, dual = [], 0.0
        for k, own in enumerate(objective.teachers):
            rows = (draws.model == k).nonzero().squeeze(1).tolist()
            hard, keep = 0.0, 0.0
            for b in rows:
                logits = objective.players["student"](moved[b][None])[0].double()
                hard = hard + oracle.label_loss(logits, int(batch.labels[b])) / len(rows)
                clean, answer = own(batch.images[b][None])[0].double(), own(moved[b][None])[0].double()
                keep = keep + oracle.teacher_loss(clean, answer, objective.config.keep) / len(rows)
            if form == "normalised":
                hard, keep = hard / math.log(CLASSES), keep / math.log(own.num_classes)
            weight, threshold = 1.0, 0.0
            if objective.config.objective == "constrained":
                weight, threshold = augmentation.multipliers[k, 0].double(), objective.config.tolerance
                dual = dual + weight * (keep.detach() - threshold)
                dual = dual + oracle.collected([augmentation.excess[k, 0].double()], [threshold])
                weight = weight.detach()
            objectives.append(hard - weight * (keep - threshold))
        r = augmentation.logits_r.softmax(0)
        soft = (r.log() + draws.gumbel_r).softmax(0)
        chosen = nn.functional.one_hot(soft.argmax(), 2) + soft - soft.detach()
        expected = -sum(objectives) - dual - sum(chosen[k] * objectives[k].detach() for k in range(2))
        expected = expected - objective.config.r_entropy * oracle.entropy(list(r.double()))
        total = losses_of(objective, "augmentation", batch, draws)["total"]
        torch.testing.assert_close(total.item(), expected.item(), rtol=1e-5, atol=1e-5)
        actual = gradients_of(objective, "augmentation", batch, draws)
        augmentation.zero_grad()
        expected.backward()
        assert_same_gradients(actual, {name: p.grad for name, p in augmentation.named_parameters()})


class TestLessTheCleanLoss:
    def without(self, objective, monkeypatch):
        monkeypatch.setattr(objective, "_clean_loss", lambda batch, draws: torch.zeros(len(batch.images)))
        return objective

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("chain", [1, 2])
    def test_it_takes_the_same_from_every_choice(self, form, chain, monkeypatch):
        """Of one image, many times over, nothing that is learned changes."""
        first = batch_of(1)
        batch = Batch(first.images.expand(24, -1, -1, -1), first.labels.expand(24), 24)
        objective = build(models=panel(2, chain=chain), **FORMS[form])
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        actual = gradients_of(objective, "augmentation", batch, draws)
        expected = gradients_of(self.without(objective, monkeypatch), "augmentation", batch, draws)
        if chain == 1:
            assert_same_gradients(actual, expected)
        else:  # the further links are drawn from p, whose gradient has the noise of what was drawn
            assert_same_gradients(
                *({name: x for name, x in of.items() if "logits_p" not in name} for of in (actual, expected))
            )

    def test_it_takes_the_noise(self, monkeypatch):
        """Over draws, the gradients of p and q keep their means and lose most of their variance."""
        batch, found = batch_of(40), {}
        for name in ("with", "without"):
            objective = build(objective="paper")
            if name == "without":
                self.without(objective, monkeypatch)
            gradients = []
            for seed in range(60):
                draws = objective.draw("augmentation", batch.images.shape, seeded(seed))
                of = gradients_of(objective, "augmentation", batch, draws)
                gradients.append(
                    torch.cat([x.flatten() for key, x in of.items() if "logit" in key and "_r" not in key])
                )
            found[name] = torch.stack(gradients)
        error = (found["without"].var(0) / 60).sqrt()
        assert ((found["with"].mean(0) - found["without"].mean(0)).abs() < 4 * error).all()
        assert found["with"].var(0).sum() < found["without"].var(0).sum() / 2

    @pytest.mark.parametrize(("estimator", "asked"), [("expectation", 2), ("gumbel", 1)])
    def test_a_relaxed_choice_needs_none(self, estimator, asked):
        objective, batch, count = build(estimator), batch_of(6), []
        objective.student.register_forward_hook(lambda *_: count.append(1))
        losses_of(objective, "augmentation", batch, objective.draw("augmentation", batch.images.shape, seeded(5)))
        assert len(count) == asked


class TestSelectionOfTeachers:
    def objectives(self, objective, batch, draws):
        with torch.no_grad():
            found, _ = slow_objectives(objective, "paper", *slow_strata(objective, batch, draws))
        return torch.stack(found).float()

    def setup(self, bonus):
        objective, batch = build(objective="paper", r_entropy=bonus), batch_of(16)
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        return objective, batch, draws, self.objectives(objective, batch, draws)

    def test_without_the_bonus_r_follows_its_objective_alone(self):
        objective, batch, draws, found = self.setup(0.0)
        r = objective.players["augmentation"].logits_r.softmax(0).detach()
        actual = gradients_of(objective, "augmentation", batch, draws)["logits_r"]
        torch.testing.assert_close(actual, -r * (found - (r * found).sum()), rtol=1e-4, atol=1e-5)
        assert actual[found.argmax()] < 0 < actual[found.argmin()]

    def test_with_the_bonus_r_rests_at_the_softmax_of_the_objectives(self):
        """max over r of r . O + w H(r) is at softmax(O / w); below it r is pulled up, above it down."""
        objective, batch, draws, found = self.setup(0.3)
        logits = objective.players["augmentation"].logits_r
        for push, sign in ((0.0, 0), (-0.5, -1), (0.5, 1)):
            with torch.no_grad():
                logits.copy_(found / 0.3)
                logits[0] += push
            gradient = gradients_of(objective, "augmentation", batch, draws)["logits_r"]
            torch.testing.assert_close(gradient.sum(), torch.tensor(0.0), rtol=0, atol=1e-5)
            assert abs(gradient[0]) < 1e-5 if sign == 0 else gradient[0] * sign > 1e-4

    def test_a_large_bonus_pulls_to_uniform(self):
        objective, batch, draws, _ = self.setup(100.0)
        logits = objective.players["augmentation"].logits_r
        gradient = gradients_of(objective, "augmentation", batch, draws)["logits_r"]
        assert gradient[logits.argmax()] > 0 > gradient[logits.argmin()]


@pytest.mark.parametrize("form", ["a multiplier a teacher", "a multiplier a primitive"])
def test_multipliers_rise_above_the_tolerance_and_fall_below(form):
    for tolerance, rises in ((1e-6, True), (50.0, False)):
        objective, batch = build(**FORMS[form], tolerance=tolerance), batch_of(16)
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        augmentation = objective.players["augmentation"]
        with torch.no_grad():
            augmentation.multipliers.fill_(100.0)
        before = augmentation.multipliers.detach().clone()
        losses_of(objective, "augmentation", batch, draws)["total"].backward()
        objective.after_step("augmentation", objective.players)
        change = augmentation.multipliers.detach() - before
        used = slice(0, 1) if form == "a multiplier a teacher" else slice(0, K)
        assert (change[:, used] > 0).all() if rises else (change[:, used] < 0).all()
        assert (change[:, used.stop :] == 0).all()
        with torch.no_grad():
            augmentation.multipliers.fill_(1e-3)
        objective.after_step("augmentation", objective.players)
        assert (
            (augmentation.multipliers[:, used] > 0.001).all()
            if rises
            else (augmentation.multipliers[:, used] == 0).all()
        )


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_multipliers_are_those_of_a_controller_and_do_not_depend_on_the_unit_of_the_bound(scale):
    """keep of six turns: far beyond the bound, back to it, within it; a second constraint is not there at all."""
    multipliers, excess = nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.zeros(1, 2))
    expected, before = 1.0, 0.0
    for keep in (0.9, 0.3, 0.12, 0.1, 0.02, 0.0):
        bound = 0.1 * scale
        multipliers.grad = torch.tensor([[bound - keep * scale, 0.0]])
        excess.grad = torch.tensor([[-bound, 0.0]])
        ascend_dual(multipliers, excess, 0.05)
        expected, before = oracle.next_multiplier(expected, before, keep * scale, bound, 0.05, DAMPING)
        assert multipliers.tolist() == [pytest.approx([expected, 1.0])]
        assert excess.tolist() == [pytest.approx([before, 0.0])]
    assert expected == 0, "what was far beyond its bound for two turns has no price when it is within"


def test_multipliers_stay_where_a_gradient_overflowed():
    augmentation = build().players["augmentation"]
    multipliers, excess = augmentation.multipliers, augmentation.excess
    before = multipliers.detach().clone()
    for gradients in (
        (torch.full((2, K), math.inf), -torch.ones(2, K)),
        (torch.ones(2, K), torch.full((2, K), math.nan)),
    ):
        multipliers.grad, excess.grad = gradients
        ascend_dual(multipliers, excess, 0.05)
        assert torch.equal(multipliers, before) and not excess.any()


CASES = [("expectation", form) for form in FORMS] + [("gumbel", "normalised"), ("gumbel", "a multiplier a teacher")]


class TestParts:
    """A batch in parts is the batch: micro-batches add up, processes average."""

    def check(self, objective, player, parts, scale, size=8):
        draws = objective.draw(player, pixels(size).shape, seeded(5))
        whole, total = gradients_of(objective, player, batch_of(size), draws), 0.0
        expected = losses_of(objective, player, batch_of(size), draws)["total"].item()
        summed = {name: None for name in whole}
        for part in parts:
            batch, own = batch_of(size, part, scale), draws[part]
            total += losses_of(objective, player, batch, own)["total"].item() / scale
            for name, gradient in gradients_of(objective, player, batch, own).items():
                if gradient is not None:
                    summed[name] = gradient / scale + (0 if summed[name] is None else summed[name])
        assert total == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert_same_gradients(summed, whole)

    @pytest.mark.parametrize(("estimator", "form"), CASES)
    @pytest.mark.parametrize("scale", [1, 2])
    def test_augmentation(self, estimator, form, scale):
        objective = build(estimator, **FORMS[form], p_entropy=0.1)
        self.check(objective, "augmentation", [slice(0, 4), slice(4, 8)], scale)

    def test_fewer_images_than_strata(self):
        self.check(build(**FORMS["a multiplier a primitive"]), "augmentation", [slice(0, 2), slice(2, 6)], 1, size=6)

    @pytest.mark.parametrize("selection", ["r", "sum"])
    @pytest.mark.parametrize("scale", [1, 2])
    def test_student(self, selection, scale):
        objective = build(selection=selection)
        self.check(objective, "student", [slice(0, 4), slice(4, 8)], scale)


class TestOneTeacherTwice:
    def pair(self, **config):
        """The same teacher once with one augmentation model, and twice with two copies of it."""
        own, once = teacher(3), panel(1)
        twice = panel(2)
        for model in twice.models:
            model.load_state_dict(once.models[0].state_dict())
        with torch.no_grad():
            twice.multipliers.copy_(once.multipliers.expand(2, K))
        single = build(teachers=nn.ModuleList([own]), models=once, **config)
        return single, build(teachers=nn.ModuleList([own, own]), models=twice, **config)

    def test_student_is_the_same(self):
        """The same primitives drawn, whichever copy of the model draws them."""
        single, double = self.pair()
        batch = batch_of(12)
        whole = single.draw("student", batch.images.shape, seeded(5))
        (draws,) = deformations(whole)
        split = Draws(draws.z, draws.choice % 2, draws.choice, draws.noise, draws.noise_row, draws.share)
        split = TaskDraws((DeformationDraws((split,)),), whole.task)
        first = losses_of(single, "student", batch, whole)["total"]
        torch.testing.assert_close(losses_of(double, "student", batch, split)["total"], first)
        expected, actual = (gradients_of(o, "student", batch, d) for o, d in ((single, whole), (double, split)))
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("form", FORMS)
    def test_objectives_are_the_same_and_r_is_summed(self, form):
        """Each copy sees the whole batch: O_1 = O_2 = O, so r . O = (r_1 + r_2) O = O, and the gradients of the
        copies' phi, p, q are the single one's."""
        single, double = self.pair(**FORMS[form], r_entropy=0.0)
        batch = batch_of(8)
        draws = single.draw("augmentation", batch.images.shape, seeded(5))
        images, labels = batch.images.repeat(2, 1, 1, 1), batch.labels.repeat(2)
        both = Draws(
            draws.z.repeat(2, 1),
            torch.arange(2).repeat_interleave(8),
            draws.choice.repeat(2),
            draws.noise.repeat(2, 1, 1, 1),
            torch.cat([draws.noise_row, draws.noise_row + len(draws.noise) * (draws.noise_row >= 0)]),
            draws.share.repeat(2),
        )
        whole = Batch(images, labels, 16)
        once, twice = (
            gradients_of(o, "augmentation", b, d) for o, b, d in ((single, batch, draws), (double, whole, both))
        )
        for name, gradient in once.items():
            if name.startswith("models.0"):
                for k in range(2):
                    torch.testing.assert_close(
                        twice[name.replace("models.0", f"models.{k}")], gradient, rtol=1e-4, atol=1e-5
                    )
        torch.testing.assert_close(twice["logits_r"], torch.zeros(2), rtol=0, atol=1e-5)
        losses = [losses_of(o, "augmentation", b, d) for o, b, d in ((single, batch, draws), (double, whole, both))]
        for term in ("hard", "keep"):
            torch.testing.assert_close(losses[0][term], losses[1][term], rtol=1e-5, atol=1e-5)
        if FORMS[form]["objective"] != "constrained":  # -(O + r O), and -(O_1 + O_2 + r . O)
            torch.testing.assert_close(losses[1]["total"], losses[0]["total"] * 1.5, rtol=1e-5, atol=1e-5)

    def test_an_average_listed_twice_is_updated_once(self):
        student = classifier(CLASSES)
        average = EMATeacher(student)
        objective = TransInv(Supervised(student), panel(2), nn.ModuleList([average, average]), TransInvConfig())
        objective.after_step("augmentation", objective.players)
        assert average.num_updates == 0
        objective.after_step("student", objective.players)
        assert average.num_updates == 1 and list(objective.extra_state().values()) == [average]


class TestSum:
    def test_student_sees_every_teacher(self):
        """Eq. 6: the sum over k of the loss of the whole batch under A^k."""
        objective, batch = build(selection="sum"), batch_of(10)
        draws = objective.draw("student", batch.images.shape, seeded(5))
        both = deformations(draws)
        assert [draw.model.unique().tolist() for draw in both] == [[0], [1]]
        parts = [
            losses_of(objective, "student", batch, TaskDraws((DeformationDraws((one,)),), draws.task))["total"]
            for one in both
        ]
        torch.testing.assert_close(losses_of(objective, "student", batch, draws)["total"], sum(parts))

    def test_r_is_not_learned(self):
        objective = build(selection="sum")
        assert not objective.players["augmentation"].logits_r.requires_grad and "r" not in objective.observe()


class Hole:
    """A student of 100 classes and a teacher of 2, both sure of images of one lit pixel, without a clue in the dark.
    The only primitive turns every image black, so an augmentation model has q to choose: destroy or leave alone."""

    def __init__(self, **config):
        augmentation = panel(1, primitives=("contrast_brightness",))
        primitive = augmentation.models[0].primitives[0]
        with torch.no_grad():
            primitive.last.bias.fill_(-60.0)  # 0.2 x - 0.5 < 0
            augmentation.models[0].logit_q.zero_()
            augmentation.multipliers.fill_(1.0)
        self.labels = torch.arange(32)
        self.images = torch.zeros(32, 3, 8, 8)
        self.images.view(32, -1)[self.labels, self.labels] = 1.0
        student, sure = self.linear(100), Teacher(self.linear(2))
        with torch.no_grad():
            student.network[1].weight[self.labels, self.labels] = 6.0
            sure.classifier.network[1].weight[0] = 9.0
        config = TransInvConfig(**config)
        self.objective = TransInv(Supervised(student), augmentation, nn.ModuleList([sure]), config)
        self.q = []

    def linear(self, classes):
        layer = nn.Linear(192, classes, bias=False)
        nn.init.zeros_(layer.weight)
        network = nn.Sequential(nn.Flatten(), layer)
        return Classifier(network, num_classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3, input_size=(8, 8))

    def ascend(self, turns):
        augmentation, generator = self.objective.players["augmentation"], seeded(1)
        moving = [x for name, x in augmentation.named_parameters() if name not in ("multipliers", "excess")]
        optimizer = torch.optim.Adam(moving, lr=0.1)
        for _ in range(turns):
            batch = Batch(self.images, self.labels, 32)
            draws = self.objective.draw("augmentation", self.images.shape, generator)
            augmentation.zero_grad()
            losses_of(self.objective, "augmentation", batch, draws)["total"].backward()
            optimizer.step()
            self.objective.after_step("augmentation", self.objective.players)
            self.q.append(augmentation.models[0].q.item())
        return self


class TestHole:
    def test_the_paper_s_objective_gains_by_destroying(self):
        hole = Hole(objective="paper").ascend(60)
        assert hole.q[-1] > 0.95
        found = hole.objective.warnings({"augmentation/hard": 4.57})
        assert "hole" in found and "constrained" in found["hole"]

    def test_the_normalised_one_does_not(self):
        assert Hole(objective="normalised").ascend(60).q[-1] < 0.3

    @pytest.mark.parametrize("multipliers", ["teacher", "primitive"])
    def test_the_constrained_one_does_not(self, multipliers):
        """Black images move the teacher by ln 2: 0.2 nats in the mean leave q at most 0.2 / ln 2 = 0.29; one
        multiplier a primitive finds the primitive itself too far away at any q."""
        hole = Hole(objective="constrained", multipliers=multipliers, tolerance=0.2).ascend(200)
        late = sum(hole.q[100:]) / 100
        assert late < 0.29 + 0.1
        assert hole.objective.players["augmentation"].multipliers[0, 0] > 0.5
        assert "hole" not in hole.objective.warnings({"augmentation/hard": 1.0})


class TestWarnings:
    def warned(self, recent=None, config=None, **logits):
        objective = build(**(config or {}))
        augmentation = objective.players["augmentation"]
        with torch.no_grad():
            for values in (
                augmentation.logits_r,
                *(parameter for m in augmentation.models for parameter in (m.logits_p, m.logit_q)),
            ):
                values.zero_()
            augmentation.logits_r[0] = logits.get("r", 0.0)
            augmentation.models[0].logits_p[1] = logits.get("p", 0.0)
            augmentation.models[1].logit_q.fill_(logits.get("q", 0.0))
            augmentation.models[0].logit_q.fill_(logits.get("q", 0.0))
        return objective.warnings(recent or {"augmentation/hard": 0.5})

    def test_all_is_well(self):
        assert self.warned() == {}

    def test_hole_needs_both_a_large_q_and_a_student_that_knows_nothing(self):
        chance = math.log(CLASSES)
        assert set(self.warned({"augmentation/hard": 0.99 * chance}, q=4.0)) == {"hole"}
        assert self.warned({"augmentation/hard": 0.5 * chance}, q=4.0) == {}
        assert self.warned({"augmentation/hard": 0.99 * chance}, q=0.0) == {}
        assert set(self.warned({"augmentation/hard": 0.99 * chance}, {"selection": "sum"}, q=4.0)) == {"hole"}

    @pytest.mark.parametrize(("key", "logits"), [("idle", {"q": -6.0}), ("r", {"r": 8.0}), ("p", {"p": 9.0})])
    def test_collapses_are_named(self, key, logits):
        assert set(self.warned(**logits)) == {key}

    def test_r_is_not_watched_when_it_is_not_used(self):
        assert self.warned(None, {"selection": "sum"}, r=8.0) == {}


def test_what_is_learned_is_seen():
    objective = build(**FORMS["a multiplier a primitive"])
    seen = objective.observe()
    assert sum(seen["r"]) == pytest.approx(1) and all(sum(row) == pytest.approx(1) for row in seen["p"])
    assert len(seen["q"]) == 2 and [len(row) for row in seen["multipliers"]] == [K, K]
    assert [len(row) for row in build(**FORMS["a multiplier a teacher"]).observe()["multipliers"]] == [1, 1]
    assert "multipliers" not in build(objective="paper").observe()


def test_student_turns_follow_what_the_augmentation_learned():
    """p, q and r are copied to the host once a turn of the augmentation, and never used stale."""
    objective = build()
    shape, augmentation = (64, 3, 8, 8), objective.players["augmentation"]
    assert len(deformations(objective.draw("student", shape, seeded()))[0].model.unique()) == 2
    objective.draw("augmentation", shape, seeded())
    with torch.no_grad():
        augmentation.logits_r.copy_(torch.tensor([-50.0, 50.0]))
    assert deformations(objective.draw("student", shape, seeded()))[0].model.unique().tolist() == [1]


def test_turns_are_algorithm_1():
    assert build(inner_steps=3).turns == (("student",),) * 3 + (("augmentation",),)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "minimax"}, "minimax"),
        ({"multipliers": "image"}, "image"),
        ({"keep": "l2"}, "l2"),
        ({"selection": "all"}, "all"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"r_entropy": -1.0}, "not negative"),
        ({"objective": "constrained", "keep": "cross_entropy"}, "needs keep 'kl'"),
    ],
)
def test_config_errors(fields, said):
    with pytest.raises(InputError, match=said):
        TransInvConfig(**fields)


def test_contradictions_between_objective_and_panel():
    with pytest.raises(InputError, match="2 teachers need as many augmentation models, not 3"):
        build(models=panel(3))
    with pytest.raises(InputError, match="need estimator 'expectation'"):
        build("gumbel", **FORMS["a multiplier a primitive"])


@pytest.mark.parametrize("form", FORMS)
def test_asking_a_teacher_for_both_answers_at_once_changes_nothing(form):
    """One call for images and deformed images, as on a GPU, against two."""
    batch, found = batch_of(12), []
    for at_once in (False, True):
        objective = build(**FORMS[form])
        objective.judges.asks_at_once = at_once
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        found.append(gradients_of(objective, "augmentation", batch, draws))
    assert_same_gradients(found[1], found[0])
