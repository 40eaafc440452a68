"""The loop: equivalences to the bit or within rounding, and what happens when a run breaks or is stopped."""

import copy
import io
import math
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.record import read_metrics
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.nan_guard import TrainingDiverged
from tests.tiny_run import random_split, resident_feed, tensors_of, tiny_trainer

SPEEDS = {"images_per_second"}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> str:
    """The images of the resident split as PNG in one parquet file."""
    split = random_split()
    cells = []
    for image in split.images:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=split.label_names)})
    path = tmp_path_factory.mktemp("stream") / "train.parquet"
    datasets.Dataset.from_dict({"image": cells, "label": split.labels.tolist()}, features).to_parquet(path)
    return str(path)


@pytest.fixture
def feed(request, parquet):
    """Opens the feed that the test is parametrized with: resident or streaming."""
    if request.param == "resident":
        yield resident_feed
        return
    opened = []

    def streaming_feed(batch_size, seed, accelerator):
        source = open_source(parquet, streaming=True)
        opened.append(StreamingFeed(source, batch_size, seed, buffer_size=16))
        return opened[-1]

    yield streaming_feed
    for one in opened:
        one.close()


def content(checkpoint: Path) -> dict:
    """A checkpoint with nothing of it left out but the time it took."""
    training = torch.load(checkpoint / "training.pt", weights_only=True)
    del training["seconds"]
    weights = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    return {"weights": weights, "training": training}


