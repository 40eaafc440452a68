"""TeachAugment's losses against their definitions, who moves, the replay in the student's turn, stop and resume."""

import itertools
import math

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.augment.teach_augmentation import TeachAugmentation
from hf_transinv.config import TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.models import EMATeacher
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.teachaugment import TeachAugment, TeachAugmentConfig
from hf_transinv.objectives.teachaugment_terms import log_complement, non_saturating_loss, sliced_wasserstein
from hf_transinv.objectives.turns import Batch, only_training
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.objectives.tiny import classifier, pixels, seeded
from tests.oracles import teachaugment as oracle
from tests.oracles import transinv
from tests.tiny_run import resident_feed, tensors_of, tiny_vit

CLASSES = 5


def build(task=Supervised, trained=True, copy_steps=100, max_steps=None, **config):
    """A student of 5 classes for 8 px, an augmentation away from its start, an average away from the student."""
    student = classifier(CLASSES)
    average = EMATeacher(classifier(CLASSES, seed=1))
    augmentation = TeachAugmentation(CLASSES, student.mean.flatten().tolist(), student.std.flatten().tolist())
    if trained:
        shake(augmentation)
    max_steps = 4 * copy_steps if max_steps is None else max_steps
    return TeachAugment(task(student), augmentation, average, TeachAugmentConfig(**config), copy_steps, max_steps)


def shake(augmentation, seed=2):
    generator = seeded(seed)
    with torch.no_grad():
        for name, parameter in augmentation.named_parameters():
            size = 0.5 if "gate" in name else 0.05
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def batch_of(size, part=slice(None), scale=1):
    return Batch(pixels(size)[part], (torch.arange(size) % CLASSES)[part], size, scale)


def losses_of(objective, player, batch, draws):
    with only_training(player, objective.players):
        return objective.loss(player, objective.players, batch, draws)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


class TestNonSaturatingLoss:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_values(self, smoothing):
        logits, labels = 3 * torch.randn(6, CLASSES, generator=seeded(), dtype=torch.float64), torch.arange(6) % 5
        expected = [
            oracle.non_saturating_loss(row, y, smoothing)
            for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
        ]
        assert non_saturating_loss(logits, labels, smoothing).tolist() == pytest.approx(expected)

    def test_known_values(self):
        """Undecided among c classes: -log(1 - 1/c); a student that is sure pays the difference of its logits."""
        undecided, sure = torch.zeros(1, 4), torch.tensor([[200.0, 0.0, 0.0]])
        assert non_saturating_loss(undecided, torch.tensor([2])).item() == pytest.approx(math.log(4 / 3))
        assert non_saturating_loss(sure, torch.tensor([0])).item() == pytest.approx(200 - math.log(2))
        assert non_saturating_loss(sure, torch.tensor([1])).item() == 0

    @pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
    def test_finite_however_sure(self, size):
        logits = (size * torch.tensor([[1.0, -1.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, -2.0]])).requires_grad_()
        values = log_complement(logits)
        values.sum().backward()
        assert values.isfinite().all() and (values <= 0).all() and logits.grad.isfinite().all()

    def test_gradient(self):
        logits = torch.randn(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: non_saturating_loss(x, torch.tensor([0, 1, 2, 0]), 0.1), logits)

    def test_it_does_not_saturate(self):
        """Where the student is sure and right, the negated cross-entropy has no gradient, this one has."""
        logits, label = torch.tensor([[20.0, 0.0]]).requires_grad_(), torch.tensor([0])
        gradients = [
            torch.autograd.grad(loss, logits)[0].abs().max().item()
            for loss in (-torch.nn.functional.cross_entropy(logits, label), non_saturating_loss(logits, label).sum())
        ]
        assert gradients[0] < 1e-8 and gradients[1] == pytest.approx(1)


