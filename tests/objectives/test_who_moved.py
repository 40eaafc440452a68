"""Who moved: a turn moves its player, parameters and buffers, and nobody else; teachers never move."""

import pytest
import timm
import torch
from torch import nn

from hf_transinv.models import EMATeacher, Teacher
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.objectives.turns import Batch, only_training
from tests.objectives.tiny import panel, pixels, seeded


def with_batch_norm(classes, seed):
    torch.manual_seed(seed)
    # By default the last BatchNorm of a block starts at zero, and what lies before it would not move in one step.
    network = timm.create_model("test_resnet", num_classes=classes, zero_init_last=False)
    return Classifier(network, num_classes=classes, mean=(0.5,) * 3, std=(0.2,) * 3, input_size=(32, 32))


def state_of(module):
    return {name: value.clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def moved(before, module):
    return {name for name, value in state_of(module).items() if not torch.equal(value, before[name])}


class Street:
    """A TransInv of one fixed teacher and the student's average, with an optimizer a player."""

    def __init__(self, augmentation=None, **config):
        student = with_batch_norm(5, seed=0)
        self.average = EMATeacher(student)
        self.fixed = Teacher(with_batch_norm(7, seed=1), name="fixed")
        teachers = nn.ModuleList([self.fixed, self.average])
        augmentation = panel(2, **(augmentation or {}))
        self.objective = TransInv(Supervised(student), augmentation, teachers, TransInvConfig(**config))
        self.nets = self.objective.players
        self.optimizers = {
            "student": torch.optim.SGD(student.parameters(), lr=0.1, weight_decay=5e-4),
            "augmentation": torch.optim.AdamW(self.nets["augmentation"].parameters(), lr=1e-2),
        }
        self.generator = seeded(3)

    def step(self, player, follow=True):
        batch = Batch(pixels(8, 32), torch.arange(8) % 5, 8)
        with only_training(player, self.nets):
            draws = self.objective.draw(player, batch.images.shape, self.generator)
            self.objective.loss(player, self.nets, batch, draws)["total"].backward()
        self.optimizers[player].step()
        if follow:
            self.objective.after_step(player, self.nets)

    def watched(self):
        return {**self.nets, "fixed": self.fixed, "average": self.average}

    def moved_by(self, player, follow=True):
        before = {name: state_of(module) for name, module in self.watched().items()}
        self.step(player, follow)
        return {name: moved(before[name], module) for name, module in self.watched().items()}


CONFIGS = [
    {"objective": "constrained"},
    {"objective": "paper", "keep": "cross_entropy"},
    {"objective": "normalised", "selection": "sum"},
    {"objective": "paper", "augmentation": {"estimator": "gumbel", "gumbel_hard": False}},
]


@pytest.mark.parametrize("config", CONFIGS)
class TestTransInv:
    def test_student_turn(self, config):
        street = Street(**config)
        found = street.moved_by("student", follow=False)
        student = street.nets["student"]
        assert found == {"student": found["student"], "augmentation": set(), "fixed": set(), "average": set()}
        assert {name for name, _ in student.named_parameters()} <= found["student"]
        assert {name for name, _ in student.named_buffers() if "running" in name} <= found["student"]
        assert all(parameter.grad is None for parameter in street.nets["augmentation"].parameters())

    def test_the_average_follows_after_the_step(self, config):
        street = Street(**config)
        found = street.moved_by("student")
        assert found["student"] and found["augmentation"] == found["fixed"] == set()
        assert {f"classifier.{name}" for name, _ in street.nets["student"].named_parameters()} <= found["average"]
        assert any("running_mean" in name for name in found["average"]) and "num_updates" in found["average"]

    def test_augmentation_turn(self, config):
        street = Street(**config)
        street.step("student")
        street.optimizers["student"].zero_grad()
        found = street.moved_by("augmentation")
        assert found["student"] == found["fixed"] == found["average"] == set()
        trained = {name for name, p in street.nets["augmentation"].named_parameters() if p.requires_grad}
        assert found["augmentation"] <= trained
        assert {name for name in trained if name.startswith("models.")} <= found["augmentation"]
        assert ("logits_r" in found["augmentation"]) == (config.get("selection") != "sum")
        assert ("multipliers" in found["augmentation"]) == (config["objective"] == "constrained")
        assert all(parameter.grad is None for parameter in street.nets["student"].parameters())

    def test_teachers_are_bit_identical_for_ever(self, config):
        street = Street(**config)
        before = state_of(street.fixed)
        for player in ("student", "augmentation") * 2:
            street.step(player)
        assert moved(before, street.fixed) == set()
        teachers = [*street.fixed.modules(), *street.average.modules()]
        assert not any(module.training for module in teachers)
        assert not any(
            p.requires_grad or p.grad is not None for t in street.objective.teachers for p in t.parameters()
        )


def test_supervised_moves_the_student():
    student = with_batch_norm(5, seed=0)
    objective = Supervised(student)
    before, optimizer = state_of(student), torch.optim.SGD(student.parameters(), lr=0.1)
    batch = Batch(pixels(8, 32), torch.arange(8) % 5, 8)
    with only_training("student", objective.players):
        draws = objective.draw("student", (8, 3, 32, 32), torch.Generator())
        objective.loss("student", objective.players, batch, draws)["total"].backward()
    optimizer.step()
    learned = {name for name, _ in student.named_parameters()}
    assert learned <= moved(before, student) and any("running" in name for name in moved(before, student))
