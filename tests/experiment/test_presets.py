"""Which defaults a run gets, by a table written by hand; what is refused; and how a run shows and records it."""

import json
import runpy
import sys
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import given_fields
from hf_transinv.experiment.launch import check_same_run
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.publish import describe_student
from hf_transinv.models.classifier import open_classifier
from tests.launching import REPOSITORY

TRAIN = REPOSITORY / "recipes" / "train.py"
GROUPS = [DataConfig, StudentConfig, TrainConfig, OutputConfig]
SCRATCH = ("sgd", 0.1, 5e-4, "cosine", 0.05, None)
CNN = ("sgd", 0.02, 1e-4, "cosine", 0.05, None)
TRANSFORMER = ("adamw", 2.5e-4, 0.05, "cosine", 0.1, 0.75)
RESNET = ["--student", "test_resnet", "--student_init", "pretrained"]
VIT = ["--student", "test_vit", "--student_init", "pretrained"]


def loop_of(*argv: str) -> tuple[TrainConfig, str]:
    (_, _, loop, _), said = parse_run(GROUPS, [*argv, "--max_steps", "3"])
    return loop, said


def values(loop: TrainConfig) -> tuple:
    return (
        *(loop.optimizer, loop.learning_rate, loop.weight_decay),
        *(loop.lr_scheduler, loop.warmup_ratio, loop.layer_decay),
    )


@pytest.mark.parametrize(
    ("argv", "preset", "expected"),
    [
        (["--student", "test_resnet"], "scratch", SCRATCH),
        (["--student", "test_vit"], "scratch", SCRATCH),
        (RESNET, "finetune_cnn", CNN),
        (VIT, "finetune_transformer", TRANSFORMER),
        (["--teachers", "ema", "model_cards/digits_light", "--student_init", "teacher:2"], "finetune_cnn", CNN),
        ([*VIT, "--preset", "scratch"], "scratch", SCRATCH),
        ([*VIT, "--preset", "finetune_cnn"], "finetune_cnn", CNN),
        (["--student", "test_vit", "--preset", "finetune_transformer"], "finetune_transformer", TRANSFORMER),
        ([*RESNET, "--batch_size", "64"], "finetune_cnn", ("sgd", 0.01, *CNN[2:])),
        ([*VIT, "--batch_size", "1024"], "finetune_transformer", ("adamw", 2e-3, *TRANSFORMER[2:])),
        ([*VIT, "--freeze", "all"], "finetune_transformer", (*TRANSFORMER[:-1], None)),
        ([*VIT, "--layer_decay", "null"], "finetune_transformer", (*TRANSFORMER[:-1], None)),
        ([*VIT, "--learning_rate", "0.1"], "finetune_transformer", ("adamw", 0.1, *TRANSFORMER[2:])),
        ([*RESNET, "--weight_decay", "5e-4"], "finetune_cnn", ("sgd", 0.02, 5e-4, *CNN[3:])),
        (
            [*RESNET, "--optimizer", "lamb", "--learning_rate", "0.003"],
            "finetune_cnn",
            ("lamb", 0.003, *CNN[2:]),
        ),
    ],
)
def test_the_student_decides_and_what_is_given_wins(argv, preset, expected):
    loop, _ = loop_of(*argv)
    assert (loop.preset, values(loop)) == (preset, expected)
    others = {name: value for name, value in as_dict(loop).items() if name in ("momentum", "max_grad_norm", "seed")}
    assert others == {"momentum": 0.9, "max_grad_norm": 5.0, "seed": 0}


def test_from_scratch_nothing_is_different_from_the_defaults():
    loop, said = loop_of("--student", "test_vit")
    assert as_dict(loop) == as_dict(TrainConfig(max_steps=3, preset="scratch"))
    assert said == (
        "preset      scratch: optimizer sgd, learning_rate 0.1, momentum 0.9, weight_decay 0.0005, lr_scheduler "
        "cosine, warmup_ratio 0.05"
    )


def test_a_yaml_gives_as_a_flag_does_and_the_line_names_what_was_given(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "student: test_vit\nstudent_init: pretrained\nmax_steps: 3\nweight_decay: 0.1\n"
    )
    argv = ["--config", str(tmp_path / "run.yaml"), "--warmup_ratio=0.2"]
    (_, _, loop, _), said = parse_run(GROUPS, argv)
    assert values(loop) == ("adamw", 2.5e-4, 0.1, "cosine", 0.2, 0.75)
    assert said.endswith(
        "finetune_transformer: optimizer adamw, learning_rate 0.00025, weight_decay 0.1, lr_scheduler cosine, "
        "warmup_ratio 0.2, layer_decay 0.75 (given: weight_decay, warmup_ratio)"
    )
    assert given_fields(["--seed", "3"], tmp_path / "run.yaml") == {
        *("seed", "student", "student_init", "max_steps", "weight_decay")
    }
    assert given_fields(["--dataset=x", "--seed", "3"], tmp_path / "run.yaml") == {"dataset", "seed"}