class TestSlicedWasserstein:
    def clouds(self, seed=0, batch=3):
        return [torch.rand(batch, 3, 2, 3, generator=seeded(seed + i), dtype=torch.float64) for i in (0, 1)]

    def directions(self, batch=3, count=4):
        drawn = build(teach_projections=count).draw("augmentation", (batch, 3, 8, 8), seeded(3)).directions.double()
        return drawn

    def test_is_the_best_of_all_pairings(self):
        (first, second), directions = self.clouds(), self.directions()
        expected = [
            oracle.sliced_wasserstein(*(x[b].flatten(1).T.numpy() for x in (first, second)), directions[b].numpy())
            for b in range(3)
        ]
        assert sliced_wasserstein(first, second, directions).tolist() == pytest.approx(expected)

    def test_sort_over_the_batch(self):
        """At each pixel the images of the batch are the cloud."""
        (first, second), directions = self.clouds(), self.directions()[:1].expand(3, -1, -1)
        expected = [
            oracle.sliced_wasserstein(first[:, :, r, c].numpy(), second[:, :, r, c].numpy(), directions[0].numpy())
            for r, c in itertools.product(range(2), range(3))
        ]
        actual = sliced_wasserstein(first, second, directions, "batch").mean().item()
        assert actual == pytest.approx(sum(expected) / len(expected))

    def test_places_of_colours_do_not_count(self):
        (first, _), directions = self.clouds(), self.directions()
        torch.testing.assert_close(
            sliced_wasserstein(first, first.flip(-1), directions), torch.zeros(3, dtype=torch.float64)
        )

    def test_of_a_shift_is_a_third_of_its_square(self):
        """u is uniform on the sphere: E[(u.d)^2] = |d|^2 / 3."""
        first = self.clouds(batch=400)[0]
        shift = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64).view(3, 1, 1)
        found = sliced_wasserstein(first, first + shift, self.directions(400, 64)).mean().item()
        assert found == pytest.approx(shift.square().sum().item() / 3, rel=0.03)

    def test_directions(self):
        own = self.directions()
        torch.testing.assert_close(own.square().sum(-1), torch.ones(3, 4).double(), atol=1e-6, rtol=0)
        assert not torch.equal(own[0], own[1])
        shared = build(teach_sort="batch").draw("augmentation", (3, 3, 8, 8), seeded(3)).directions
        assert shared.shape == (3, 16, 3) and torch.equal(shared[0], shared[2])

    @pytest.mark.parametrize("sort", ["pixels", "batch"])
    def test_gradient(self, sort):
        (first, second), directions = self.clouds(), self.directions()[:1].expand(3, -1, -1)
        images = [first.requires_grad_(), second.requires_grad_()]
        assert torch.autograd.gradcheck(lambda a, b: sliced_wasserstein(a, b, directions, sort), images)


