"""The card of a student: rendered from a record alone, true to it, silent about what it lacks; its code runs."""

import copy
import json
import math
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.magnitudes import describe_magnitudes
from hf_transinv.augment.policies import POLICIES
from hf_transinv.augment.saving import save_augmentation
from hf_transinv.commands.render_card import main as render_again
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import GROUPS
from hf_transinv.experiment.publish import describe_student, hub_id
from hf_transinv.formats.typed_json import as_json, read_as
from hf_transinv.hub.card import render_card
from hf_transinv.hub.card_figures import shown_figures
from hf_transinv.hub.export import export_classifier
from hf_transinv.hub.recorded_run import Student, read_run
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.multiply_adds import giga_multiply_adds
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.record import published
from hf_transinv.training.freezing import LP_FT
from hf_transinv.training.interpolation import CITATION as WISE_FT
from tests.launching import REPOSITORY, environment

NAMES = ["ant", "bee", "cat", "dog", "elk"]
SHIPPED = sorted((REPOSITORY / "model_cards").iterdir())


def result(top1: float, shift: float = 0.0) -> dict:
    corruptions = {
        "gaussian_noise": {"1": 51.25 + shift, "5": 31.25 + shift, "mean": 41.25 + shift},
        "contrast": {"1": 63.5 + shift, "5": 23.5 + shift, "mean": 43.5 + shift},
    }
    return {
        "num_images": 796,
        "clean": {"top1": top1, "nll": 1.234, "top5": 99.125, "ece": 0.0875, "brier": 0.5},
        "corruptions": corruptions,
        "corruption_mean": 42.375 + shift,
        "corruption_ece": 0.2125,
        "corruption_errors": {"mCE": {"percent": 57.625 - shift, "definition": "mean error, as defined here"}},
        "severities": [1, 5],
        "seed": 0,
    }


CLASSES = {
    "names": NAMES,
    "support": [200, 200, 200, 100, 96],
    "recall": [91.5, 81.5, 71.5, 61.5, 51.5],
    "precision": [92.5, 82.5, 72.5, 62.5, 52.5],
    "f1": [91.75, 81.75, 71.75, 61.75, 51.75],
    "macro_f1": 71.875,
    "balanced_accuracy": 71.375,
    "confusion": [[0, 0, 183], [0, 1, 17]],
    "errors": [[17, 0, 1, 0.9875]],
}


