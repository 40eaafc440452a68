"""Who is optimised how: the groups of each player's optimizer, and the student's schedule against its formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv
from hf_transinv.training.optim import build_optimizer, network_optimizer, network_schedule

CONFIG = TrainConfig(max_steps=40, learning_rate=0.2, weight_decay=0.01, momentum=0.8, warmup_ratio=0.1)


def test_batchnorm_and_biases_do_not_decay():
    student = open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False)
    optimizer = network_optimizer(student, CONFIG)
    decays = {
        id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    norms = {id(x) for module in student.modules() if isinstance(module, nn.BatchNorm2d) for x in module.parameters()}
    assert len(decays) == sum(len(group["params"]) for group in optimizer.param_groups)
    assert norms
    for name, parameter in student.named_parameters():
        expected = 0.0 if id(parameter) in norms or name.endswith("bias") else 0.01
        assert decays.pop(id(parameter)) == expected, name
    assert not decays


def test_sgd_is_nesterovs_with_the_configured_momentum():
    (group, *_) = network_optimizer(nn.Linear(2, 2), CONFIG).param_groups
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.2, 0.8, True)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_other_optimizers_of_timm_go_by_name(name):
    module = nn.Linear(2, 2)
    optimizer = network_optimizer(module, replace(CONFIG, optimizer=name))
    before = module.weight.clone()
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert name in type(optimizer).__name__.lower()
    assert not torch.equal(module.weight, before)


@pytest.mark.parametrize("name", ["sgdd", "", "adamw8bits"])
def test_an_unknown_optimizer_is_refused(name):
    with pytest.raises(InputError, match=f"optimizer '{name}'.*list_optimizers"):
        network_optimizer(nn.Linear(2, 2), replace(CONFIG, optimizer=name))


def test_the_augmentation_has_three_groups():
    panel = AugmentationPanel(2, AugmentationConfig())
    config = replace(
        CONFIG,
        augment_learning_rate=1e-3,
        augment_weight_decay=0.02,
        selection_learning_rate=0.03,
    )
    student = open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False)
    objective = TransInv(Supervised(student), panel, nn.ModuleList([EMATeacher(student), EMATeacher(student)]))
    phi, logits, multipliers = build_optimizer(objective, "augmentation", config).param_groups
    names = {id(parameter): name for name, parameter in panel.named_parameters()}
    named = [{names[id(x)] for x in group["params"]} for group in (phi, logits, multipliers)]
    assert all(".primitives." in name for name in named[0])
    assert named[1] == {"logits_r", *(f"models.{k}.{name}" for k in (0, 1) for name in ("logits_p", "logit_q"))}
    assert named[2] == {"multipliers"}
    assert set().union(*named) == set(names.values())
    assert [group["lr"] for group in (phi, logits, multipliers)] == [1e-3, 0.03, 0.0]
    assert [group["weight_decay"] for group in (phi, logits, multipliers)] == [0.02, 0.0, 0.0]


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 0.25])
def test_warm_up_then_cosine_to_zero(warmup_ratio):
    """lr(t) = a/100 + (a - a/100) t/w for t < w, then a/2 (1 + cos(pi (t - w) / (T - w)))."""
    steps, peak = 40, 0.2
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = network_schedule(optimizer, replace(CONFIG, warmup_ratio=warmup_ratio), steps)
    rates = [optimizer.param_groups[0]["lr"]]
    for step in range(1, steps + 1):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    warm = int(warmup_ratio * steps)
    rise = [peak / 100 + (peak - peak / 100) * t / warm for t in range(warm)]
    fall = [peak / 2 * (1 + math.cos(math.pi * (t - warm) / (steps - warm))) for t in range(warm, steps + 1)]
    assert rates == pytest.approx(rise + fall, abs=1e-12)
    assert rates[-1] == pytest.approx(0, abs=1e-12) and max(rates) == pytest.approx(peak)


@pytest.mark.parametrize("name", ["cosin", "none", "plateau"])
def test_a_schedule_that_does_not_go_by_steps_is_refused(name):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(InputError, match=f"lr_scheduler '{name}'.*cosine or constant"):
        network_schedule(optimizer, replace(CONFIG, lr_scheduler=name), 40)
