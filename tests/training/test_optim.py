"""Who is optimised how: the groups of each player's optimizer, and the student's schedule against its formula."""

import inspect
import math
import re
from dataclasses import replace

import pytest
import torch
from timm.scheduler import create_scheduler_v2
from torch import nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import TrainConfig
from hf_transinv.config.train_config import SCHEDULES
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv
from hf_transinv.training.optim import build_optimizer, network_optimizer, network_schedule, rate_at

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
    assert named[2] == {"multipliers", "excess"}
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


def _tanh(x):
    """Hsueh et al. (2018), bounds -7 and 3."""
    return (1 - math.tanh(-7 * (1 - x) + 3 * x)) / 2


def _wsd(x):
    """Constant, and 1 - sqrt over the last fifth (Haegele et al., 2024)."""
    return 1 if x <= 0.8 else 1 - math.sqrt((x - 0.8) / 0.2)


def _rsqrt(x):
    """(1 + t / w)^-1/2 (Zhai et al., 2022) after a warm-up of a tenth; the last fifth goes down linearly."""
    return (1 + 9 * x) ** -0.5 * min(1, (1 - x) / 0.2)


@pytest.mark.parametrize(
    ("name", "shape"), [("tanh", _tanh), ("constant", lambda x: 1), ("wsd", _wsd), ("rsqrt", _rsqrt)]
)
@pytest.mark.parametrize("steps", [50, 2000])
def test_a_schedule_stretches_with_the_number_of_steps(name, shape, steps):
    """The rate follows from the share of the steps alone: no default of timm, which counts epochs, is in it."""
    peak, warm = 0.2, steps // 10
    config = replace(CONFIG, lr_scheduler=name, warmup_ratio=0.1)
    found = [rate_at(config, steps, step) for step in range(warm, steps)]
    assert found == pytest.approx([peak * shape((step - warm) / (steps - warm)) for step in range(warm, steps)])
    assert [rate_at(config, steps, step) for step in (0, warm // 2)] == pytest.approx(
        [peak / 100 + (peak - peak / 100) * t / warm for t in (0, warm // 2)]
    )
    assert rate_at(config, steps, steps) == (peak if name == "constant" else 0)


def test_every_schedule_of_timm_is_accepted_or_has_its_reason():
    """What timm adds later has to be looked at before it gets through."""
    named = set(re.findall(r"sched (?:==|!=|in) (\(.*?\)|'\w+')", inspect.getsource(create_scheduler_v2)))
    names = set(re.findall(r"'([\w-]+)'", " ".join(named)))
    refused = {"step", "multistep", "poly", "plateau", "none"}
    assert names == refused | set(SCHEDULES)
    for name in refused:
        with pytest.raises(InputError, match=f"lr_scheduler '{name}': .*Expected one of {', '.join(SCHEDULES)}"):
            replace(CONFIG, lr_scheduler=name)


@pytest.mark.parametrize("name", ["cosin", "linear", ""])
def test_an_unknown_schedule_is_refused(name):
    with pytest.raises(InputError, match=f"lr_scheduler '{name}'.*cosine, tanh, constant"):
        replace(CONFIG, lr_scheduler=name)


def test_a_schedule_needs_enough_steps():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(InputError, match="lr_scheduler 'rsqrt' with 40 steps, 0 of them warm-up"):
        network_schedule(optimizer, replace(CONFIG, lr_scheduler="rsqrt", warmup_ratio=0.0), 40)
    with pytest.raises(InputError, match="lr_scheduler 'wsd' with 2 steps"):
        network_schedule(optimizer, replace(CONFIG, lr_scheduler="wsd", warmup_ratio=0.0), 2)
