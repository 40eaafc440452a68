"""Recipes as users launch them: a whole run, what it leaves behind, its student in other hands, kill and resume.

Runs are shared: `finished` is launched once and every test looks at another side of it.
"""

import json
import re
import signal
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_transinv.augment.saving import load_augmentation
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.hub.card import render_card
from hf_transinv.record import published, read_metrics
from tests.launching import (
    ACCELERATE,
    MULTI_TEACHER,
    PYTHON,
    TRAIN_TEACHER,
    end_when,
    launch,
    saved_steps,
    succeed,
    tiny_teachers,
)

# 100 training images, 6 batches an epoch; checkpoints at 4 and 8 are in mid-epoch and in mid-cycle.
TINY = ["--dataset", "digits/target", "--image_size", 32, "--student", "wrn10_1_cifar", "--batch_size", 16]
TINY += ["--max_steps", 12, "--inner_steps", 2, "--save_steps", 4, "--logging_steps", 3, "--save_total_limit", 9]
TINY += ["--eval_corruptions", "none", "--seed", 3, "--tolerance_relative_to", "crop"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def teachers(folder) -> list[str]:
    return [*tiny_teachers(folder), "ema"]


@pytest.fixture(scope="module")
def finished(folder, teachers):
    """The main run, launched as the README says; it also wants to publish to a Hub that is not there."""
    flags = [
        *TINY,
        "--teachers",
        *teachers,
        "--baselines",
        "plain",
        "--output_dir",
        "out",
        "--push_to_hub",
        "me/digits",
    ]
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none", "HF_HUB_OFFLINE": "0"}
    done = succeed(ACCELERATE, MULTI_TEACHER, *flags, cwd=folder, **hub)
    return done, folder / "out"


def student_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student" / "model.safetensors")


def assert_same_students(one: Path, other: Path) -> None:
    weights, others = student_of(one), student_of(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


# The main run


def test_the_output_folder_has_everything(finished, teachers):
    _, out = finished
    assert sorted(path.name for path in (out / "student").iterdir()) == [
        "README.md",
        "config.json",
        "figures",
        "model.safetensors",
    ]
    assert {path.name for path in (out / "augmentation").iterdir()} == {"config.json", "augmentation.safetensors"}
    figures = {path.name: path.stat().st_size for path in (out / "figures").iterdir()}
    names = ("augmentation", "confusion", "curves", "errors", "per_class", "selection")
    assert figures.keys() == {f"{name}.png" for name in names} and min(figures.values()) > 1000
    assert saved_steps(out) == [4, 8, 12]
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished" and run["seconds"] > 0
    assert run["config"]["teachers"] == teachers and run["config"]["seed"] == 3
    assert run["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert "commit" in run and run["rows"].keys() == {"paired + TransInv", "fine-tuning"}
    for row in run["rows"].values():
        assert row["steps"] == 12 and row["images_seen"] == 12 * 16 and row["train_seconds"] > 0
        assert 0 <= row["results"]["clean"]["top1"] <= 100
        assert sum(row["results"]["classes"]["support"]) == 796


def test_the_card_is_that_of_the_record(finished, folder, teachers):
    _, out = finished
    run = json.loads((out / "run.json").read_text())
    card = (out / "student" / "README.md").read_text()
    assert card == render_card(run)
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", card)
    shown = ("augmentation", "confusion", "selection")
    assert sorted(links) == [f"figures/{name}.png" for name in shown]
    assert all((out / "student" / link).is_file() for link in links)
    assert str(folder) not in card and str(folder) not in json.dumps(published(run))
    assert run["command"].startswith("recipes/multi_teacher.py ") and run["main_row"] == "paired + TransInv"
    assert [teacher["name"] for teacher in run["teachers"]] == ["wide", "vit", "ema"]
    assert [of_teacher.keys() for of_teacher in run["magnitudes"]] == [set(run["config"]["primitives"])] * 3
    last = read_metrics(out / "metrics.jsonl")[-1]
    assert run["bounds"] == [last[f"augmentation/bound_{number}"] for number in (1, 2, 3)] and min(run["bounds"]) > 0
    assert run["dataset"] == {
        "name": "digits/target",
        "kind": "embedded",
        "train_rows": 100,
        "eval_rows": 796,
        "eval_split": "test",
    }


def test_p_q_and_r_are_distributions_in_every_line(finished):
    lines = read_metrics(finished[1] / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 12]
    for line in lines:
        assert len(line["r"]) == 3 and sum(line["r"]) == pytest.approx(1, abs=1e-6)
        assert [len(p) for p in line["p"]] == [9, 9, 9]
        assert all(sum(p) == pytest.approx(1, abs=1e-6) for p in line["p"])
        assert all(0 < q < 1 for q in line["q"])


def test_the_terminal_shows_table_selection_and_place(finished):
    done, _ = finished
    _, shown = done.stdout.split("top-1, %")
    assert re.search(r"TransInv −\ntop-1, % +TransInv +fine-tuning +fine-tuning\n─+\nclean  .*[+−]\d", done.stdout)
    assert "| " not in shown and "\033" not in shown
    assert shown.count("p: contrast") == 1 and all(f"\n{name} " in shown for name in ("wide", "vit", "ema"))
    assert "are in out" in shown and f"card is {Path('out', 'student', 'README.md')}" in shown
    assert "\n  transinv evaluate --model out/student --dataset digits/target --eval_split test" in shown
    assert "\r" not in done.stderr


def test_a_hub_that_cannot_be_reached_costs_nothing(finished):
    done, out = finished
    assert "Not published: me/digits could not be pushed" in done.stdout
    assert "out is complete and unchanged" in done.stdout
    assert (out / "student" / "model.safetensors").exists()


def test_the_augmentation_loads_again(finished):
    out = finished[1]
    panel = load_augmentation(out / "augmentation")
    p, q, r, *_ = panel.selection()
    last = read_metrics(out / "metrics.jsonl")[-1]
    assert r.tolist() == last["r"] and q.tolist() == last["q"] and p.tolist() == last["p"]
    trained = load_file(out / "checkpoints" / "step_00000012" / "augmentation.safetensors")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in panel.state_dict().items())


LOAD_WITH_TIMM = """
import sys, timm, torch
import hf_transinv
data = torch.load(sys.argv[2])
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
cfg = model.pretrained_cfg
mean, std = (torch.tensor(cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
with torch.no_grad():
    torch.save({"logits": model((data - mean) / std), "names": cfg["label_names"]}, sys.argv[3])
"""


def test_timm_loads_the_student_with_the_same_logits_to_the_bit(finished, folder):
    out = finished[1]
    split = ResidentSplit.load(open_source("digits/target", split="test"), image_size=32, show_progress=False)
    images = split.images[:64].float() / 255
    torch.save(images, folder / "images.pt")
    (folder / "load.py").write_text(LOAD_WITH_TIMM)
    succeed(PYTHON, folder / "load.py", out / "student", folder / "images.pt", folder / "logits.pt", cwd=folder)
    seen = torch.load(folder / "logits.pt")
    config = json.loads((out / "student" / "config.json").read_text())
    network = timm.create_model("wrn10_1_cifar", num_classes=5).eval()
    trained = load_file(out / "checkpoints" / "step_00000012" / "student.safetensors")
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in trained.items()})
    mean, std = (torch.tensor(config["pretrained_cfg"][key]).view(-1, 1, 1) for key in ("mean", "std"))
    torch.set_num_threads(1)
    with torch.no_grad():
        assert torch.equal(seen["logits"], network((images - mean) / std))
    assert seen["names"] == ["5", "6", "7", "8", "9"]
    kin = json.loads((out / "run.json").read_text())["rows"]
    assert config["hf_transinv"]["kin"] == sorted(next(iter(kin.values()))["kin"]) != []