def assert_equal(one, other, place: str = "") -> None:
    """Equal to the bit, tensors and all."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def without_speeds(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if name not in SPEEDS}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


# Equivalences


@pytest.mark.parametrize(
    ("method", "augment"),
    [
        ({}, {}),
        ({"multipliers": "primitive"}, {}),
        ({"objective": "paper", "keep": "cross_entropy", "selection": "sum"}, {}),
        ({"objective": "normalised", "p_entropy": 0.1}, {"estimator": "gumbel"}),
    ],
    ids=["constrained", "primitive", "paper-sum", "gumbel"],
)
def test_two_micro_batches_of_four_are_one_batch_of_eight(tmp_path, method, augment):
    """Largest difference of any parameter, p, q, r or loss after two cycles of Algorithm 1; both players moved."""
    ends, lines, start = [], [], None
    for pieces in (1, 2):
        folder = tmp_path / str(pieces)
        trainer = tiny_trainer(
            folder, method=method, augment=augment, gradient_accumulation_steps=pieces, max_steps=4, logging_steps=1
        )
        # AdamW's first steps are the gradient's sign; a larger epsilon keeps the rounding of a zero from deciding it.
        for group in trainer.optimizers["augmentation"].param_groups:
            group["eps"] = 1e-3
        start = start or tensors_of(trainer)
        for _ in range(6):
            trainer.take_turn()
        ends.append(tensors_of(trainer))
        lines.append({name: torch.stack(values) for name, values in trainer.losses.values.items()})
    whole, pieces = ends
    differences = {name: (whole[name].float() - pieces[name].float()).abs().max().item() for name in whole}
    assert max(differences.values()) < 5e-6, max(differences, key=differences.get)
    assert (
        lines[0].keys()
        == lines[1].keys()
        == {"student/total", "augmentation/total", "augmentation/hard", "augmentation/keep"}
    )
    for name, values in lines[0].items():
        torch.testing.assert_close(values, lines[1][name], rtol=1e-5, atol=1e-6)
    for player in ("student", "augmentation"):
        moved = [(whole[name] - start[name]).abs().max() for name in whole if name.startswith(player)]
        assert max(moved) > 1e-4


@pytest.mark.parametrize("feed", ["resident", "streaming"], indirect=True)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path, feed, dropout):
    """Interrupted at step 3: in the middle of an epoch of 5 batches and of a cycle of 2 student turns."""
    options = {"feed": feed, "dropout": dropout, "max_steps": 9, "save_steps": 3, "save_total_limit": 9}
    whole = tiny_trainer(tmp_path / "whole", **options)
    whole.train()
    assert [path.name[-1] for path in checkpoints(tmp_path / "whole" / "checkpoints")] == ["3", "6", "9"]
    half = tiny_trainer(tmp_path / "half", **options)
    for _ in range(4):  # student, student, augmentation, student
        half.take_turn()
    half.metrics = None
    half.save()
    assert half.turn % 3 == 1 and half.feeds["student"].state_dict()["position"] == 3
    torch.manual_seed(77)
    resumed = tiny_trainer(tmp_path / "half", **options)
    resumed.resume(tmp_path / "half" / "checkpoints" / "step_00000003")
    resumed.train()
    for step in (3, 6, 9):
        name = f"checkpoints/step_{step:08d}"
        assert_equal(content(tmp_path / "whole" / name), content(tmp_path / "half" / name), name)
    lines = without_speeds(tmp_path / "whole")
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 8, 9]
    assert [line for line in lines if line["step"] > 3] == without_speeds(tmp_path / "half")


def test_resuming_earlier_trains_that_future_again(tmp_path):
    options = {"max_steps": 9, "save_steps": 3, "save_total_limit": 9}
    tiny_trainer(tmp_path, **options).train()
    end, lines = content(tmp_path / "checkpoints" / "step_00000009"), without_speeds(tmp_path)
    again = tiny_trainer(tmp_path, **options)
    again.resume(tmp_path / "checkpoints" / "step_00000003")
    assert [path.name[-1] for path in checkpoints(tmp_path / "checkpoints")] == ["3"]
    again.train()
    assert_equal(content(tmp_path / "checkpoints" / "step_00000009"), end)
    assert without_speeds(tmp_path) == lines


def test_dropout_was_active(tmp_path):
    """Else the resume with dropout would show nothing."""
    with_dropout, without = (tiny_trainer(tmp_path / str(rate), dropout=rate) for rate in (0.2, 0.0))
    for trainer in (with_dropout, without):
        trainer.take_turn()
    assert not torch.equal(with_dropout.losses.values["student/total"][0], without.losses.values["student/total"][0])


def test_another_seed_or_batch_size_cannot_resume(tmp_path):
    tiny_trainer(tmp_path, max_steps=4).train()
    path = tmp_path / "checkpoints" / "step_00000004"
    with pytest.raises(InputError, match="belongs to seed 0, this run has 1"):
        tiny_trainer(tmp_path, seed=1).resume(path)


# What is logged


def test_every_line_says_what_is_learned(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=4)
    trainer.train()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    assert [line["epoch"] for line in lines] == [0.4, 0.8]
    for line in lines:
        assert sum(line["r"]) == pytest.approx(1, abs=1e-6)
        assert [len(row) for row in line["p"]] == [4, 4] and len(line["q"]) == 2
        assert all(sum(row) == pytest.approx(1, abs=1e-6) for row in line["p"])
        assert math.isfinite(line["student/total"]) and line["images_per_second"] > 0
    assert trainer.images_seen == 32


def test_images_that_are_destroyed_are_noticed_once(tmp_path, caplog):
    """The hole of the paper's form, from the start: q is 0.99, the untrained student's loss ln c."""
    trainer = tiny_trainer(
        tmp_path, method={"objective": "paper"}, augment={"q_init": 0.99}, learning_rate=1e-6, logging_steps=1
    )
    trainer.train()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 8
    (warning,) = trainer.warnings
    assert re.match(r"step \d: the augmentation is destroying the images: q is 0.99", warning)
    assert sum("destroying" in message for message in caplog.messages) == 1
    resumed = tiny_trainer(
        tmp_path, method={"objective": "paper"}, augment={"q_init": 0.99}, learning_rate=1e-6, logging_steps=1
    )
    resumed.resume(tmp_path / "checkpoints" / "step_00000004")
    resumed.train()
    assert resumed.warnings == trainer.warnings


# What breaks


def spoil(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(math.nan)


@pytest.mark.parametrize(
    ("player", "turns", "said"),
    [
        ("student", 4, "student turn, term total is nan at step 3"),
        ("augmentation", 5, "augmentation turn, term hard is nan at step 4"),
    ],
)
def test_a_loss_that_is_not_finite_stops_before_any_step(tmp_path, player, turns, said):
    trainer = tiny_trainer(tmp_path)
    for _ in range(turns):
        trainer.take_turn()
    trainer.save()
    good = checkpoints(tmp_path / "checkpoints")
    before = {path.name: path.read_bytes() for path in good[-1].iterdir()}
    assert trainer.objective.turns[trainer.turn % 3] == (player,)
    spoil(trainer.objective.players[player])
    state = tensors_of(trainer)
    optimizers = {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in trainer.optimizers.items()}
    with pytest.raises(TrainingDiverged, match=said) as error:
        trainer.take_turn()
    assert f"the last good checkpoint is {good[-1]}" in str(error.value)
    for name, tensor in tensors_of(trainer).items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0, equal_nan=True)
    assert_equal({name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()}, optimizers)
    assert checkpoints(tmp_path / "checkpoints") == good
    assert {path.name: path.read_bytes() for path in good[-1].iterdir()} == before


def late(trainer):
    """Losses are looked at with the next line of metrics, as on a GPU."""
    trainer.losses.looks_at_once = False
    return trainer


@pytest.mark.parametrize(
    ("player", "method", "said"),
    [
        (
            "student",
            {"inner_steps": 5},
            "augmentation turn, term hard is nan between steps 4 and 5;",
        ),
        ("student", {"inner_steps": 100}, "student turn, term total is nan between steps 4 and 6;"),
        ("augmentation", {}, "augmentation turn, term hard is nan at step 4;"),
        ("augmentation", {"objective": "paper"}, "augmentation turn, term hard is nan at step 4;"),
    ],
)
def test_a_loss_that_is_seen_late_leaves_no_bad_checkpoint(tmp_path, player, method, said):
    """By then the players have trained on it, and there may be no p, q or r left to draw from."""
    trainer = late(tiny_trainer(tmp_path, method=method, max_steps=12))
    trainer.max_steps = 4
    trainer.train()
    (good,) = checkpoints(tmp_path / "checkpoints")
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    trainer.max_steps = 12
    spoil(trainer.objective.players[player])
    with pytest.raises(TrainingDiverged, match=said) as error:
        trainer.train()
    assert f"the last good checkpoint is {good}" in str(error.value) and "learning_rate" in str(error.value)
    assert checkpoints(tmp_path / "checkpoints") == [good]
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before


def test_an_error_of_another_kind_is_not_taken_for_a_loss(tmp_path, monkeypatch):
    trainer = late(tiny_trainer(tmp_path))
    monkeypatch.setattr(trainer.objective, "after_step", lambda *arguments: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.train()


@pytest.mark.parametrize("looks_at_once", [True, False])
@pytest.mark.parametrize("fault", ["weight", "overflow"])
def test_a_teacher_that_stops_answering_is_named(tmp_path, fault, looks_at_once):
    trainer = tiny_trainer(tmp_path, max_steps=12)
    trainer.losses.looks_at_once = looks_at_once
    for _ in range(2):
        trainer.take_turn()
    trainer.save()
    network = trainer.objective.teachers[0].classifier.network
    with torch.no_grad():
        network.head.weight.fill_(math.nan if fault == "weight" else 3e38)
    with pytest.raises(
        TrainingDiverged, match=r"augmentation turn, term keep is nan .*teacher other answers"
    ) as error:
        trainer.train()
    assert ("so is its weight" in str(error.value)) == (fault == "weight")
    assert ("mixed_precision bf16" in str(error.value)) == (fault == "overflow")
    assert "step_00000002" in str(error.value) and "learning_rate" not in str(error.value)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step_00000002"]


@pytest.mark.parametrize("name", ["parameter", "buffer"])
def test_numbers_that_are_not_finite_are_never_a_checkpoint(tmp_path, name):
    trainer = tiny_trainer(tmp_path)
    for _ in range(2):
        trainer.take_turn()
    trainer.save()
    trainer.step = 3
    student = trainer.objective.players["student"]
    student.register_buffer("running_var", torch.ones(1))
    number = student.running_var if name == "buffer" else next(student.parameters())
    with torch.no_grad():
        number.fill_(math.inf)
    with pytest.raises(TrainingDiverged, match="weights of student are not finite at step 3"):
        trainer.save()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step_00000002"]


def test_weights_that_are_not_finite_are_never_a_checkpoint(tmp_path):
    """A gradient can overflow although its loss was finite; the next loss shows it, a checkpoint may come before."""
    trainer = tiny_trainer(tmp_path)
    for _ in range(2):
        trainer.take_turn()
    trainer.save()
    trainer.take_turn()
    trainer.take_turn()
    spoil(trainer.objective.players["student"])
    expected = r"weights of student are not finite.*last good checkpoint is .*step_00000002"
    with pytest.raises(TrainingDiverged, match=expected):
        trainer.save()
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step_00000002"]


def test_a_learning_rate_that_is_far_too_large_ends_with_that_advice(tmp_path):
    trainer = tiny_trainer(tmp_path, learning_rate=1e30, max_grad_norm=0.0, warmup_ratio=0.0)
    with pytest.raises(TrainingDiverged, match="Try a smaller learning_rate"):
        trainer.train()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_ends_the_loop(tmp_path, number):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = tiny_trainer(tmp_path, max_steps=100_000, save_steps=100_000)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    trainer.train()
    timer.join()
    assert trainer.stopped and 0 < trainer.step < 100_000
    (saved,) = checkpoints(tmp_path / "checkpoints")
    assert saved.name == f"step_{trainer.step:08d}"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    resumed = tiny_trainer(tmp_path, max_steps=100_000, save_steps=100_000)
    resumed.resume(saved)
    assert_equal(tensors_of(resumed), tensors_of(trainer))


# Whole pictures


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> str:
    """40 pictures of several shapes in one parquet file."""
    generator, cells = np.random.default_rng(0), []
    for row in range(40):
        shape = [(40, 60), (64, 36), (30, 20), (36, 36)][row % 4]
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    path = tmp_path_factory.mktemp("photographs") / "train.parquet"
    labels = [row % 3 for row in range(40)]
    datasets.Dataset.from_dict({"image": cells, "label": labels}, features).to_parquet(path)
    return str(path)


def picture_trainer(folder, path, streaming, **train):
    """A tiny run on 32 px crops of whole pictures."""

    def feed(batch_size, seed, accelerator):
        place = (accelerator.process_index, accelerator.num_processes)
        if streaming:
            source = open_source(path, streaming=True)
            crop = CropFlip("resized")
            return StreamingFeed(source, batch_size, seed, *place, buffer_size=16, image_size=32, crop=crop)
        split = ResidentSplit.load(open_source(path), image_size=32, stored_size=37, show_progress=False)
        return ResidentFeed(split, batch_size, seed, *place)

    trainer = tiny_trainer(folder, feed=feed, **train)
    trainer.setup = replace(trainer.setup, base_augmentation=CropFlip("resized"))
    trainer.players.base_augmentation = trainer.setup.base_augmentation
    return trainer


@pytest.mark.parametrize("streaming", [False, True])
def test_whole_pictures_resume_to_the_bit(tmp_path, photographs, streaming):
    whole = picture_trainer(tmp_path / "whole", photographs, streaming)
    whole.train()
    resumed = picture_trainer(tmp_path / "resumed", photographs, streaming)
    resumed.resume(checkpoints(tmp_path / "whole" / "checkpoints")[0])
    assert 0 < resumed.step < whole.step
    resumed.train()
    for trainer in (whole, resumed):
        for one in trainer.feeds.values():
            one.close()
    for name, tensor in tensors_of(whole).items():
        assert torch.equal(tensor, tensors_of(resumed)[name]), name


@pytest.mark.parametrize("streaming", [False, True])
def test_micro_batches_of_whole_pictures_are_the_batch(tmp_path, photographs, monkeypatch, streaming):
    """The pixels that the student is shown, to the bit; and they are neither the same twice nor the whole picture."""
    shown = []
    for pieces in (1, 2):
        trainer = picture_trainer(
            tmp_path / str(pieces), photographs, streaming, gradient_accumulation_steps=pieces, max_steps=2
        )
        seen, loss = [], trainer.objective.loss
        monkeypatch.setattr(
            trainer.objective,
            "loss",
            lambda *turn, loss=loss, seen=seen: (seen.append(turn[2].images), loss(*turn))[1],
        )
        for _ in range(2):
            trainer.take_turn()
        shown.append(torch.cat(seen))
    assert shown[0].shape[1:] == (3, 32, 32) and torch.equal(*shown)


def test_a_teacher_at_fault_is_found_with_whole_pictures(tmp_path, photographs):
    trainer = picture_trainer(tmp_path, photographs, False)
    trainer.take_turn()
    for parameter in trainer.objective.teachers[0].parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="teacher"):
        trainer.train()
