"""Budgets: steps that come to as many passes or seconds as the plain row's, decided once and kept."""

import json
from pathlib import Path

import pytest
import yaml

import hf_transinv.comparison.budget
from hf_transinv.comparison.budget import described, read_budget, seconds_of_step, steps_within
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.errors import InputError
from hf_transinv.record import read_metrics
from tests.comparison.test_comparison import COMPARE
from tests.experiment.test_bad_input import _alone, run  # noqa: F401 (fixtures)
from tests.tiny_run import tiny_trainer

ROWS = {"crop + flip": None, "AugMix": {"method": "augmix"}}
CONTENT = {"dataset": "digits/target", "image_size": 32, "student": "wrn10_1_cifar", "batch_size": 8, "max_steps": 7}
CONTENT |= {"warmup_ratio": 0, "eval_corruptions": ["none"], "rows": ROWS, "seeds": [0]}
FLAGS = ["--config", "compare.yaml", "--output_dir", "out", "--budget"]


def record() -> dict:
    return json.loads(Path("out/run.json").read_text())


def test_steps_come_to_no_more_than_the_plain_row_s():
    assert [steps_within(100, 3, cost) for cost in (3, 9, 4, 301, 1)] == [100, 33, 75, 1, 300]


def test_seconds_are_the_median_of_whole_cycles_but_the_first(tmp_path, monkeypatch):
    class Clock:
        laps_left = iter([10.0, 1.0, 3.0, 2.0, 99.0])

        def __init__(self, device):
            pass

        def mark(self):
            pass

        def laps(self):
            return [next(self.laps_left)]

    monkeypatch.setattr(hf_transinv.comparison.budget, "Stopwatch", Clock)
    trainer = tiny_trainer(tmp_path, max_steps=100)
    assert seconds_of_step(trainer) == 2.0 / 2 and (trainer.turn, trainer.step) == (4 * 3, 4 * 2)
    Clock.laps_left = iter([10.0, 99.0])
    trainer = tiny_trainer(tmp_path, max_steps=3)
    assert seconds_of_step(trainer) == 10.0 / 2 and trainer.step == 2, "one cycle is all there is"
    with pytest.raises(InputError, match="fewer than a cycle of turns has"):
        seconds_of_step(tiny_trainer(tmp_path, max_steps=1))


def test_a_budget_of_passes_is_kept_from_the_table_to_the_schedule(run):  # noqa: F811
    Path("compare.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    assert run(*FLAGS, "passes", recipe=COMPARE)[0] == 0
    content = record()
    decided = {"crop + flip": {"steps": 7, "passes_per_image": 3.0}, "AugMix": {"steps": 2, "passes_per_image": 9.0}}
    assert content["budget"] == {"kind": "passes", "plain": "crop + flip", "rows": decided}
    assert described(content["budget"]) == [
        "budget      passes of 'crop + flip': 7 steps of 'crop + flip'",
        "budget      passes of 'crop + flip': 2 steps of 'AugMix'",
    ]
    found = [[row[name] for name in ("steps", "images_shown", "images_distinct")] for row in content["rows"].values()]
    assert found == [[7, 56, 56], [2, 48, 16]]
    for folder in ("out", "out/baselines/AugMix_seed_0"):
        assert read_metrics(Path(folder, "metrics.jsonl"))[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    table = Path("out/comparison.md").read_text()
    assert table.startswith("| row | clean | ECE | steps | shown | distinct | time | cost |\n")
    assert "| 7 | 56 | 56 |" in table and "| 2 | 48 | 16 |" in table
    assert "Every row makes as many passes through networks as crop + flip, in whole steps." in table
    assert json.loads(Path("out/comparison.json").read_text())["budget"] == content["budget"]

    # What joins later has the same budget; what was decided is not decided again.
    more = CONTENT | {"rows": ROWS | {"AIT": {"method": "ait"}}}
    Path("compare.yaml").write_text(yaml.safe_dump(more, sort_keys=False))
    resume = ["--resume_from", "latest"]
    code, said = run(*FLAGS, "images", *resume, recipe=COMPARE)
    assert code == 2 and "budget was 'passes', is 'images'" in said
    code, said = run(*FLAGS, "passes", *resume, "--plain", "AugMix", recipe=COMPARE)
    assert code == 2 and "the budget was passes of the row 'crop + flip', is passes of 'AugMix'" in said
    assert run(*FLAGS, "passes", *resume, recipe=COMPARE)[0] == 0
    content = record()
    assert content["budget"]["rows"] == decided | {"AIT": {"steps": 7, "passes_per_image": 3.0}}
    row = content["rows"]["AIT, seed 0"]
    assert (row["steps"], row["images_shown"], row["images_distinct"]) == (7, 56, 28)


@pytest.mark.parametrize(
    "damaged", [None, {}, {"kind": "passes", "plain": "a", "rows": []}, {"rows": {"a": {"steps": "7"}}}]
)
def test_a_damaged_record_is_refused(damaged):
    with pytest.raises(InputError, match=r"run\.json is damaged: budget"):
        read_budget({"budget": damaged}, "passes", "a")


@pytest.mark.slow
def test_a_budget_of_seconds_is_decided_before_training(run, monkeypatch):  # noqa: F811
    timed = []

    def seconds(trainer):
        timed.append((trainer.objective.name, trainer.step))
        return {"supervised": 1.0, "augmix": 2.5}[trainer.objective.name]

    monkeypatch.setattr(hf_transinv.comparison.budget, "seconds_of_step", seconds)
    Path("compare.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    assert run(*FLAGS, "seconds", recipe=COMPARE)[0] == 0
    assert timed == [("supervised", 0), ("augmix", 0)]
    rows = record()["budget"]["rows"]
    assert rows == {
        "crop + flip": {"steps": 7, "seconds_per_step": 1.0},
        "AugMix": {"steps": 2, "seconds_per_step": 2.5},
    }
    assert [row["steps"] for row in record()["rows"].values()] == [7, 2]
    assert run(*FLAGS, "seconds", "--resume_from", "latest", recipe=COMPARE)[0] == 0
    assert len(timed) == 2 and record()["budget"]["rows"] == rows


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        (ROWS, ["--budget", "steps"], "budget 'steps' is not one of images, passes, seconds"),
        ({"a": None}, ["--budget", "passes"], "name that row, --plain TITLE"),
        (ROWS, ["--budget", "seconds", "--extend_to_steps", "9", "--resume_from", "latest"], "start a longer"),
        (
            ROWS | {"hard": {"method": "hard", "teachers": ["x"]}},
            ["--budget", "passes"],
            "row 'hard': how many turns HARD .our reading. takes for a step depends on what it measures",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(tmp_path, rows, flags, said):
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(CONTENT | {"rows": rows}, sort_keys=False))
    with pytest.raises(InputError, match=said):
        read_comparison(["--config", str(path), *flags])
    read_comparison(["--config", str(path)])