# Kill and resume


@pytest.mark.parametrize("reading", ["resident", "streaming"])
def test_killed_and_resumed_equals_uninterrupted(finished, folder, teachers, reading):
    flags = [*TINY, "--teachers", *teachers]
    if reading == "streaming":
        flags += ["--streaming", "--shuffle_buffer", 32, "--output_dir"]
        whole = folder / "whole"
        succeed(PYTHON, MULTI_TEACHER, *flags, whole, cwd=folder)
    else:
        flags += ["--baselines", "plain", "--output_dir"]
        whole = finished[1]
    killed = folder / f"killed_{reading}"
    code, said = end_when(lambda: 4 in saved_steps(killed), signal.SIGKILL, MULTI_TEACHER, *flags, killed, cwd=folder)
    assert code == -signal.SIGKILL, said
    assert not (killed / "student").exists() and 4 in saved_steps(killed)
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    succeed(PYTHON, MULTI_TEACHER, *flags, killed, "--resume_from", "latest", cwd=folder)
    assert_same_students(killed, whole)
    for name in ("student", "augmentation", "ema"):
        saved = (run / "checkpoints" / "step_00000012" / f"{name}.safetensors" for run in (killed, whole))
        assert len({path.read_bytes() for path in saved}) == 1
    drop = {"images_per_second"}
    lines = [
        [
            {name: value for name, value in line.items() if name not in drop}
            for line in read_metrics(run / "metrics.jsonl")
        ]
        for run in (killed, whole)
    ]
    assert lines[0] == lines[1]