def record() -> dict:
    """A run.json as this version writes it, with numbers that stand nowhere else."""
    noise = {"name": "noise variance", "unit": "", "low": 0.0, "high": 0.12, "rest": 0.0}
    row = {"steps": 77, "images_seen": 1232, "train_seconds": 4321.0, "images_skipped": 3, "warnings": ["r collapsed"]}
    learned = {"p": [[0.75, 0.25], [0.125, 0.875]], "q": [0.64, 0.32], "r": [0.58, 0.42]}
    return {
        "recipe": "multi_teacher",
        "status": "finished",
        "started": "2026-11-20T18:15:12Z",
        "command": "recipes/multi_teacher.py --dataset lab/pictures --teachers hf-hub:lab/noisy@v1 /home/me/b",
        "config": {
            "dataset": "lab/pictures",
            "dataset_config": None,
            "dataset_revision": None,
            "student": "resnet18.a1_in1k",
            "student_init": "pretrained",
            "teachers": ["hf-hub:lab/noisy@v1", "/home/me/blur/student"],
            "batch_size": 16,
            "optimizer": "sgd",
            "learning_rate": 0.0625,
            "seed": 11,
            "output_dir": "/home/me/out",
            "primitives": ["gaussian_noise", "gaussian_blur"],
            "license": "mit",
        },
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "hardware": {"cpu_cores": 6, "machine": "x86", "device": "cpu", "processes": 1, "mixed_precision": "bf16"},
        "commit": "0123456789ab",
        "main_row": "TransInv",
        "rows": {
            "TransInv": {"results": result(81.125) | {"classes": copy.deepcopy(CLASSES)}, "learned": learned, **row},
            "crop + flip": {"results": result(71.5, -10), "learned": {}, **row},
        },
        "name": "out",
        "objective": "transinv",
        "student": {
            "library": "timm",
            "architecture": "resnet18",
            "is_own_architecture": False,
            "base_model": "timm/resnet18.a1_in1k",
            "num_parameters": 11_176_512,
            "num_classes": 5,
            "label_names": NAMES,
            "input_size": [48, 48],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "dataset": {"name": "lab/pictures", "kind": "hub", "train_rows": 100, "eval_rows": 796, "eval_split": "test"},
        "teachers": [
            {"name": "hf-hub:lab/noisy@v1", "hub_id": "lab/noisy", "architecture": "vit", "num_classes": 9},
            {"name": "blur", "hub_id": None, "architecture": "wrn", "num_classes": 7, "trained_on": ["defocus_blur"]},
        ],
        "magnitudes": [{"gaussian_noise": [noise | {"quantiles": [0.011, 0.022, 0.051]}]}, {}],
        "figures": [f"figures/{name}.png" for name in ("augmentation", "confusion", "curves", "errors", "per_class")],
        "citations": ["@article{someone2024,\n  title = {A Method}\n}"],
    }


def text_of(card: str) -> str:
    return card.split("\n---\n", 1)[1]


def metadata_of(card: str, folder: Path) -> dict:
    (folder / "README.md").write_text(card, encoding="utf-8")
    return metadata_load(folder / "README.md")


def test_the_mean_without_kin_stands_beside_the_mean_of_all_where_every_row_knows_its_own():
    content = record()
    assert "no kin" not in render_card(content)
    rows = content["rows"]
    rows["TransInv"]["kin"], rows["crop + flip"]["kin"] = {"gaussian_noise": "it is noise of each pixel"}, {}
    text = render_card(content)
    assert "| top-1, corrupted | top-1, no kin | ECE, corrupted |" in text
    assert "| 42.4 | 43.5 | 0.212 |" in text and "| 32.4 | 33.5 | 0.212 |" in text
    assert (
        "over the 1 of 2 corruptions that the augmentation of no row imitates; it leaves out gaussian noise." in text
    )


def test_the_hub_client_reads_the_metadata_back(tmp_path):
    metadata = metadata_of(render_card(record(), repo_id="me/student"), tmp_path)
    assert metadata["library_name"] == "timm" and metadata["pipeline_tag"] == "image-classification"
    assert metadata["license"] == "mit" and metadata["datasets"] == ["lab/pictures"]
    assert metadata["base_model"] == ["timm/resnet18.a1_in1k"] and metadata["base_model_relation"] == "finetune"
    assert {"image-classification", "timm", "transformers", "hf_transinv", "transinv"} == set(metadata["tags"])
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "student"
    values = {(found.metric_type, found.metric_name): found.metric_value for found in results}
    assert values == {
        ("accuracy", "Top-1"): 0.81125,
        ("accuracy", "Top-5"): 0.99125,
        ("ece", "Expected calibration error"): 0.0875,
        ("f1", "Macro F1"): 0.71875,
        ("accuracy", "Top-1 under corruption, mean"): 0.42375,
        ("ece", "Expected calibration error under corruption, mean"): 0.2125,
        ("mce", "Mean corruption error, percent"): 57.625,
        ("accuracy", "Top-1 under gaussian noise"): 0.4125,
        ("accuracy", "Top-1 under contrast"): 0.435,
    }
    assert metadata["metrics"] == ["accuracy", "ece", "f1", "mce"]
    assert {(found.dataset_type, found.dataset_split) for found in results} == {("lab/pictures", "test")}
    again = ModelCardData(**metadata)
    assert yaml.safe_load(again.to_yaml()) == metadata
    assert ModelCard(render_card(record())).data.license == "mit"


def test_teachers_that_only_judged_are_no_base_models(tmp_path):
    run = record()
    del run["student"]["base_model"]
    card = render_card(run)
    assert not {"base_model", "base_model_relation"} & metadata_of(card, tmp_path).keys()
    assert "[lab/noisy](https://huggingface.co/lab/noisy)" in card


def test_the_tables_show_the_recorded_figures():
    text = text_of(render_card(record()))
    assert "| TransInv | 81.1 | 99.1 | 1.234 | 0.087 | 42.4 | 0.212 | 57.6 |" in text
    assert "| crop + flip | 71.5 | 99.1 | 1.234 | 0.087 | 32.4 | 0.212 | 67.6 |" in text
    assert "| gaussian noise | 41.2 | 31.2 |" in text and "| contrast | 43.5 | 33.5 |" in text
    assert "| mean | 42.4 | 32.4 |" in text and "mCE is the mean error, as defined here." in text
    assert "| [lab/noisy](https://huggingface.co/lab/noisy) | `vit` | 9 | 0.58 | 0.64 | **0.75** | 0.25 |" in text
    assert "| `blur` | `wrn` | 7 | 0.42 | 0.32 | 0.12 | **0.88** |" in text
    assert "see the same number of training images (1,232)" in text and "mean of the severities 1, 5" in text


def test_few_classes_have_a_table_and_of_many_the_worst():
    text = text_of(render_card(record()))
    assert "Macro F1 71.9 %, balanced accuracy 71.4 %. By class, in percent:" in text
    assert "| class | images | recall | precision | F1 |" in text and "| bee | 200 | 81.5 | 82.5 | 81.8 |" in text
    run = record()
    many = {name: CLASSES[name] * 5 for name in ("names", "support", "recall", "precision", "f1")}
    run["rows"]["TransInv"]["results"]["classes"] = CLASSES | many
    text = text_of(render_card(run))
    assert "The 5 classes with the lowest F1, in percent:" in text
    assert text.count("| elk | 96 | 51.5 | 52.5 | 51.8 |") == 5 and "| bee |" not in text


def test_a_record_without_classes_has_no_table_of_them():
    run = record()
    del run["rows"]["TransInv"]["results"]["classes"]
    run["figures"] = ["figures/augmentation.png"]
    text = text_of(render_card(run))
    assert "F1" not in text and "| class |" not in text and "confusion" not in text


def test_what_was_learned_is_said_in_words():
    text = text_of(render_card(record()))
    # q p_i: 0.64 x 0.75 = 0.48, 0.64 x 0.25 = 0.16, 0.32 x 0.875 = 0.28; 0.32 x 0.125 = 0.04 is under five percent.
    assert "Gaussian noise in 48 % of its images: noise variance 0.011 to 0.051\n" in text
    assert "Gaussian blur in 16 % of its images\n" in text and "Gaussian blur in 28 % of its images\n" in text
    assert "36 % of its images stayed as they are" in text and "Gaussian noise in 4 %" not in text
    assert "noise variance | 0.011 | 0.022 | 0.051 | 0.00 to 0.12 | 0 |" in text


def test_how_it_was_trained_stands_in_it():
    text = text_of(render_card(record()))
    assert "77 steps of 16 images (1,232 in all, from 100 training images), sgd with a learning rate of 0.0625" in text
    assert "seed 11. It took 72 min on 6 CPU cores, x86, bf16." in text
    assert "learning_rate: 0.0625" in text and "commit `0123456789ab`" in text and "torch 2.15.0" in text
    assert "was trained on defocus blur" in text and "3 training images could not be decoded" in text
    assert "Warning during training: r collapsed" in text
    assert "```bibtex\n@article{someone2024,\n  title = {A Method}\n}\n```" in text
    assert "11.18 M parameters, 48 × 48 pixels, 5 classes (ant, bee, cat, dog, elk)" in text


def test_which_student_it_is_and_by_what_stands_in_it():
    run = record()
    measured = {"split": "val", "figures": {"top1": 80.0}, "metric": "top1", "step": 1200, "value": 81.25}
    run["rows"]["TransInv"]["validation"] = measured | {"is_loaded": True, "patience": 4, "stopped_early": True}
    run["extensions"] = [{"at_step": 1000, "to_steps": 2000}]
    text = text_of(render_card(run))
    assert "This is the student of step 1,200, the best by top-1 on the split `val` (81.2 %)." in text
    assert "The training ended early: 4 measurements in a row were no better." in text
    assert "extended at step 1,000 to 2,000 steps" in text and "also chose it" not in text
    measured |= {"metric": "corrupted", "corruptions": ["fog"], "is_loaded": True, "is_evaluation": True}
    run["rows"]["TransInv"]["validation"] = measured
    text = text_of(render_card(run))
    assert "chosen by its accuracy under fog" in text and "also chose it: its figures are too high" in text
    run["rows"]["TransInv"]["validation"] = {"split": "val", "figures": {}}
    assert "This is the student of step" not in text_of(render_card(run))


def test_a_teacher_of_a_corruption_is_marked():
    run = record()
    run |= {"recipe": "train_teacher", "objective": "supervised", "teachers": []}
    run["config"] |= {"teachers": [], "primitives": [], "corruption": ["contrast"], "clean_share": 0.25}
    run["config"]["severities"] = [1, 2, 3]
    run["rows"] = {"TransInv": run["rows"]["TransInv"] | {"learned": {}}}
    text = text_of(render_card(run))
    assert "| corruption | severity 1 | severity 5 | mean |" in text
    assert "| contrast \\* | 63.5 | 23.5 | 43.5 |" in text and "| gaussian noise | 51.2 | 31.2 | 41.2 |" in text
    assert "Mean of the 1 that it was not trained on: 41.2 %." in text
    assert "75 % of the images were corrupted: contrast, severity 1 to 3." in text
    assert "Teachers" not in text and "r: how often" not in text and "TransInv:" not in text


ABSENT = {
    "student": (["parameters", "pixels", "11.18"], ["num_parameters", "input_size", "mean"]),
    "magnitudes": (["magnitudes", "0.051", "quantile"], []),
    "figures": (["![", "figures/"], []),
    "citations": (["Citation", "bibtex"], []),
    "teachers": (["`vit`", "classes |", "defocus"], []),
    "versions": (["torch 2.15.0"], []),
    "hardware": (["CPU cores"], []),
    "commit": (["0123456789ab"], []),
    "command": (["```bash"], []),
    "dataset": (["training images)", "split `test`"], []),
    "objective": ([], []),
    "main_row": ([], []),
    "name": ([], []),
}


@pytest.mark.parametrize("part", ABSENT)
def test_nothing_is_said_about_what_is_not_recorded(part):
    run = record()
    del run[part]
    card = render_card(run)
    assert not [word for word in ABSENT[part][0] if word in text_of(card)]
    assert not re.search(r"(?<!\[)None|Undefined|\bnan\b|\n\n\n\n", card)


@pytest.mark.parametrize("part", ["top5", "ece", "nll"])
def test_a_score_that_was_not_measured_has_no_column(part):
    run = record()
    for row in run["rows"].values():
        del row["results"]["clean"][part]
    card = render_card(run)
    title = {"top5": "top-5", "ece": "ECE", "nll": "NLL"}[part]
    assert f"| {title} |" not in card and "– |" not in card


def test_without_corruptions_none_are_spoken_of(tmp_path):
    run = record()
    for row in run["rows"].values():
        row["results"] |= {"corruptions": {}, "corruption_mean": None, "corruption_ece": None, "corruption_errors": {}}
    card = render_card(run)
    assert "corrupted" not in card and "Hendrycks" not in card and "mCE" not in card
    assert "Measured on clean images only." in card
    _, results = model_index_to_eval_results(metadata_of(card, tmp_path)["model-index"])
    assert len(results) == 4


def test_augmented_images_have_columns_where_they_were_measured():
    run = record()
    assert "Augmented images" not in render_card(run)
    run["rows"]["TransInv"]["results"]["augmented"] = {
        "pad_crop": {"top1": 77.75, "kl": 0.0625, "feature_distance": 1.5},
        "grayscale": {"top1": 33.5, "kl": 1.125, "feature_distance": None},
    }
    for row in run["rows"].values():
        row["results"] |= {"corruptions": {}, "corruption_mean": None, "corruption_ece": None, "corruption_errors": {}}
    text = text_of(render_card(run))
    assert "| model | top-1 | top-5 | NLL | ECE | top-1, pad crop | top-1, grayscale |" in text
    assert "| TransInv | 81.1 | 99.1 | 1.234 | 0.087 | 77.8 | 33.5 |" in text
    assert "| crop + flip | 71.5 | 99.1 | 1.234 | 0.087 | – | – |" in text
    assert "from those on the originals is 0.062 (pad crop) and 1.125 (grayscale) nats" in text
    assert "Measured on clean images only" not in text


def test_a_record_of_next_to_nothing_renders(tmp_path):
    row = {"results": {"num_images": 4, "clean": {"top1": 50.0}}}
    card = render_card({"recipe": "train_teacher", "config": {"dataset": "x/y"}, "rows": {"teacher": row}})
    assert "On 4 held-out images it reaches 50.0 % top-1." in card and not re.search(r"(?<!\[)None", card)
    assert "datasets" not in metadata_of(card, tmp_path)


def test_a_run_without_results_is_refused():
    with pytest.raises(InputError, match="no results yet"):
        render_card(record() | {"rows": {}})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("rows.TransInv.results.clean.top1", "high", "expected a number, found 'high'"),
        ("rows.TransInv.results.corruptions.contrast", {"1": 5.0}, "corruptions.contrast.mean is missing"),
        ("rows.TransInv.results.classes.f1", [1.0], "f1: expected 5 entries, one per class"),
        ("rows.TransInv.results.classes.recall", ["a"] * 5, r"recall\[0\]: expected a number, found 'a'"),
        ("rows.TransInv.learned.p", [[0.75, None], [0.5, 0.5]], r"p\[0\]\[1\]: expected a number, found None"),
        ("rows.TransInv.learned.q", [0.5], "q has 1 entries for 2 teachers"),
        ("rows.TransInv.steps", True, "expected a whole number, found True"),
        ("config.dataset", None, "expected text, found None"),
        ("config.student_init", "teacher:3", "expected teacher:1 to teacher:2, found teacher:3"),
        ("main_row", "AIT", "expected one of rows, found 'AIT'"),
        ("student.mean", 0.5, "expected a list, found 0.5"),
        ("magnitudes", [{"gaussian_noise": [{"name": "x"}]}], r"gaussian_noise\[0\].unit is missing"),
        ("commit", "\ud800", "expected text in Unicode"),
    ],
)
def test_a_field_that_no_run_writes_is_named(path, value, said):
    run = record()
    *parents, name = path.split(".")
    place = run
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(InputError, match=f"run.json.*{said}"):
        render_card(run)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.delattr("hf_transinv.hub.card_about.training")
    with pytest.raises(AttributeError):
        render_card(record())


