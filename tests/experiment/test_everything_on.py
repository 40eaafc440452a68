"""All options of fine-tuning at once, on a transformer and on a convolutional network; and pairs of them."""

import json
import os
import signal
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from hf_transinv.training.trainer import Trainer
from tests.experiment.test_bad_input import _alone, run  # noqa: F401 (fixtures)
from tests.experiment.test_reading_is_said import write_folder
from tests.launching import TRAIN_TEACHER

SIZES = {
    "vit": {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
    "convnext": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
}
ARCHITECTURES = {"vit": "vit_tiny_patch16_224", "convnext": "convnextv2_atto"}
LEAST = ["--dataset", "data", "--batch_size", 8, "--max_steps", 6, "--save_steps", 2, "--logging_steps", 1]
LEAST += ["--eval_corruptions", "none", "--student_init", "pretrained"]
ALL = ["--image_size", 32, "--crop", "resized", "--inner_steps", 2, "--student_size", 48, "--teacher_size", 40]
ALL += ["--model_args", "drop_path_rate=0.2", "--grad_checkpointing", "--preset", "finetune_transformer"]
ALL += ["--learning_rate", 0.01, "--layer_decay", 0.7, "--freeze", 1, "--head_learning_rate", 0.02]
ALL += ["--mixup", 0.2, "--cutmix", 1, "--random_erasing", 0.5, "--validation_share", 0.2, "--eval_steps", 1]
CHOOSING = ["--load_best_model_at_end", "--metric_for_best_model", "top1", "--early_stopping_patience", 9]
FINE_TUNED = {
    "vit": ["--ema", "beside", "--class_weights", "balanced", *CHOOSING],
    "convnext": ["--ema", "instead", "--sampler", "balanced", "--early_stopping_patience", 9],
}


@pytest.fixture
def networks():
    """Checkpoints of random weights in timm's layout, and 50 pictures of two classes."""
    torch.manual_seed(0)
    for name, sizes in SIZES.items():
        network = timm.create_model(ARCHITECTURES[name], num_classes=4, **sizes)
        timm.models.save_for_hf(network, name, model_args=sizes, safe_serialization=True)
    write_folder("data", {"a": 15, "b": 10})


def stopped(monkeypatch, run, steps, *flags):  # noqa: F811
    """Runs with Ctrl-C in the turn of the student that follows so many steps."""
    real = Trainer.take_turn

    def take_turn(trainer):
        if trainer.step == steps:
            os.kill(os.getpid(), signal.SIGINT)
        real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_turn", take_turn)
        assert run(*flags)[0] == 130


def assert_same(one, other, step):
    """Checkpoints, networks and figures, to the bit."""
    last = f"checkpoints/step_{step:08d}"
    names = [str(path.relative_to(one)) for path in Path(one, last).glob("*.safetensors")]
    names += [str(path.relative_to(one)) for path in Path(one).glob("*/model.safetensors")]
    assert len(names) > 3
    for name in names:
        assert Path(one, name).read_bytes() == Path(other, name).read_bytes(), name
    states = [torch.load(Path(place, last, "training.pt"), weights_only=True) for place in (one, other)]
    assert torch.equal(states[0]["generator"], states[1]["generator"])
    rows = [json.loads(Path(place, "run.json").read_text())["rows"] for place in (one, other)]
    for row in (row for found in rows for row in found.values()):
        row.pop("train_seconds")
    assert rows[0] == rows[1]


@pytest.mark.parametrize("student", ["vit", pytest.param("convnext", marks=pytest.mark.slow)])
def test_all_of_it_interrupted_resumed_and_extended(run, monkeypatch, networks, student):  # noqa: F811
    (teacher,) = SIZES.keys() - {student}
    flags = [*LEAST, *ALL, *FINE_TUNED[student], "--student", student, "--teachers", teacher, "ema"]
    assert run(*flags, "--output_dir", "whole")[0] == 0
    stopped(monkeypatch, run, 3, *flags, "--output_dir", "halves")
    assert not Path("halves/student").exists()
    assert run(*flags, "--output_dir", "halves", "--resume_from", "latest")[0] == 0
    assert_same("whole", "halves", 6)
    rows = json.loads(Path("whole/run.json").read_text())["rows"]
    assert [row["steps"] for row in rows.values()] == [6, 6] and Path("whole/ema").exists() == ("beside" in flags)
    if "--load_best_model_at_end" in flags:
        extended = [*flags, "--resume_from", "latest", "--extend_to_steps", 8, "--output_dir"]
        assert run(*extended, "whole")[0] == 0
        stopped(monkeypatch, run, 6, *extended, "halves")
        assert run(*extended, "halves")[0] == 0
        assert_same("whole", "halves", 8)


MIXED = ["--image_size", 32, "--crop", "resized", "--learning_rate", 0.1, "--mixup", 0.2, "--cutmix", 1]
MIXED += ["--interpolate", 0.25, "--ema", "beside", "--ema_decay", 0.5, "--linear_probe_share", 0.3, "--streaming"]
MIXED += ["--validation_split", "val", "--eval_steps", 2, "--student", "resnet"]


@pytest.fixture
def start():
    """The weights of a network with BatchNorm, in resnet/; pictures in data/, with a split to choose by."""
    write_folder("data", {"a": 15, "b": 10}, ("train", "val", "test"))
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=4), "resnet", safe_serialization=True)
    return load_file("resnet/model.safetensors")


def assert_between(start, student, end):
    """Whether a student has 0.25 of what was trained, its own head, and statistics that are neither's."""
    for name, value in student.items():
        if name.startswith("fc"):
            assert torch.equal(value, end[name])
        elif value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(value, start[name].lerp(end[name], 0.25))
        elif "running_mean" in name:
            assert not torch.equal(value, end[name]) and not torch.equal(value, start[name])


@pytest.mark.slow
def test_between_the_start_and_the_best_beside_the_average(run, monkeypatch, start):  # noqa: F811
    """Of a stream, with mixing and the head first; the average is not interpolated."""
    flags = [*LEAST, *MIXED, *CHOOSING, "--inner_steps", 2, "--teachers", "resnet"]
    assert run(*flags, "--output_dir", "whole")[0] == 0
    stopped(monkeypatch, run, 3, *flags, "--output_dir", "halves")
    assert run(*flags, "--output_dir", "halves", "--resume_from", "latest")[0] == 0
    assert_same("whole", "halves", 6)
    last = Path("whole/checkpoints/step_00000006")
    best, average = (load_file(last / f"{name}.safetensors") for name in ("best", "student_average"))
    best = {name.removeprefix("student.network."): value for name, value in best.items()}
    assert_between(start, load_file("whole/student/model.safetensors"), best)
    for name, value in load_file("whole/ema/model.safetensors").items():
        assert torch.equal(value, average[f"classifier.network.{name}"])


def test_a_teacher_is_interpolated_too(run, start):  # noqa: F811
    assert run(*LEAST, *MIXED, "--output_dir", "out", recipe=TRAIN_TEACHER)[0] == 0
    end = load_file("out/checkpoints/step_00000006/student.safetensors")
    end = {name.removeprefix("network."): value for name, value in end.items()}
    assert_between(start, load_file("out/student/model.safetensors"), end)
