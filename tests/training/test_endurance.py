"""A run that is killed again and again ends as the one that nobody disturbed, to the bit."""

import json
from pathlib import Path

import pytest
import torch

from hf_transinv.record import RunRecord, read_metrics
from hf_transinv.training.checkpointing import checkpoints
from tests.launching import PYTHON, REPOSITORY, succeed, tiny_teachers

KILLING = REPOSITORY / "tests" / "killing.py"
TINY = ["--dataset", "digits/target", "--eval_split", "test[:32]", "--image_size", 32, "--batch_size", 8]
TINY += ["--max_steps", 12, "--inner_steps", 2, "--save_steps", 3, "--logging_steps", 2, "--eval_corruptions", "none"]


def killed(folder: Path, kills: int, at: str, *flags: object, seed: int = 0) -> dict:
    """The report of tests/killing.py on runs of the recipe below `folder`."""
    _, vit = tiny_teachers(folder)
    given = [folder, "--kills", kills, "--at", at, "--seed", seed, "--flags", *TINY, *flags]
    given += ["--student", vit, "--teachers", vit, "ema"]
    done = succeed(PYTHON, KILLING, *given, cwd=folder, ACCELERATE_USE_CPU="true")
    return json.loads(done.stdout.splitlines()[-1])


def left(folder: Path) -> dict:
    """All that a finished run leaves, but for times."""
    lines = read_metrics(folder / "metrics.jsonl")
    text = (folder / "metrics.jsonl").read_text()
    assert text.count("\n") == len(lines) and text.endswith("\n")
    for line in lines:
        del line["images_per_second"]
    run = RunRecord.read(folder)
    newest = checkpoints(folder / "checkpoints")[-1]
    training = torch.load(newest / "training.pt", weights_only=True)
    weights = [*folder.glob("student/*.safetensors"), *folder.glob("augmentation/*"), *newest.glob("*.safetensors")]
    return {
        "weights": {path.relative_to(folder).as_posix(): path.read_bytes() for path in weights},
        "metrics": lines,
        "generator": training["generator"].tolist(),
        "feeds": training["feeds"],
        "status": run["status"],
        "results": {name: row["results"]["clean"] for name, row in run["rows"].items()},
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")),
    }


def assert_all_equal_the_undisturbed(folder: Path, runs: int) -> None:
    whole = left(folder / "whole")
    assert whole["status"] == "finished" and len(whole["weights"]) == 6
    assert [line["step"] for line in whole["metrics"]] == [2, 3, 4, 6, 8, 9, 10, 12]
    for index in range(runs):
        assert left(folder / f"killed{index}") == whole


@pytest.mark.slow
def test_killed_where_files_are_written(tmp_path):
    report = killed(tmp_path, 8, "calls")
    assert report["kills"] == 8 and sum(report["runs"]) == 8
    assert_all_equal_the_undisturbed(tmp_path, len(report["runs"]))


@pytest.mark.slow
@pytest.mark.parametrize(("at", "seed"), [("calls", 1), ("calls", 2), ("moments", 3), ("moments", 4)])
def test_killed_a_hundred_times(tmp_path, at, seed):
    """A quarter of them each; with a second row, so that a kill may fall between two."""
    report = killed(tmp_path, 25, at, "--baselines", "plain", seed=seed)
    print(report)
    assert report["kills"] == 25 and max(report["runs"]) > 3
    assert_all_equal_the_undisturbed(tmp_path, len(report["runs"]))
