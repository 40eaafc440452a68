"""What a run says at its end."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_transinv.commands import cli
from hf_transinv.config import DataConfig, OutputConfig
from hf_transinv.experiment.closing import closing_text, next_commands, results_markdown
from hf_transinv.formats.terminal import for_terminal
from hf_transinv.hub.recorded_run import read_run
from tests.experiment.test_reading_is_said import TINY, TRAIN, _alone, run  # noqa: F401 (fixtures)
from tests.tiny_run import tiny_data


def scores(clean: float, **corruptions: float) -> dict[str, Any]:
    by_name = {name: {"3": value, "mean": value} for name, value in corruptions.items()}
    mean = sum(corruptions.values()) / len(corruptions)
    result = {"clean": {"top1": clean}, "num_images": 12, "corruptions": by_name, "corruption_mean": mean}
    return {"results": {**result, "severities": [3], "seed": 0}, "kin": {}}


def content() -> dict[str, Any]:
    """A run with its average, and two baselines."""
    learned = {"r": [0.25, 0.75], "q": [0.5, 0.125], "p": [[0.5, 0.5], [1.0, 0.0]]}
    config = {"dataset": "digits/target", "student": "test_vit", "primitives": ["geometric", "gaussian_noise"]}
    config |= {"teachers": ["model_cards/digits_elastic", "ema"]}
    rows = {
        "TransInv": scores(90.0, fog=50.04, snow=70.0) | {"learned": learned, "kin": {"snow": "as noise"}},
        "TransInv, EMA": scores(91.0, fog=40.0, snow=60.0),
        "fine-tuning": scores(92.0, fog=10.0, snow=70.0),
        "crop + flip": scores(80.0, fog=20.0, snow=30.0),
    }
    return {"recipe": "multi_teacher", "config": config, "main_row": "TransInv", "rows": rows}


def opened(**config: Any):
    return replace(tiny_data(), config=DataConfig(dataset="digits/target", **config))


def test_corruptions_are_rows_models_columns_and_the_first_baseline_is_what_is_beaten():
    shown = for_terminal(results_markdown(read_run(content())), 80)
    assert shown.splitlines() == [
        "                               TransInv,                             TransInv −",
        "top-1, %             TransInv        EMA  fine-tuning  crop + flip  fine-tuning",
        "─" * 79,
        "clean                    90.0       91.0         92.0         80.0         −2.0",
        "fog                      50.0       40.0         10.0         20.0        +40.0",
        "snow                     70.0       60.0         70.0         30.0         +0.0",
        "mean of corruptions      60.0       50.0         40.0         25.0        +20.0",
        "mean of no kin           50.0       40.0         10.0         20.0        +40.0",
        "",
        "No kin: mean over what no row imitates in training, 1 of 2 corruptions.",
    ]


def test_the_best_of_a_row_is_bold_and_both_where_two_are():
    rows = [line for line in results_markdown(read_run(content())).splitlines() if line.startswith("| ")]
    bold = [[cell.strip() for cell in row.split("|") if "**" in cell] for row in rows[2:]]
    assert bold == [["**92.0**"], ["**50.0**"], ["**70.0**", "**70.0**"], ["**60.0**"], ["**50.0**"]]


def test_what_the_student_was_trained_on_is_marked_and_has_a_mean_of_the_rest():
    run = content()  # noqa: F811
    run["config"]["corruption"] = ["snow"]
    lines = for_terminal(results_markdown(read_run(run)), 80).splitlines()
    rows = {line[:21].strip(): line[21:].split()[0] for line in lines if line[21:30].strip()}
    assert (rows["snow"], rows["fog"]) == ("70.0*", "50.0")
    assert (rows["mean of corruptions"], rows["mean of the others"]) == ("60.0*", "50.0")
    assert any(line.startswith("* The model was trained on this corruption") for line in lines)


def test_it_says_how_it_was_measured_and_what_was_learned_for_whom():
    text = closing_text(read_run(content()), opened(), OutputConfig(), Path("out"))
    assert "Measured on 12 images of digits/target, split test, at 32 px (protocol uniform)" in text
    assert "severity 3, seed 0." in " ".join(text.split())
    assert "digits_elastic  0.25  0.50          0.50         0.50" in text
    other = closing_text(
        read_run(content()), opened(interpolation="bicubic", image_size=32), OutputConfig(), Path("out")
    )
    assert "(bicubic, eval_crop_pct 1)" in " ".join(other.split())


@pytest.mark.parametrize(
    ("config", "output", "said"),
    [
        ({}, {}, "--dataset digits/target --eval_split test"),
        ({"label_column": "fine label"}, {}, "--eval_split test --label_column 'fine label'"),
        ({}, {"eval_corruptions": ("fog",), "eval_severities": (3,)}, "--eval_corruptions fog --eval_severities 3"),
        ({}, {"eval_augment": ("grayscale", "pad_crop")}, "--augment grayscale pad_crop"),
    ],
)
def test_the_next_commands_measure_the_same_again(config, output, said):
    evaluated, probed, pushed = next_commands(opened(**config), OutputConfig(**output), Path("my out"))
    assert evaluated.startswith("transinv evaluate --model 'my out/student' --dataset digits/target ")
    assert evaluated.endswith(said)
    assert probed == "transinv invariance --model 'my out/student' --dataset digits/target --eval_split test"
    assert pushed == "transinv push 'my out' USER/NAME"


def test_what_was_held_out_is_measured_by_its_share_and_what_is_published_is_not_pushed_again():
    for fold, said in ((0, ""), (3, " --validation_fold 3")):
        data = opened(validation_share=0.25, validation_fold=fold)
        data = replace(data, validation=data.evaluation)
        commands = next_commands(data, OutputConfig(push_to_hub="me/it"), Path("out"))
        assert commands[0].endswith(f"--train_split train --validation_share 0.25{said}") and len(commands) == 2


def photographs(folder: Path, *splits: str) -> None:
    """Pictures of many shapes, whose corners and edges differ from their centres."""
    random = np.random.default_rng(0)
    for split in splits:
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for row in range(8):
                height, width = random.integers(24, 60, 2)
                pixels = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).resize((int(width), int(height)), Image.Resampling.BICUBIC)
                picture.save(folder / split / name / f"{row}.png")


CUT = ["--image_size", 24, "--crop", "resized", "--interpolation", "bicubic", "--eval_crop_pct", 0.75]


@pytest.mark.parametrize(
    ("splits", "flags"),
    [
        (("",), ["--validation_share", 0.5, *TINY[4:6]]),
        (("train", "test"), ["--eval_corruptions", "fog", "--eval_severities", 3, "--eval_augment", "grayscale"]),
    ],
)
def test_the_command_that_is_printed_finds_the_figures_of_the_table(run, tmp_path, splits, flags):  # noqa: F811
    """It takes the cut from the exported student, whichever the run had."""
    photographs(tmp_path / "photos of mine", *splits)
    data = ["--dataset", "photos of mine", "--batch_size", 4]
    code, said, why = run(TRAIN, *data, *CUT, *flags, *TINY[:4], *TINY[6:])
    assert code == 0, why
    (command,) = [line for line in said.splitlines() if line.strip().startswith("transinv evaluate")]
    _, *words = shlex.split(command)
    assert "--image_size" not in words and "--interpolation" not in words
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--output_dir", "again"])
    assert ended.value.code == 0
    again = json.loads(Path("again/evaluation.json").read_text())["results"]
    (row,) = json.loads(Path("out/run.json").read_text())["rows"].values()
    assert (
        again["clean"]["top1"] == row["results"]["clean"]["top1"]
        and again["num_images"] == row["results"]["num_images"]
    )
    assert again["clean"] == pytest.approx(row["results"]["clean"], rel=1e-4)
    assert again.get("corruptions") == row["results"].get("corruptions")
    augmented = [
        {name: one["top1"] for name, one in found.get("augmented", {}).items()} for found in (again, row["results"])
    ]
    assert augmented[0] == augmented[1] and ("grayscale" in augmented[0]) == ("--eval_augment" in flags)
