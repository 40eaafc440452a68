"""The examples train what our own Trainer trains, to the bit, where they see the same batches."""

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from hf_transinv import AugmentationPanel, Supervised, TransInv
from hf_transinv.config import TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.launching import REPOSITORY
from tests.tiny_run import random_split, tiny_vit

STEPS, BATCH = 11, 8  # student steps: with five to one, two turns of the augmentation between them
Pair = tuple[Tensor, Tensor]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def batches(count: int, first: int = 0) -> list[Pair]:
    split = random_split(num_images=BATCH * 24)
    rows = torch.arange(len(split)).split(BATCH)
    return [split.take(rows[number]) for number in range(first, first + count)]


class Listed:
    """Batches in the order of a list, as a feed."""

    num_skipped, skipped, batch_size = 0, (), BATCH

    def __init__(self, pairs: list[Pair]) -> None:
        self._pairs = iter(pairs)

    def wait(self) -> None:
        pass

    def next_batch(self) -> Pair:
        return next(self._pairs)

    def state_dict(self) -> dict:
        return {}

    def close(self) -> None:
        pass


def networks() -> tuple[torch.nn.Module, torch.nn.ModuleList]:
    torch.manual_seed(0)
    student = tiny_vit()
    return student, torch.nn.ModuleList([Teacher(tiny_vit(5), "other"), EMATeacher(student)])


def by_trainer(folder, student_pairs: list[Pair], augmentation_pairs: list[Pair]) -> tuple[dict, list[dict]]:
    """The state of all players after the Trainer, and the losses of every turn."""
    student, teachers = networks()
    panel = AugmentationPanel(len(teachers))
    method = TransInv(Supervised(student), panel, teachers)
    seen = []
    loss = method.loss

    def noting(player, nets, batch, draws):
        losses = loss(player, nets, batch, draws)
        seen.append({"player": player} | {name: value.item() for name, value in losses.items()})
        return losses

    method.loss = noting
    config = TrainConfig(
        max_steps=STEPS,
        batch_size=BATCH,
        learning_rate=0.05,
        weight_decay=0.0,
        lr_scheduler="constant",
        warmup_ratio=0.0,
        max_grad_norm=0.0,
        channels_last=False,
    )
    feeds = {"student": Listed(student_pairs), "augmentation": Listed(augmentation_pairs)}
    ordinary = CropFlip("none", False)
    trainer = Trainer(Accelerator(cpu=True), method, TrainerSetup(feeds, ordinary, config, STEPS, 5.0, folder, "tiny"))
    while trainer.step < STEPS:
        trainer.take_turn()
    return state_of(method), seen