class TestAugmentationTurn:
    @pytest.mark.parametrize("config", [{}, {"teach_smoothing": 0.0, "teach_colour_weight": 2.0}])
    def test_loss(self, config):
        objective, batch = build(**config), batch_of(7)
        draws = objective.draw("augmentation", batch.images.shape, seeded(5))
        losses = losses_of(objective, "augmentation", batch, draws)
        augmented = objective.augmentation(batch.images, batch.labels, draws.augmentation)
        expected = {"adversarial": 0.0, "teacher": 0.0, "colours": 0.0}
        settings = objective.config
        for b, label in enumerate(batch.labels.tolist()):
            image = augmented.images[b : b + 1]
            answer = objective.student(image)[0].double().tolist()
            expected["adversarial"] += oracle.non_saturating_loss(answer, label, settings.teach_smoothing) / 7
            expected["teacher"] += transinv.label_loss(objective.teacher(image)[0].double().tolist(), label) / 7
            normal = [
                (x[b] - objective.student.mean) / objective.student.std for x in (batch.images, augmented.coloured)
            ]
            ranked = [(draws.directions[b] @ x.flatten(1)).sort(-1).values for x in normal]
            distance = (ranked[0] - ranked[1]).square().mean().item()
            expected["colours"] += settings.teach_colour_weight * distance / 7
        assert losses["total"].item() == pytest.approx(sum(expected.values()), rel=1e-4)
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value, rel=1e-4), name

    @pytest.mark.parametrize("scale", [1, 2])
    def test_parts_add_up(self, scale):
        """At the start BatchNorm has no say in the image yet, so parts of a batch are the whole."""
        objective = build(trained=False)
        draws = objective.draw("augmentation", (8, 3, 8, 8), seeded(5))
        whole = losses_of(objective, "augmentation", batch_of(8), draws)
        parts = [
            losses_of(objective, "augmentation", batch_of(8, part, scale), draws[part])
            for part in (slice(0, 3), slice(3, 8))
        ]
        for name, value in whole.items():
            torch.testing.assert_close(sum(part[name] for part in parts) / scale, value)

    def test_who_moved(self):
        objective = build()
        watched = {**objective.players, **objective.extra_state()}
        before = {name: state_of(module) for name, module in watched.items()}
        optimizer = torch.optim.AdamW(objective.augmentation.parameters(), lr=1e-2)
        batch = batch_of(8)
        draws = objective.draw("augmentation", batch.images.shape, seeded())
        losses_of(objective, "augmentation", batch, draws)["total"].backward()
        optimizer.step()
        objective.after_step("augmentation", objective.players)
        found = {name: moved(before[name], module) for name, module in watched.items()}
        everything = set(objective.augmentation.state_dict())
        assert found == {"student": set(), "augmentation": everything, "average": set(), "replay": set()}
        assert not any(p.grad is not None for p in [*objective.student.parameters(), *objective.teacher.parameters()])

    def test_it_finds_what_is_hard(self):
        """A student that is right, and a teacher to whom all images are the same: the student's losses grow."""
        objective, images = build(trained=False, teach_colour_weight=0.0), pixels(16)
        with torch.no_grad():
            labels = objective.student(images).argmax(1)
            for parameter in objective.teacher.parameters():
                parameter.zero_()
        optimizer, generator, seen = torch.optim.AdamW(objective.augmentation.parameters(), lr=1e-3), seeded(1), []
        for _ in range(40):
            draws = objective.draw("augmentation", images.shape, generator)
            losses = losses_of(objective, "augmentation", Batch(images, labels, 16), draws)
            losses["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(losses["adversarial"].item())
        assert sum(seen[-10:]) < 0.9 * sum(seen[:10])
        assert objective.observe()["change/affine"] > 0.01


class TestStudentTurn:
    def test_is_the_task_on_augmented_images(self):
        objective, batch = build(), batch_of(8)
        draws = objective.draw("student", batch.images.shape, seeded(5))
        own, models = draws.deformations[0].augmentation, draws.deformations[0].models
        assert models is None
        augmented = Batch(objective.augmentation(batch.images, batch.labels, own).images, batch.labels, 8)
        expected = Supervised(objective.student).loss("student", objective.players, augmented, draws.task)["total"]
        actual = losses_of(objective, "student", batch, draws)["total"]
        torch.testing.assert_close(actual, expected)
        actual.backward()
        assert all(p.grad is None for p in objective.augmentation.parameters())

    def with_copies(self, chunks=4):
        """Two copies, all three models different; and the modules they were."""
        objective, were = build(copy_steps=1, teach_replay_chunks=chunks), []
        for seed in (7, 8):
            were.append(state_of(objective.augmentation))
            objective.after_step("student", objective.players)
            shake(objective.augmentation, seed)
        return objective, [*were, state_of(objective.augmentation)]

    @pytest.mark.parametrize("size", [8, 7])
    def test_replay(self, size):
        """Chunk by chunk, each with the network that was drawn for it."""
        objective, were = self.with_copies()
        batch = batch_of(size)
        draws = objective.draw("student", batch.images.shape, seeded(6))
        own, models = draws.deformations[0].augmentation, draws.deformations[0].models
        actual = objective.deform(objective.players, batch.images, batch.labels, draws.deformations[0])[0].images
        alone = build().augmentation
        for rows in torch.arange(size).chunk(4):
            place = slice(rows[0], rows[-1] + 1)
            alone.load_state_dict(were[models.place[rows[0]]])  # -1, today's, stands last
            expected = alone(batch.images[place], batch.labels[place], own[place]).images
            torch.testing.assert_close(actual[place], expected, rtol=1e-4, atol=1e-5)
        assert len(models.place.unique()) > 1

    def test_micro_batches_that_keep_chunks_whole_are_the_whole(self):
        objective, _ = self.with_copies()
        draws = objective.draw("student", (8, 3, 8, 8), seeded(6))
        whole = losses_of(objective, "student", batch_of(8), draws)["total"]
        parts = [
            losses_of(objective, "student", batch_of(8, part, 2), draws[part])["total"]
            for part in (slice(0, 6), slice(6, 8))
        ]
        torch.testing.assert_close(sum(parts) / 2, whole)

    def test_every_variant_has_an_augmentation_of_its_own(self):
        objective = build(lambda student: InvariantTraining(student, InvariantConfig()))
        first = pixels(6)
        batch = Batch(first, torch.arange(6) % CLASSES, 6, others=(first,))
        draws = objective.draw("student", first.shape, seeded(5))
        assert len(draws.deformations) == 2 and objective.variants == 2
        variants = [
            objective.deform(objective.players, first, batch.labels, drawn)[0].images for drawn in draws.deformations
        ]
        assert not torch.equal(*variants)
        losses = losses_of(objective, "student", batch, draws)
        expected = objective.task.loss(
            "student", objective.players, Batch(variants[0], batch.labels, 6, others=(variants[1],)), draws.task
        )
        torch.testing.assert_close(losses["total"], expected["total"])

    def test_who_moved(self):
        objective = build(copy_steps=2)
        watched = {**objective.players, **objective.extra_state()}
        optimizer = torch.optim.SGD(objective.student.parameters(), lr=0.1)
        for step in (1, 2):
            before = {name: state_of(module) for name, module in watched.items()}
            draws = objective.draw("student", (8, 3, 8, 8), seeded())
            losses_of(objective, "student", batch_of(8), draws)["total"].backward()
            optimizer.step()
            objective.after_step("student", objective.players)
            found = {name: moved(before[name], module) for name, module in watched.items()}
            learned = {name for name, _ in objective.student.named_parameters()}
            assert found["student"] == learned and found["augmentation"] == set()
            assert found["average"] == {f"classifier.{name}" for name in learned} | {"num_updates"}
            copied = {name for name in objective.replay.state_dict() if step == 2 or name == "_extra_state"}
            assert found["replay"] == copied


class TestTurns:
    def test_of_the_paper(self):
        assert build().turns == (("student",),) * 5 + (("augmentation",),)

    def test_one_batch_for_both(self):
        objective = build(teach_share_batch=True, teach_inner_steps=3)
        assert objective.turns == (("augmentation", "student"), ("student",), ("student",))

    def test_room_for_every_copy(self):
        assert build(copy_steps=100, max_steps=401).replay.capacity == 4
        assert build(copy_steps=100, max_steps=400).replay.capacity == 3  # what the last step copies is never used
        assert build(copy_steps=100, max_steps=50).replay.capacity == 1

    def test_copies_go_by_epochs(self):
        assert TeachAugmentConfig(teach_replay_epochs=0.5).copy_steps(7) == 4
        assert TeachAugmentConfig().copy_steps(390) == 3900
        with pytest.raises(InputError, match="stream"):
            TeachAugmentConfig().copy_steps(math.inf)


class TestWhatIsSeen:
    def test_observe(self):
        objective = build()
        with torch.no_grad():
            objective.augmentation.gate["colour"].copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, math.log(3)]))
        seen = objective.observe()
        assert seen["gate/colour"] == pytest.approx((4 * 0.5 + 0.75) / 5)
        assert set(seen) == {
            "gate/geometric",
            "gate/colour",
            "change/affine",
            "change/scale",
            "change/shift",
            "copies",
        }
        assert seen["change/affine"] == seen["copies"] == 0
        batch = batch_of(8)
        losses_of(objective, "augmentation", batch, objective.draw("augmentation", batch.images.shape, seeded()))
        assert 0 < objective.observe()["change/affine"] <= 0.25

    def test_warnings(self):
        objective = build(trained=False, copy_steps=1)
        assert objective.warnings({"augmentation/teacher": 9.0}) == {}  # too early
        objective.after_step("student", objective.players)
        assert set(objective.warnings({"augmentation/teacher": 9.0})) == {"unread", "idle"}
        objective.augmentation.magnitudes.fill_(0.1)
        assert objective.warnings({"augmentation/teacher": 1.0}) == {}
        with torch.no_grad():
            for logits in objective.augmentation.gate.values():
                logits.fill_(-5)
        assert set(objective.warnings({"augmentation/teacher": 1.0})) == {"closed"}