def test_networks_of_transformers_are_looked_at_too(tmp_path):
    from transformers import SwinConfig, SwinForImageClassification, ViTImageProcessor

    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}
    SwinForImageClassification(SwinConfig(**sizes, window_size=4)).save_pretrained(tmp_path / "swin")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "swin")
    loop, said = loop_of("--student", str(tmp_path / "swin"), "--student_init", "pretrained")
    assert values(loop) == (*TRANSFORMER[:-1], None)
    assert said.endswith("warmup_ratio 0.1; without layer_decay, as its layers are not known")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([*RESNET, "--optimizer", "adamw"], "has a learning rate for sgd, and optimizer adamw was given"),
        (["--student", "test_vit", "--freeze", "all"], "freeze all would keep random weights"),
        (["--student", "test_vit", "--linear_probe_share", "0.3"], "would train a head on random weights"),
        (["--student", "test_vit", "--interpolate", "0.3"], "would go back to random weights"),
        (["--student", "nothing", "--student_init", "pretrained"], "Unknown model 'nothing'"),
    ],
)
def test_what_does_not_compose_is_refused_before_anything_is_read(argv, said):
    with pytest.raises(InputError, match=said):
        loop_of(*argv)


@pytest.mark.parametrize(
    "flags",
    [
        ["--freeze", "2"],
        ["--ema", "beside"],
        ["--preset", "finetune_cnn"],
        ["--linear_probe_share", "0.3"],
        ["--interpolate", "0.3"],
        ["--layer_decay", "0.5"],
    ],
)
def test_a_command_that_trains_no_classifier_has_none_of_it(flags):
    with pytest.raises(InputError, match=f"{flags[0][2:]} is for classifiers"):
        parse_run([DataConfig, TrainConfig], ["--max_steps", "3", *flags])


def test_a_comparison_has_one_preset_for_all_rows(tmp_path):
    (tmp_path / "table.yaml").write_text(
        "dataset: digits/target\nstudent: test_vit\nmax_steps: 3\n"
        "rows:\n  new: {}\n  old: {student_init: pretrained}\n"
    )
    argv = ["--config", str(tmp_path / "table.yaml")]
    comparison = read_comparison(argv)
    assert [values(row.train) for row in comparison.rows] == [SCRATCH, SCRATCH]
    assert comparison.config["preset"] == "scratch" and comparison.config["learning_rate"] == 0.1
    named = read_comparison([*argv, "--preset", "finetune_transformer", "--weight_decay", "0.1"])
    assert {values(row.train) for row in named.rows} == {("adamw", 2.5e-4, 0.1, "cosine", 0.1, 0.75)}
    assert named.config["layer_decay"] == 0.75 and named.config["preset"] == "finetune_transformer"
    with pytest.raises(InputError, match=r"row 'new'.*freeze 2 would keep random weights"):
        read_comparison([*argv, "--freeze", "2"])
    with pytest.raises(InputError, match="a comparison exports no student"):
        read_comparison([*argv, "--ema", "instead"])


def test_a_run_from_before_presets_resumes_with_what_it_had():
    new = set(as_dict(TrainConfig(max_steps=3))) & {"preset", "ema", "freeze", "layer_decay", "head_learning_rate"}
    assert len(new) == 5
    scratch, tuned = (as_dict(loop_of(*argv)[0]) for argv in (["--student", "test_resnet"], RESNET))
    before = {name: value for name, value in scratch.items() if name not in new}
    check_same_run(before, scratch)
    with pytest.raises(InputError, match=r"learning_rate was 0.1, is 0.02.*: add --preset scratch"):
        check_same_run(before, tuned)
    with pytest.raises(InputError, match="ema was None, is 'beside'"):
        check_same_run(before, scratch | {"ema": "beside"})


# A run


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs recipes/train.py on the digits; returns what it printed."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def start(*flags: object) -> str:
        own = ["--dataset", "digits/target", "--teachers", "model_cards/digits_light", "--student_init", "teacher:1"]
        least = ["--batch_size", 16, "--image_size", 32, "--max_steps", 4, "--eval_corruptions", "none"]
        monkeypatch.setattr(sys, "argv", [str(TRAIN), *map(str, [*own, *least, *flags])])
        runpy.run_path(str(TRAIN), run_name="__main__")
        return capsys.readouterr().out

    return start