def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(folder, teachers):
    out = folder / "stopped"
    flags = [*TINY, "--max_steps", 5000, "--teachers", *teachers, "--output_dir", out]
    code, said = end_when(lambda: 4 in saved_steps(out), signal.SIGTERM, MULTI_TEACHER, *flags, cwd=folder)
    assert code == 130, said
    (line,) = [line for line in said.splitlines() if line.startswith("stopped at step")]
    step = int(line.split()[3].rstrip(";"))
    assert saved_steps(out)[-1] == step
    assert line.endswith(f"--output_dir {out} --resume_from latest")


# Teachers, trackers


@pytest.fixture(scope="module")
def teacher(folder):
    flags = ["--dataset", "digits/source", "--image_size", 32, "--student", "wrn10_1_cifar", "--max_steps", 4]
    flags += ["--corruption", "gaussian_noise", "contrast", "--batch_size", 16, "--output_dir", "noise_teacher"]
    flags += ["--eval_corruptions", "gaussian_noise", "--eval_severities", 1, "--report_to", "tensorboard"]
    return launch(PYTHON, TRAIN_TEACHER, *flags, cwd=folder), folder / "noise_teacher"


def test_a_teacher_is_trained_measured_and_exported(teacher):
    done, out = teacher
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["recipe"] == "train_teacher" and run["config"]["corruption"] == ["gaussian_noise", "contrast"]
    assert run["rows"]["teacher"]["results"]["corruptions"]["gaussian_noise"].keys() == {"1", "mean"}
    card = (out / "student" / "README.md").read_text()
    assert "robust to gaussian noise and contrast" in card and "augmentations learned" not in card
    assert all("* The model was trained on this corruption" in text.replace("\\", "") for text in (card, done.stdout))
    assert "(figures/corruption_heatmap.png)" in card.partition("## Model details")[0]
    assert (out / "student" / "figures" / "corruption_heatmap.png").stat().st_size > 1000
    network = timm.create_model(f"local-dir:{out / 'student'}", pretrained=True)
    assert network.num_classes == 5


def test_tensorboard_gets_events(teacher):
    pytest.importorskip("tensorboard")
    _, out = teacher
    events = list(out.rglob("events.out.tfevents.*"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags, images = {}, {}
    for path in events:
        accumulator = EventAccumulator(str(path))
        accumulator.Reload()
        tags |= {tag: accumulator.Scalars(tag)[-1] for tag in accumulator.Tags()["scalars"]}
        images |= {tag: accumulator.Images(tag)[-1] for tag in accumulator.Tags()["images"]}
    assert {"train/loss", "train/learning_rate", "eval/corrupted"} <= tags.keys()
    results = json.loads((out / "run.json").read_text())["rows"]["teacher"]["results"]
    assert tags["eval/top1"].value == pytest.approx(results["clean"]["top1"])
    assert tags["eval/macro_f1"].value == pytest.approx(results["classes"]["macro_f1"])
    assert tags["eval/top1"].step == 4
    names = ("confusion", "corruption_heatmap", "curves", "errors", "per_class")
    assert images.keys() == {f"figures/{name}" for name in names}
    with Image.open(out / "figures" / "confusion.png") as picture:
        shown = images["figures/confusion"]
        assert (shown.width, shown.height) == picture.size and shown.step == 4
