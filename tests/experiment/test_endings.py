"""How a run ends when something breaks, as a user sees it: one line, nothing half written, and a way to go on."""

import errno
import json
import os
import re
from pathlib import Path

import matplotlib.figure
import pytest
import timm.models
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_transinv.augment import saving
from hf_transinv.training.checkpointing import checkpoints
from tests.experiment.test_bad_input import LEAST, _alone, refused, run  # noqa: F401 (fixtures)
from tests.launching import tiny_teachers

FULL = "No space left on device"


def cut(path: Path) -> None:
    """What is in a file when the disk is full."""
    os.truncate(path, path.stat().st_size // 2)


def full_disk(monkeypatch, place: str) -> None:
    """Let the end of a run meet a full disk at one of the things it writes."""
    real_save, real_text = matplotlib.figure.Figure.savefig, Path.write_text

    def half_weights(content, path):
        save_file(content, path)
        cut(Path(path))
        raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")

    def half_picture(figure, path, **options):
        real_save(figure, path, **options)
        cut(Path(path))
        raise OSError(errno.ENOSPC, FULL)

    def half_export(network, folder, **options):
        (Path(folder) / "config.json").write_text("{")
        raise SafetensorError(FULL)

    def half_text(path, text, **options):
        if '"status": "finished"' not in text:
            return real_text(path, text, **options)
        real_text(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, FULL)

    where = {
        "augmentation": (saving, "save_file", half_weights),
        "figures": (matplotlib.figure.Figure, "savefig", half_picture),
        "student": (timm.models, "save_for_hf", half_export),
        "run.json": (Path, "write_text", half_text),
    }
    monkeypatch.setattr(*where[place])


def test_a_disk_that_is_full_at_the_end_costs_nothing(run, monkeypatch):  # noqa: F811
    """At each thing in turn, resumed each time: nothing is half written, and at last it is complete."""
    out = Path("out")
    for place in ("augmentation", "figures", "student", "run.json"):
        resume = ["--resume_from", "latest"] if out.exists() else []
        with monkeypatch.context() as patched:
            full_disk(patched, place)
            code, said = run(*LEAST, *resume)
        assert code == 2 and FULL in said.splitlines()[-1] and "Is the disk full?" in said, said
        assert json.loads((out / "run.json").read_text())["status"] == "running"
        assert [path.name for path in checkpoints(out / "checkpoints")] == ["step_00000004"]
        assert (out / "augmentation/augmentation.safetensors").exists() == (place != "augmentation")
        assert (out / "figures/selection.png").exists() == (place in ("student", "run.json"))
        assert (out / "student").exists() == (place == "run.json")
        assert not [path for path in out.rglob("*") if "part" in path.suffix]
    assert run(*LEAST, "--resume_from", "latest")[0] == 0
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    trained = load_file(out / "checkpoints/step_00000004/student.safetensors")
    exported = load_file(out / "student/model.safetensors")
    assert all(torch.equal(tensor, trained[f"network.{name}"]) for name, tensor in exported.items())


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "so is its weight head"), (3e38, "mixed_precision bf16")])
def test_a_teacher_that_answers_nothing_is_refused_before_training(refused, value, said):  # noqa: F811
    _, vit = tiny_teachers(Path("teachers"))
    weights = load_file(Path(vit) / "model.safetensors")
    weights["head.weight"].fill_(value)
    save_file(weights, Path(vit) / "model.safetensors")
    line = refused(*LEAST, "--teachers", "ema", vit)
    assert f"teacher {vit} answers with numbers that are not finite" in line and said in line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--q_init 0.01", ["switched itself off .*--tolerance"]),
        (
            "--primitives geometric gaussian_noise --selection_learning_rate 8 --r_entropy 0",
            ["r has collapsed .*--r_entropy", "p of .*--p_entropy"],
        ),
        ("--objective paper --q_init 0.99 --learning_rate 1e-6", ["destroying .*--objective constrained"]),
    ],
)
def test_a_collapse_is_told_once_and_stays_in_the_record(run, caplog, flags, expected):  # noqa: F811
    """Once in the log and once in run.json, with what to try; a run that is resumed knows that it was told."""
    _, vit = tiny_teachers(Path("teachers"))
    given = [*LEAST, "--teachers", vit, "ema", "--logging_steps", 1, "--save_steps", 3, *flags.split()]
    for resume in ([], ["--resume_from", "out/checkpoints/step_00000003"]):
        caplog.clear()
        assert run(*given, *resume)[0] == 0
        (row,) = json.loads(Path("out/run.json").read_text())["rows"].values()
        recorded = row["warnings"]
        for pattern in expected:
            (sentence,) = [one for one in recorded if re.search(pattern, one)]
            assert re.match(r"step [123]: ", sentence)
            assert sum(sentence in message for message in caplog.messages) == (0 if resume else 1)