# Strings of users


NASTY = "a|b\n---\nlicense: evil `x` <script> [l](u) *s* {{ 7 * 7 }} {% raw %} #\"'\\"


def test_strings_of_users_do_no_harm(tmp_path):
    run = record()
    run["name"] = run["config"]["license"] = NASTY
    run["dataset"] |= {"name": NASTY, "kind": "local", "eval_split": NASTY}
    run["teachers"][0] |= {"name": NASTY, "hub_id": None, "architecture": NASTY}
    run["student"] |= {"label_names": [NASTY, *NAMES[1:]], "architecture": NASTY, "is_own_architecture": True}
    run["rows"] = {"TransInv": run["rows"]["TransInv"], NASTY: run["rows"]["crop + flip"]}
    run["rows"]["TransInv"]["warnings"] = run["citations"] = [NASTY + "\n````\n# Mine"]
    run["config"]["note"] = NASTY + "\n```\n# Mine"
    card = render_card(run)
    metadata = metadata_of(card, tmp_path)
    assert metadata["license"] == " ".join(NASTY.split()) == metadata["model-index"][0]["name"]
    assert metadata["pipeline_tag"] == "image-classification" and "datasets" not in metadata
    text = text_of(card)
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.S | re.M)
    assert "# Mine" not in re.sub(r"\\#", "", outside) and "49" not in outside
    bare = re.sub(r"\\.|`[^`\n]*`", "", outside)
    assert not re.search(r"<script|\[l\]\(u\)|^license", bare, flags=re.M)
    for block in re.findall(r"(?:^\|.*\n)+", outside, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_no_absolute_path_leaves_the_machine():
    run = record()
    run["config"] |= {"frost_folder": "/data/frost", "note": "see /home/me/notes.txt and https://huggingface.co/a/b"}
    run["rows"]["TransInv"]["warnings"] = ["/home/me/blur/student has collapsed", "C and/or 5/6"]
    run["command"] = (
        "/opt/x/multi_teacher.py --a=/home/me/x.yaml --teachers resnet32_cifar:/home/me/w 'local-dir:/h/m'"
    )
    for text in (render_card(run), json.dumps(published(run))):
        assert not re.search(r"/home|/data/frost|/opt|/h/m", text)
        assert "https://huggingface.co/a/b" in text and "and/or 5/6" in text
        assert "blur/student has collapsed" in text
    assert published({"a": ["/x/y", "lab/pictures", r"C:\Users\me\run", 3, None]}) == {
        "a": ["y", "lab/pictures", "run", 3, None]
    }
    outside = ["../data/cifar10", "resnet32_cifar:../../w", "train.py --dataset ../x/y --seed 0", "a/../b", "1../2"]
    assert published(outside) == ["cifar10", "resnet32_cifar:w", "train.py --dataset y --seed 0", "a/../b", "1../2"]


@pytest.mark.parametrize(
    ("command", "processes", "precision", "shown"),
    [
        ("recipes/train.py --seed 1", 1, "no", "python recipes/train.py --seed 1"),
        ("recipes/train.py --seed 1", 1, "bf16", "accelerate launch --mixed_precision bf16 recipes/train.py --seed 1"),
        ("transinv train --seed 1", 2, "bf16", "transinv train --num_processes 2 --mixed_precision bf16 --seed 1"),
        ("transinv train --seed 1", 1, "no", "transinv train --seed 1"),
    ],
)
def test_the_command_can_be_given_again(command, processes, precision, shown):
    run = record()
    run["command"] = command
    run["hardware"] |= {"processes": processes, "mixed_precision": precision}
    assert f"```bash\n{shown}\n```" in render_card(run)


def test_many_labels_are_cut_short():
    run = record()
    run["student"] |= {"num_classes": 100, "label_names": [f"name{index}" for index in range(20)]}
    assert "100 classes (name0, name1, name2, name3, name4, name5 and 94 more)" in render_card(run)


# Pictures


@pytest.mark.parametrize("repo_id", [None, "me/s"])
def test_pictures_lie_in_the_folder_of_the_card(tmp_path, repo_id):
    (tmp_path / "figures").mkdir()
    for name in ("augmentation", "confusion", "errors"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(name.encode())
    card = render_card(record(), repo_id=repo_id)
    shown = [tmp_path / path for path in shown_figures(read_run(record()))]
    folder = export_classifier(
        open_classifier("wrn10_1_cifar", num_classes=5, pretrained=False),
        tmp_path / "student",
        card=card,
        figures=shown,
    )
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", card)
    assert links == ["figures/augmentation.png", "figures/confusion.png"]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["augmentation.png", "confusion.png"]
    assert all((folder / link).read_bytes() == (tmp_path / link).read_bytes() for link in links)
    assert card.index("figures/augmentation.png") < card.index("## Model details")
    assert card.index("## Results") < card.index("figures/confusion.png") < card.index("## Teachers")


@pytest.mark.parametrize(
    ("figures", "top"),
    [
        (["selection", "confusion", "corruption_heatmap"], "corruption_heatmap"),
        (["curves", "errors", "confusion"], "confusion"),
        (["errors"], "errors"),
        (["curves", "per_class"], None),
    ],
)
def test_one_picture_stands_near_the_top(figures, top):
    run = record() | {"figures": [f"figures/{name}.png" for name in figures]}
    text = render_card(run)
    links = re.findall(r"!\[[^\]]*\]\(figures/(\w+)\.png\)", text.partition("## Model details")[0])
    assert links == ([top] if top else [])
    assert text.count("![") == len(shown_figures(read_run(run))), "each figure once"


def test_the_command_brings_the_pictures_to_the_card(tmp_path, monkeypatch):
    """An output folder of an earlier version, whose card links to pictures outside of its folder."""
    (tmp_path / "student").mkdir()
    (tmp_path / "figures").mkdir()
    for name in ("augmentation", "confusion"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"picture")
    (tmp_path / "run.json").write_text(json.dumps(record()))
    monkeypatch.setattr(sys, "argv", ["render_card.py", str(tmp_path)])
    render_again()
    assert (tmp_path / "student" / "README.md").read_text() == render_card(record())
    assert (tmp_path / "student" / "figures" / "augmentation.png").read_bytes() == b"picture"


# Details


def test_the_details_are_those_of_timms_cards():
    run = record()
    run["student"]["gmacs"] = 0.0834
    run["citations"].append("@article{b, title = {{HARD}: Words},\n  journal = {arXiv preprint arXiv:2305.14890}\n}")
    run["citations"].append(
        "@article{c,\n  title   = {{HARD}: Words},\n  journal = {arXiv preprint arXiv:2305.14890}\n}"
    )
    text = text_of(render_card(run))
    told = text[text.index("## Model details") : text.index("## How to use")]
    for line in (
        "- **Model Type:** Image classification",
        "  - Params (M): 11.18",
        "  - GMACs: 0.083",
        "  - Image size: 48 x 48",
        "  - A Method",
        "  - [HARD: Words](https://arxiv.org/abs/2305.14890)",
        "- **Dataset:** [lab/pictures](https://huggingface.co/datasets/lab/pictures)",
        "- **Started from:** [timm/resnet18.a1\\_in1k](https://huggingface.co/timm/resnet18.a1_in1k)",
        "- **Teachers:** [lab/noisy](https://huggingface.co/lab/noisy), `blur`",
    ):
        assert f"\n{line}\n" in told, line
    assert "GMACs" not in render_card(record()) and "Activations" not in told


def test_every_citation_of_a_method_is_a_paper_among_the_details():
    known = [kind.citation for kind in (*METHODS.values(), *LEARNED.values(), *POLICIES.values()) if kind.citation]
    for citation in (*known, LP_FT, WISE_FT):
        assert "- **Papers:**\n  - " in render_card(record() | {"citations": [citation]}), citation


def test_multiply_adds_are_those_of_the_layers():
    """Of a convolution, outputs x inputs x kernel area x places; of attention, two products of all pairs of tokens."""
    student = open_classifier("test_vit", num_classes=5, pretrained=False)
    vit = student.network
    tokens, width = vit.patch_embed.num_patches + 1, vit.embed_dim
    patches = vit.patch_embed.num_patches * width * 3 * vit.patch_embed.patch_size[0] ** 2
    hidden = vit.blocks[0].mlp.fc1.out_features
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    by_hand = patches + len(vit.blocks) * block + 5 * width
    before = copy.deepcopy(student.state_dict())
    assert giga_multiply_adds(student) == pytest.approx(by_hand / 1e9, rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert describe_student(student).gmacs == pytest.approx(by_hand / 1e9, rel=1e-3)


def test_whether_the_library_has_to_be_installed_is_said():
    text = render_card(record())
    assert "There is no need to install `hf_transinv`: plain timm or transformers loads it." in text
    assert 'the first block loads it by the name `"hf-hub:USER/NAME"`' in text
    of_hub = render_card(record(), repo_id="me/s", revision="v2")
    assert "`hf download me/s --revision v2`" in of_hub and "USER/NAME" not in of_hub
    run = record()
    run["student"] |= {"architecture": "wrn10_1_cifar", "is_own_architecture": True}
    own = render_card(run)
    assert "`pip install git+https://github.com/hf-transinv/hf_transinv`" in own and "no need" not in own
    run["student"] |= {"library": "transformers", "is_own_architecture": False}
    assert "plain transformers loads it" in render_card(run)


def test_baselines_are_shown_and_their_absence_is_said():
    run = record()
    assert "| crop + flip | 71.5" in render_card(run) and "No baseline" not in render_card(run)
    run["rows"]["TransInv, EMA"] = run["rows"].pop("crop + flip")
    assert "No baseline was trained beside it" in render_card(run)
    assert "No baseline was trained beside it" in render_card(run | {"main_row": "TransInv, EMA"})


def test_a_probability_of_nothing_is_smaller_than_the_largest():
    run = record()
    run["rows"]["TransInv"]["learned"]["p"] = [[0.9988, 0.0012], [0.5, 0.5]]
    text = render_card(run)
    assert "| **1.00** | <sub>0.00</sub> |" in text and "| **0.50** | **0.50** |" in text


# Settings


def settings_of(card: str) -> dict:
    return yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", card, flags=re.S | re.M).group(1))


def every_option(**given) -> dict:
    """A configuration as a run records it, with the options of all methods."""
    groups = (DataConfig, StudentConfig, TrainConfig, OutputConfig, *GROUPS)
    required = {"max_steps": 9, "student": "wrn10_1_cifar", "dataset": "x/y"}
    options = [
        group(**{f.name: v for f in fields(group) if (v := (required | given).get(f.name)) is not None})
        for group in groups
    ]
    return json.loads(json.dumps(as_dict(*options)))


@pytest.mark.parametrize(
    ("given", "shown", "left_out"),
    [
        (
            {},
            {"seed", "flip", "crop", "momentum"},
            {"ema_decay", "shuffle_buffer", "mixup", "p_entropy", "severities"},
        ),
        ({"streaming": True, "ema": "beside"}, {"streaming", "shuffle_buffer", "ema_decay"}, {"tolerance"}),
        ({"augment": ("randaugment",)}, {"randaugment_ops"}, {"cutout_size", "augmix_severity", "latent_dim"}),
        ({"augment": ("fixed_aug",)}, {"geometric_range"}, {"inner_steps", "augment_learning_rate"}),
        (
            {"augment": ("transinv",), "teachers": ("ema",), "corruption": ("fog",)},
            {
                "tolerance",
                "latent_dim",
                "augment_learning_rate",
                "selection_learning_rate",
                "ema_decay",
                "clean_share",
            },
            {"gumbel_hard", "hard_upper", "distill_top_k", "jsd_weight"},
        ),
        ({"augment": ("transinv",), "objective": "paper", "estimator": "gumbel"}, {"gumbel_hard"}, {"multipliers"}),
        ({"method": "hard"}, {"hard_upper", "augment_learning_rate"}, {"selection_learning_rate", "tolerance"}),
        ({"method": "distillation", "flip": False}, {"distill_temperature", "flip"}, {"ait_lambda", "flop"}),
        ({"eval_corruptions": ("none",)}, {"eval_corruptions"}, {"eval_severities"}),
    ],
)
def test_only_settings_that_had_an_effect_are_listed(given, shown, left_out):
    run = record()
    run["config"] = every_option(**given) | {"unknown_to_this_version": 0}
    learned = [name for name in given.get("augment", ()) if name == "transinv"]
    run["task"] = given.get("method", "supervised")
    run["objective"] = learned[0] if learned else run["task"]
    run["teachers"], run["rows"]["TransInv"]["learned"], run["magnitudes"] = [], {}, []
    found = settings_of(render_card(run))
    assert shown | {"unknown_to_this_version", "batch_size", "optimizer"} <= found.keys()
    assert not left_out & found.keys()
    assert not {"output_dir", "logging_steps", "ddp_timeout"} & found.keys() and None not in found.values()


# What is recorded


def test_a_student_is_described():
    student = open_classifier("wrn10_1_cifar", num_classes=5, label_names=NAMES, pretrained=False)
    described = describe_student(student)
    assert described.architecture == "wrn10_1_cifar" and described.is_own_architecture is True
    assert described.num_parameters == sum(math.prod(p.shape) for p in student.parameters())
    assert described.mean == (0.4914, 0.4822, 0.4465) and described.input_size == (32, 32)
    assert read_as(Student, json.loads(json.dumps(as_json(described))), "student") == described
    assert not describe_student(open_classifier("test_vit", pretrained=False)).is_own_architecture


def test_magnitudes_are_those_of_the_primitive():
    panel = AugmentationPanel(2, AugmentationConfig(primitives=("gaussian_noise", "contrast:3")))
    with torch.no_grad():
        panel.models[1].primitives[0].last.weight.zero_()
        panel.models[1].primitives[0].last.bias.zero_()
    first, second = describe_magnitudes(panel, seed=0)
    assert first.keys() == second.keys() == {"gaussian_noise"}
    (noise,) = second["gaussian_noise"]
    assert noise["quantiles"] == pytest.approx((0.06, 0.06, 0.06)) and noise["high"] == pytest.approx(0.12)
    low, middle, high = first["gaussian_noise"][0]["quantiles"]
    assert 0 < low < middle < high < 0.12
    assert describe_magnitudes(panel, seed=0) == [first, second]


def test_only_repositories_have_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "lab" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_id("hf-hub:lab/a@v1") == hub_id("hf_hub:lab/a") == hub_id("lab/a@v1") == "lab/a"
    assert hub_id("resnet18.a1_in1k") == "timm/resnet18.a1_in1k"
    for name in ("ema", "lab/here", "/x/y", "../x", "resnet32_cifar:lab/here", "local-dir:x/y", "wrn10_1_cifar"):
        assert hub_id(name) is None


# The code in the card


def exported(folder: Path, name: str) -> tuple[dict, Classifier]:
    """A tiny student of that architecture in folder/student with its card; its record."""
    torch.manual_seed(0)
    if name == "vit":
        student = open_classifier(str(tiny_transformer(folder / "vit")), num_classes=5, label_names=NAMES)
    else:
        student = open_classifier(name, num_classes=5, label_names=NAMES, pretrained=False)
    run = record() | {"student": as_json(describe_student(student))}
    export_classifier(student, folder / "student", card=render_card(run))
    panel = AugmentationPanel(2, AugmentationConfig(primitives=("gaussian_noise", "gaussian_blur")))
    save_augmentation(panel, ["lab/noisy", "blur"], folder / "augmentation")
    Image.new("RGB", (40, 30), "red").save(folder / "image.png")
    return run, student


def tiny_transformer(folder: Path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=30, patch_size=10, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 30, "width": 30}).save_pretrained(folder)
    return folder


EACH_BY_ITSELF = """
import contextlib, io, json, sys
knows_us, codes = json.load(sys.stdin)
if not knows_us:
    sys.modules["hf_transinv"] = None
answers = []
for code in codes:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "card", "exec"), {})
    answers.append(said.getvalue())
json.dump(answers, sys.stdout)
"""


def run_codes(folder: Path, codes: list[str], knows_us: bool) -> list[str]:
    """What each block prints in a new process in that folder, where the package can be imported or cannot."""
    command, given = [sys.executable, "-c", EACH_BY_ITSELF], json.dumps([knows_us, codes])
    options = {"cwd": folder, "env": environment(folder), "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, input=given, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "blocks"), [("wrn10_1_cifar", 2), pytest.param("test_resnet", 2, marks=pytest.mark.slow), ("vit", 2)]
)
def test_the_code_in_the_card_runs_as_printed(tmp_path, name, blocks):
    run, _ = exported(tmp_path, name)
    card = (tmp_path / "student" / "README.md").read_text()
    *codes, of_augmentation = re.findall(r"^```python\n(.*?)^```$", card, flags=re.S | re.M)
    assert len(codes) == blocks
    run_codes(tmp_path, [of_augmentation], knows_us=True)
    given, deformed = (Image.open(tmp_path / name) for name in ("image.png", "augmented.png"))
    assert deformed.size == given.size and deformed.mode == "RGB"
    own = run["student"]["is_own_architecture"]
    assert all(("import hf_transinv" in code) is own for code in codes)
    answers = run_codes(tmp_path, codes, knows_us=own)
    pipeline = next(answer for answer, code in zip(answers, codes, strict=True) if "pipeline" in code)
    found = {answer["label"]: answer["score"] for answer in yaml.safe_load(pipeline)}
    assert set(found) == set(NAMES)
    if name != "vit":
        lines = [line.split() for line in answers[0].splitlines()]
        assert len(lines) == 3
        assert all(float(probability) == pytest.approx(found[label], abs=2e-3) for probability, label in lines)


def test_a_repository_is_named_in_the_code():
    card = render_card(record(), repo_id="me/student", revision="v2")
    assert 'timm.create_model("hf-hub:me/student@v2", pretrained=True)' in card
    assert 'pipeline("image-classification", model="me/student", revision="v2")' in card
    assert "in the directory it runs in" not in card
    assert 'LearnedAugmentation.from_pretrained("me/student", revision="v2", seed=0)' in card


def test_what_was_learned_is_offered_where_p_was_learned():
    run = record()
    assert "## Use the learned augmentation" in render_card(run)
    assert "a draw of its own from r, q and p above" in render_card(run)
    del run["rows"]["TransInv"]["learned"]["r"]
    assert "a draw of its own from q and p above" in render_card(run)
    run["rows"]["TransInv"]["learned"] = {}
    assert "LearnedAugmentation" not in render_card(run)


# The checkpoints of this project


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_cards_are_those_of_their_records(folder, tmp_path):
    run = json.loads((folder / "run.json").read_text())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == render_card(run, folder=folder.name)
    assert metadata_of(card, tmp_path)["library_name"] == "timm"


def test_rendering_leaves_the_record_as_it_is():
    run = record()
    before = copy.deepcopy(run)
    render_card(run)
    assert run == before
