"""A student between its start and its end: weights by the formula, statistics by torch's own averaging of them."""

import copy
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from hf_transinv.config import TrainConfig
from hf_transinv.data.resident import ResidentFeed
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.training.averaging import keep_average
from hf_transinv.training.interpolation import interpolate, keep_start
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.launching import TWO_PROCESSES, succeed
from tests.tiny_run import random_split, resident_feed, tensors_of, tiny_vit

HEAD = ("head.fc.", "fc.", "head.")


def wide(**options):
    return open_classifier("wrn10_1_cifar", num_classes=3, label_names=["0", "1", "2"], pretrained=False, **options)


def trainer_of(folder, student, accelerator=None, **options) -> Trainer:
    own = {"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 1, "save_steps": 2}
    config, accelerator = TrainConfig(**own | options), accelerator or Accelerator(cpu=True)
    folder.mkdir(exist_ok=True, parents=True)
    objective = keep_average(keep_start(Supervised(student)), 0.5)
    feeds = {"student": resident_feed(8, 0, accelerator)}
    setup = TrainerSetup(feeds, CropFlip(), config, config.max_steps, 5.0, folder, "between")
    return Trainer(accelerator, objective, setup)


def end_of(trainer, alpha=0.25):
    """Train and interpolate; the start, the end and what lies between."""
    objective = trainer.objective
    start = copy.deepcopy(objective.interpolated_from.classifier)
    trainer.train()
    trainer.finish()
    trained = copy.deepcopy(objective.players["student"])
    accelerator = trainer.accelerator
    feed = partial(resident_feed, 8, 3, accelerator)
    interpolate(objective, alpha, accelerator, feed, 40)
    return start, trained, objective.players["student"]


@pytest.mark.parametrize("build", [wide, tiny_vit, partial(wide, model_args={"drop_rate": 0.5})])
def test_weights_are_between_and_statistics_are_those_of_the_network_there(tmp_path, build):
    torch.manual_seed(0)
    start, trained, student = end_of(trainer_of(tmp_path, build()))
    expected = copy.deepcopy(trained)
    for (name, value), at in zip(expected.network.named_parameters(), start.parameters(), strict=True):
        if not name.startswith(HEAD):
            value.data = 0.75 * at.data + 0.25 * value.data
    for module in expected.modules():
        if isinstance(module, nn.Dropout) or hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    feed = ResidentFeed(random_split(), 8, 3)
    update_bn([feed.next_batch()[0] / 255 for _ in range(5)], expected)
    moved = set()
    for (name, found), other, end in zip(
        student.network.state_dict().items(),
        expected.network.state_dict().values(),
        trained.network.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-6, msg=name)
        moved |= set() if torch.equal(found, end) else {name}
    assert moved and not any(name.startswith(HEAD) for name in moved)
    layers = [layer for layer in student.modules() if isinstance(layer, _BatchNorm)]
    assert all(layer.momentum == 0.1 for layer in layers)
    assert any("running_mean" in name for name in moved) is bool(layers)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_what_is_frozen_keeps_its_statistics(tmp_path):
    torch.manual_seed(0)
    student = open_classifier("test_resnet", num_classes=3, pretrained=False)
    start, trained, between = end_of(trainer_of(tmp_path, student, freeze=3))
    for (name, found), at, end in zip(
        between.network.state_dict().items(),
        start.network.state_dict().values(),
        trained.network.state_dict().values(),
        strict=True,
    ):
        is_free = name.startswith(("layer3.", "layer4."))
        if "running" in name or name.endswith("conv1.weight"):
            assert torch.equal(found, end) != is_free, name
            assert torch.equal(found, at) != is_free, name


def test_nothing_is_random_and_the_training_does_not_know_of_it(tmp_path):
    torch.manual_seed(0)
    student = wide()
    trainer = trainer_of(tmp_path, copy.deepcopy(student))
    plain = Supervised(copy.deepcopy(student))
    setup = TrainerSetup(
        {"student": resident_feed(8, 0, trainer.accelerator)}, CropFlip(), trainer.config, 4, 5.0, tmp_path
    )
    without = Trainer(trainer.accelerator, plain, setup)
    _, trained, between = end_of(trainer)
    for _ in range(4):
        without.take_turn()
    pairs = zip(trained.state_dict().values(), plain.players["student"].state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)

    torch.manual_seed(7)  # resumed when it was over: the same again
    resumed = trainer_of(tmp_path, wide())
    resumed.resume(tmp_path / "checkpoints" / "step_00000004")
    assert resumed.is_over
    _, _, again = end_of(resumed)
    pairs = zip(between.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert any(name.startswith("student_start.") for name in tensors_of(resumed))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"interpolate": 1.0}, r"interpolate must be in \(0, 1\), given 1"),
        ({"interpolate": 0.0}, "freeze all trains a head for that"),
        ({"interpolate": 0.5, "freeze": "all"}, "leave out interpolate"),
        ({"interpolate": 0.5, "ema": "instead"}, "give one of them, or ema beside"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(max_steps=1, **fields)


ONE_OF_TWO = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from tests.training.test_interpolation import end_of, trainer_of, wide

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
_, trained, between = end_of(trainer_of(Path(sys.argv[1]), wide(), accelerator))
states = [one.state_dict() for one in (trained, between)]
torch.save(states, Path(sys.argv[1]) / f"rank{accelerator.process_index}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_all_processes_have_one_student(tmp_path):
    (tmp_path / "main.py").write_text(ONE_OF_TWO)
    succeed(TWO_PROCESSES, tmp_path / "main.py", tmp_path, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    (trained, first), (_, second) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], trained[name])}
    assert any("running_var" in name for name in changed) and any("conv" in name for name in changed)
