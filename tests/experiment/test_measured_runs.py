"""Recipes that are measured while they train: what is read when, which student comes out, and what is said of it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import hf_transinv.experiment.session
import hf_transinv.training.validation
from hf_transinv.augment.replay import ReplayBuffer
from hf_transinv.errors import InputError
from hf_transinv.experiment.extension import check_extendable
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.trainer import Trainer
from tests.experiment.test_bad_input import LEAST, _alone, run  # noqa: F401 (fixtures)
from tests.experiment.test_reading_is_said import TRAIN, write_folder

CHOOSING = ["--validation_share", 0.2, "--eval_steps", 2, "--load_best_model_at_end", "--save_steps", 2]
RESUME = ["--resume_from", "latest"]


def record() -> dict:
    return json.loads(Path("out/run.json").read_text())


@pytest.fixture
def measured(monkeypatch):
    """The sizes of the splits that were measured on, while training and at the end."""
    sizes = {"while training": [], "at the end": []}
    for when, module in (
        ("while training", hf_transinv.training.validation),
        ("at the end", hf_transinv.experiment.session),
    ):

        def spy(student, split, *, when=when, real=module.evaluate, **options):
            sizes[when].append(len(split))
            return real(student, split, **options)

        monkeypatch.setattr(module, "evaluate", spy)
    return sizes


def spoil_last(monkeypatch) -> None:
    """Make the student of the last step the worst one, before it is measured."""
    real = hf_transinv.training.validation.Validation.measure

    def measure(validation, step):
        if step == 4:
            with torch.no_grad():
                for parameter in validation.student.parameters():
                    parameter.mul_(-20)
        return real(validation, step)

    monkeypatch.setattr(hf_transinv.training.validation.Validation, "measure", measure)


def test_the_test_split_is_measured_once_and_the_best_student_is_exported(run, measured, monkeypatch):  # noqa: F811
    """The main row and its baseline alike."""
    spoil_last(monkeypatch)
    assert run(*LEAST, *CHOOSING, "--baselines", "plain")[0] == 0
    assert measured == {"while training": [20, 20] * 2, "at the end": [796, 796]}
    content = record()
    for row in content["rows"].values():
        told = row["validation"]
        assert row["steps"] == 4 and told["step"] == 2 and told["metric"] == "loss" and told["is_loaded"]
        assert row["results"]["num_images"] == 796
    assert content["dataset"]["eval_split"] == "test" and content["dataset"]["train_rows"] == 80
    exported = load_file("out/student/model.safetensors")
    last = checkpoints(Path("out/checkpoints"))[-1]
    best, end = load_file(last / "best.safetensors"), load_file(last / "student.safetensors")
    assert all(torch.equal(tensor, best[f"student.network.{name}"]) for name, tensor in exported.items())
    assert not all(torch.equal(tensor, end[f"network.{name}"]) for name, tensor in exported.items())
    card = Path("out/student/README.md").read_text()
    assert "This is the student of step 2, the best by the loss on the split" in card and "also chose it" not in card
    # Resumed, it is finished: nothing is trained or measured again, and the same student is exported.
    monkeypatch.setattr(Trainer, "take_turn", None)
    assert run(*LEAST, *CHOOSING, "--baselines", "plain", *RESUME)[0] == 0
    assert len(measured["at the end"]) == 2
    again = load_file("out/student/model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in exported.items())
    assert record()["rows"] == content["rows"]


def test_a_run_that_ends_early_is_finished(run, measured, monkeypatch):  # noqa: F811
    spoil_last(monkeypatch)
    early = [*LEAST, "--max_steps", 40, *CHOOSING, "--early_stopping_patience", 1]
    assert run(*early)[0] == 0
    content = record()
    assert content["status"] == "finished" and content["rows"]["paired + TransInv"]["steps"] == 4
    assert content["rows"]["paired + TransInv"]["validation"]["stopped_early"]
    assert (
        "The training ended early: 1 measurements in a row were no better" in Path("out/student/README.md").read_text()
    )
    assert run(*early, *RESUME)[0] == 0 and measured["at the end"] == [796]
    code, said = run(*early, *RESUME, "--extend_to_steps", 80)
    assert code == 2 and "early stopping has ended this run" in said


def test_a_dataset_without_a_test_split_chooses_and_measures_on_the_same_images(run, measured):  # noqa: F811
    write_folder("data", {"a": 10, "b": 10}, splits=("train",))
    flags = [*LEAST, "--dataset", "data", "--batch_size", 8, "--learning_rate", 0.01]
    assert run(*flags, *CHOOSING)[0] == 0
    assert measured == {"while training": [4, 4], "at the end": [4]}
    assert record()["rows"]["paired + TransInv"]["validation"]["is_evaluation"]
    assert "The images that it is measured on also chose it" in Path("out/student/README.md").read_text()


def test_a_finished_run_goes_on_for_more_steps_with_all_its_rows(run):  # noqa: F811
    flags = [*LEAST, "--baselines", "plain", "--warmup_ratio", 0]
    assert run(*flags)[0] == 0
    assert "extensions" not in record()
    longer = [*flags, *RESUME, "--extend_to_steps"]
    code, said = run(*longer, 4)
    assert code == 2 and "the run has 4 steps already" in said and record()["status"] == "finished"
    assert run(*longer, 6)[0] == 0
    content = record()
    assert content["extensions"] == [{"at_step": 4, "to_steps": 6}] and content["config"]["max_steps"] == 4
    assert {name: row["steps"] for name, row in content["rows"].items()} == {"paired + TransInv": 6, "fine-tuning": 6}
    assert "extended at step 4 to 6 steps" in Path("out/student/README.md").read_text()
    rates = [json.loads(line)["learning_rate"] for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert rates == [0.0, 0.0]  # at the end of the cosine, twice
    code, said = run(*flags, *RESUME)
    assert code == 2 and "was extended to 6 steps: resume it with --extend_to_steps 6" in said
    assert run(*longer, 6)[0] == 0 and record()["rows"] == content["rows"]


@pytest.mark.slow
def test_what_an_extension_does_to_the_rate_is_said(run, monkeypatch):  # noqa: F811
    printed = []
    assert run(*LEAST, "--warmup_ratio", 0)[0] == 0
    monkeypatch.setattr("builtins.print", lambda *words, **options: printed.append(" ".join(map(str, words))))
    assert run(*LEAST, "--warmup_ratio", 0, *RESUME, "--extend_to_steps", 8)[0] == 0
    (line,) = re.findall(r"extended    .*", "\n".join(printed))
    assert line == "extended    at step 4, from 4 to 8 steps; the learning rate there was 0, now 0.05"


def test_a_memory_of_a_certain_length_is_not_extended():
    replay = SimpleNamespace(
        title="TeachAugment", extra_state=lambda: {"replay": ReplayBuffer(torch.nn.Linear(1, 1), 1, 3)}
    )
    with pytest.raises(InputError, match="TeachAugment replays copies"):
        check_extendable(replay)


def test_the_size_of_batches_that_chose_cannot_change(run):  # noqa: F811
    assert run(*LEAST, *CHOOSING)[0] == 0
    code, said = run(*LEAST, *CHOOSING, *RESUME, "--eval_batch_size", 7)
    assert code == 2 and "eval_batch_size was 500, is 7" in said


@pytest.mark.parametrize(("crop", "title"), [("resized", "resized crop + flip"), ("none", "crop + flip")])
def test_the_baseline_crops_as_the_run_does(run, monkeypatch, crop, title):  # noqa: F811
    seen, train = [], Trainer.train

    def spy(trainer):
        seen.append(trainer.setup.base_augmentation)
        train(trainer)

    monkeypatch.setattr(Trainer, "train", spy)
    cut = ["--crop_scale", 0.5, 1] if crop == "resized" else []
    assert run(*LEAST, "--max_steps", 1, "--crop", crop, *cut, "--flip", "false", "--baselines", "crop_flip")[0] == 0
    assert list(record()["rows"]) == ["paired + TransInv", title]
    own, fair = seen
    assert own.crop == crop and not own.flip
    assert fair == replace(own, flip=True, crop="resized" if crop == "resized" else "pad")


def test_a_plain_run_is_its_own_baseline(run):  # noqa: F811
    least = [*LEAST[:6], *LEAST[-4:], "--batch_size", 16, "--max_steps", 1]
    assert run(*least, "--crop", "resized", "--baselines", "crop_flip", recipe=TRAIN)[0] == 0
    assert list(record()["rows"]) == ["resized crop + flip"]