def state_of(method) -> dict[str, Tensor]:
    modules = {**method.players, **method.extra_state()}
    return {f"{name}.{key}": x.clone() for name, module in modules.items() for key, x in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def floats(pairs: list[Pair]) -> Iterator[Pair]:
    return ((images.float().div(255), labels) for images, labels in pairs)


def test_the_plain_loop(tmp_path):
    plain = example("plain_loop")
    student_pairs, augmentation_pairs = batches(STEPS), batches(2, first=STEPS)
    expected, losses = by_trainer(tmp_path, student_pairs, augmentation_pairs)
    turns = [*student_pairs[:5], augmentation_pairs[0], *student_pairs[5:10], augmentation_pairs[1], student_pairs[10]]
    student, teachers = networks()
    found = {}

    class Noting(TransInv):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            found["method"] = self

    plain.TransInv = Noting
    assert plain.train(student, teachers, floats(turns)) == losses
    assert_same(state_of(found["method"]), expected)
    assert [line["player"] for line in losses].count("augmentation") == 2


def test_the_plain_loop_has_at_most_fifteen_lines():
    body = inspect.getsource(example("plain_loop").train).partition('"""\n    panel')[2]
    lines = [line for line in body.splitlines() if line.strip() and "seen" not in line]
    assert len(lines) <= 15


@pytest.fixture
def shared(tmp_path):
    """Batches of the student, and what comes of them when the augmentation has the student's next batch."""
    pairs = batches(STEPS)
    return pairs, *by_trainer(tmp_path, pairs, [pairs[5], pairs[10]])


def test_timms_task(shared):
    pairs, expected, losses = shared
    student, teachers = networks()
    panel = AugmentationPanel(len(teachers))
    method = TransInv(Supervised(student), panel, teachers)
    task = example("timm_task").TransInvTask(method, torch.optim.AdamW(panel.parameter_groups()))
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    seen = []
    for images, labels in floats(pairs):
        result = task(images, labels)
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(result["loss"].item())
    task.finish_turn()
    assert seen == [line["total"] for line in losses if line["player"] == "student"]
    assert_same(state_of(method), expected)


def test_transformers_trainer(shared, tmp_path):
    from transformers import TrainingArguments

    pairs, expected, losses = shared
    student, teachers = networks()
    panel = AugmentationPanel(len(teachers))
    method = TransInv(Supervised(student), panel, teachers)

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self):
            for images, labels in floats(pairs):
                for image, label in zip(images, labels, strict=True):
                    yield {"pixel_values": image, "labels": label}

    arguments = TrainingArguments(
        str(tmp_path / "trainer"),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = example("transformers_trainer").TransInvTrainer(
        method,
        torch.optim.AdamW(panel.parameter_groups()),
        args=arguments,
        train_dataset=Rows(),
        optimizers=(optimizer, constant),
    )
    trainer.train()
    logged = [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx([line["total"] for line in losses if line["player"] == "student"], abs=1e-4)
    assert_same(state_of(method), expected)


# The call itself


def play(method, pairs, optimizers):
    for images, labels in floats(pairs):
        player = method.player
        method(images, labels)["total"].backward()
        optimizers[player].step()
        method.step()


def new_method():
    student, teachers = networks()
    panel = AugmentationPanel(len(teachers))
    optimizers = {
        "student": torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9),
        "augmentation": torch.optim.AdamW(panel.parameter_groups()),
    }
    return TransInv(Supervised(student), panel, teachers), optimizers


@pytest.mark.parametrize("stop", [3, 5, 6])
def test_a_loop_goes_on_from_its_state(stop):
    pairs = batches(12)
    whole, optimizers = new_method()
    play(whole, pairs, optimizers)
    first, before = new_method()
    play(first, pairs[:stop], before)
    states = first.state_dict(), {name: optimizer.state_dict() for name, optimizer in before.items()}
    second, after = new_method()
    second(*next(floats(pairs)))  # something of its own before, which must not matter
    second.load_state_dict(states[0])
    for name, optimizer in after.items():
        optimizer.load_state_dict(states[1][name])
    play(second, pairs[stop:], after)
    assert_same(state_of(second), state_of(whole))


def test_only_the_player_gets_gradients():
    method, _ = new_method()
    (images, labels), *_ = floats(batches(1))
    method(images, labels)["total"].backward()
    assert all(x.grad is not None for x in method.players["student"].parameters())
    assert all(x.grad is None for x in method.players["augmentation"].parameters())
    method.step()
    assert all(x.grad is None for x in method.players["student"].parameters())
    assert all(x.requires_grad for x in method.players["student"].parameters())


def test_players_of_one_batch_follow_each_other():
    torch.manual_seed(0)
    method = MutualLearning([tiny_vit(), tiny_vit()])
    (images, labels), *_ = floats(batches(1))
    seen = []
    for _ in range(4):
        seen.append((method.turn, method.player))
        method(images, labels)["total"].backward()
        method.step()
    names = list(method.players)
    assert seen == [(0, names[0]), (0, names[1]), (1, names[0]), (1, names[1])]


def test_another_number_of_variants_is_refused():
    from hf_transinv import AIT, AITConfig, InputError

    (images, labels), *_ = floats(batches(1))
    method = AIT(tiny_vit(), AITConfig())
    with pytest.raises(InputError, match="compares 2 variants of each image, given 1"):
        method(images, labels)
    assert method(images, labels, images)["total"].isfinite()
