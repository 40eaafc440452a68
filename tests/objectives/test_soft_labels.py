"""Shares of classes in place of class numbers, and weights of classes, through every method that takes them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transinv.objectives.hard import Hard, HardConfig
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv
from hf_transinv.objectives.turns import Batch
from tests.objectives.tiny import classifier, panel, pixels, seeded, teacher
from tests.objectives.trained import objective_of

METHODS = (
    "supervised",
    "augmix",
    "consistency",
    "paired",
    "ait",
    "multi_ait",
    "mutual",
    "distillation",
    "l2_sp",
    "transinv",
)
WEIGHTS = torch.tensor([0.5, 1.0, 4.0])


def method_of(name):
    if name == "supervised":
        return Supervised(classifier(3, 32), 0.1)
    if name == "transinv":
        return TransInv(Supervised(classifier(3, 32), 0.1), panel(2), [teacher(3, 32), teacher(4, 32)])
    objective = objective_of(name)
    objective.label_smoothing = 0.1
    return objective


def loss_of(objective, labels, weights=None):
    images = [pixels(6, 32, seed) for seed in range(objective.variants)]
    batch = Batch(images[0], labels, 6, others=tuple(images[1:]), class_weights=weights)
    draws = objective.draw("student", tuple(images[0].shape), seeded(7))
    return objective.loss("student", objective.players, batch, draws)["total"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_linear_in_the_labels(name, weights):
    """All other terms know no labels: a mixed label costs what its two classes cost, in their shares."""
    objective = method_of(name)
    first, second = torch.zeros(6, dtype=torch.int64), torch.arange(6) % 3
    shares = 0.25 * F.one_hot(first, 3).float() + 0.75 * F.one_hot(second, 3).float()
    hard = [loss_of(objective, labels, weights) for labels in (first, second)]
    torch.testing.assert_close(loss_of(objective, shares, weights), 0.25 * hard[0] + 0.75 * hard[1])
    assert abs(hard[0] - hard[1]) > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_weights_count_in_the_loss_with_labels(name):
    objective, labels = method_of(name), torch.full((6,), 2)
    objective_of_labels = getattr(objective, "task", objective)
    objective_of_labels.label_smoothing = 0.0
    plain, double, triple = (loss_of(objective, labels, torch.full((3,), weight)) for weight in (1.0, 2.0, 3.0))
    torch.testing.assert_close(plain, loss_of(objective, labels))
    torch.testing.assert_close(triple - double, double - plain)
    assert double - plain > 1e-2


def test_hards_cross_entropy_is_weighted():
    class Still(torch.nn.Module):
        def draw(self, shape, generator):
            return torch.zeros(shape[0])

        def forward(self, images, z):
            return images

    objective = Hard(classifier(3, 32), Still(), teacher(3, 32), HardConfig(hard_ce_weight=0.7))
    labels = torch.arange(6) % 3
    batch = Batch(pixels(6, 32), labels, 6)
    terms = [
        objective.loss("student", objective.players, replace(batch, class_weights=weights), torch.zeros(6))
        for weights in (None, WEIGHTS)
    ]
    with torch.no_grad():
        expected = F.cross_entropy(objective.student(batch.images), labels, WEIGHTS) * WEIGHTS[labels].mean()
    torch.testing.assert_close(terms[1]["ce"], expected)
    torch.testing.assert_close(terms[1]["total"] - terms[0]["total"], 0.7 * (terms[1]["ce"] - terms[0]["ce"]))


def test_a_loop_of_ones_own_may_mix_its_images():
    objective, shares = Supervised(classifier(3, 32)), torch.rand(6, 3, generator=seeded()).softmax(1)
    images = pixels(6, 32)
    with torch.no_grad():
        expected = F.cross_entropy(objective.players["student"](images), shares)
    torch.testing.assert_close(objective(images, shares)["total"], expected)