def trainer_at(folder, **config):
    """A whole run on random images, everything from its seed; a copy every second step."""
    train = TrainConfig(max_steps=8, batch_size=8, learning_rate=0.05, logging_steps=2, save_steps=4)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    student = tiny_vit()
    augmentation = TeachAugmentation(3, (0.5,) * 3, (0.25,) * 3)
    settings = TeachAugmentConfig(teach_inner_steps=2, teach_replay_chunks=4, **config)
    objective = TeachAugment(Supervised(student), augmentation, EMATeacher(student), settings, 2, 8)
    feeds = {name: resident_feed(8, seed, accelerator) for seed, name in enumerate(("student", "augmentation"))}
    return Trainer(accelerator, objective, TrainerSetup(feeds, CropFlip(), train, 8, 5.0, folder, "tiny"))


@pytest.mark.parametrize("share", [False, True])
def test_stop_and_resume_is_uninterrupted(tmp_path, share):
    whole = trainer_at(tmp_path, teach_share_batch=share)
    whole.train()
    resumed = trainer_at(tmp_path, teach_share_batch=share)
    resumed.resume(tmp_path / "checkpoints" / "step_00000004")
    resumed.train()
    end = tensors_of(whole)
    assert tensors_of(resumed).keys() == end.keys() and whole.objective.replay.num_made == 4
    for name, tensor in tensors_of(resumed).items():
        assert torch.equal(tensor, end[name]), name


@pytest.mark.parametrize(
    "fields",
    [
        {"teach_inner_steps": 0},
        {"teach_projections": 0},
        {"teach_replay_chunks": 0},
        {"teach_sort": "rows"},
        {"teach_smoothing": 1.0},
        {"teach_replay_decay": 0.0},
        {"teach_colour_weight": -1.0},
        {"teach_replay_epochs": 0.0},
    ],
)
def test_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        TeachAugmentConfig(**fields)


def test_it_is_kin_to_what_its_colours_imitate():
    assert set(build().kin) == {"brightness", "contrast"}


def test_classes_must_agree():
    student = classifier(CLASSES)
    with pytest.raises(InputError, match="4 classes, the student has 5"):
        TeachAugment(
            Supervised(student), TeachAugmentation(4, (0.5,), (0.2,)), EMATeacher(student), TeachAugmentConfig(), 1, 9
        )