def test_a_run_shows_records_measures_and_exports_it(run):
    printed = run("--freeze", 2, "--ema", "beside", "--ema_decay", 0.5, "--output_dir", "out")
    assert "preset      finetune_cnn: optimizer sgd, learning_rate 0.0025, momentum 0.9" in printed
    assert "freeze      2: " in printed and " parameters train, " in printed
    record = json.loads(Path("out/run.json").read_text())
    config = record["config"]
    assert (config["preset"], config["learning_rate"], config["freeze"]) == ("finetune_cnn", 0.0025, 2)
    assert list(record["rows"]) == ["crop + flip", "crop + flip, EMA"]
    assert record["main_row"] == "crop + flip" and "ema_decay" not in record["student"]
    student, average = (open_classifier(f"out/{name}").network.state_dict() for name in ("student", "ema"))
    teacher = open_classifier("model_cards/digits_light").network.state_dict()
    same, kept = (
        {name for name, x in student.items() if x.is_floating_point() and torch.equal(x, other[name])}
        for other in (average, teacher | {name: student[name][:0] for name in ("head.fc.weight", "head.fc.bias")})
    )
    assert same == kept != set() and not any("head" in name for name in kept)
    cards = {name: Path(f"out/{name}/README.md").read_text() for name in ("student", "ema")}
    sentence = "Its weights are the exponential moving average of those that were trained (decay 0.5)."
    assert sentence in cards["ema"] and sentence not in cards["student"]
    top1 = {name: f"{row['results']['clean']['top1']:.1f} % top-1" for name, row in record["rows"].items()}
    assert top1["crop + flip"] in cards["student"] and top1["crop + flip, EMA"] in cards["ema"]

    # Finished already: exported again, with the same defaults.
    weights = Path("out/ema/model.safetensors").read_bytes()
    run("--freeze", 2, "--ema", "beside", "--ema_decay", 0.5, "--output_dir", "out", "--resume_from", "latest")
    assert Path("out/ema/model.safetensors").read_bytes() == weights

    run("--freeze", 2, "--ema", "instead", "--ema_decay", 0.5, "--output_dir", "other")
    assert Path("other/student/model.safetensors").read_bytes() == weights
    assert sentence in Path("other/student/README.md").read_text() and not Path("other/ema").exists()
    other = json.loads(Path("other/run.json").read_text())
    assert other["main_row"] == "crop + flip, EMA" and other["student"]["ema_decay"] == 0.5
    assert describe_student(open_classifier("other/student")).num_classes == 5


def test_a_run_shows_and_records_the_head_first_and_a_student_nearer_to_its_start(run):
    flags = ["--method", "l2_sp", "--linear_probe_share", 0.5, "--interpolate", 0.25, "--output_dir", "out"]
    printed = run(*flags)
    assert "probe       the first 2 of 4 steps train the classifier head alone" in printed
    assert "weight_decay 0: l2_sp has a penalty in its place" in printed
    record, card = json.loads(Path("out/run.json").read_text()), Path("out/student/README.md").read_text()
    assert list(record["rows"]) == ["L2-SP"] and record["config"]["interpolate"] == 0.25
    assert [citation[1:].split("{")[1].split(",")[0] for citation in record["citations"]] == [
        *("li2018explicit", "kumar2022finetuning", "wortsman2022robust")
    ]
    assert "its distance from the weights that it started from (L2-SP)" in card
    assert "In the first 50 % of the steps its classifier head alone was trained (LP-FT)." in card
    assert "are 75 % those it started from and 25 % those it was trained to (after WiSE-FT)." in card
    student = open_classifier("out/student").network.state_dict()
    trained = load_file("out/checkpoints/step_00000004/student.safetensors")
    start = load_file("out/checkpoints/step_00000004/student_start.safetensors")
    for name, value in student.items():
        if name.startswith("head.fc"):
            assert torch.equal(value, trained[f"network.{name}"])
        elif name.endswith("conv1.weight"):
            expected = 0.75 * start[f"classifier.network.{name}"] + 0.25 * trained[f"network.{name}"]
            torch.testing.assert_close(value, expected)
            assert not torch.equal(value, trained[f"network.{name}"])

    # Finished already: measured and exported again, to the bit.
    weights = Path("out/student/model.safetensors").read_bytes()
    run(*flags, "--resume_from", "latest")
    assert Path("out/student/model.safetensors").read_bytes() == weights
