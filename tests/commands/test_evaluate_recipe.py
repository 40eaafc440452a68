"""The evaluation recipe as users launch it, and what it leaves behind."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from hf_transinv.augment.corruptions import corrupt
from hf_transinv.data.decoding import decode_image
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.evaluation import evaluate
from hf_transinv.formats.terminal import for_terminal
from hf_transinv.hub.export import export_classifier
from hf_transinv.models.classifier import open_classifier
from tests.launching import ACCELERATE, EVALUATE, TWO_PROCESSES, succeed, tiny_vit_folder

DATA = ["--dataset", "digits/target", "--image_size", 32]
FEW = ["--eval_corruptions", "gaussian_noise", "contrast", "--eval_severities", 2, 5, "--seed", 3]
FEW += ["--augment", "pad_crop", "grayscale"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds `model`, a tiny network of the digits 5 to 9, exported; its training imitated fog."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(2)
    names = ["5", "6", "7", "8", "9"]
    model = open_classifier("wrn10_1_cifar", num_classes=5, label_names=names, pretrained=False)
    export_classifier(model, folder / "model", extra={"kin": ["fog"]})
    return folder


@pytest.fixture(scope="module")
def resident() -> ResidentSplit:
    return ResidentSplit.load(open_source("digits/target", split="test"), image_size=32, show_progress=False)


@pytest.fixture(scope="module")
def finished(folder):
    flags = ["--model", "model", *DATA, *FEW, "--trained_on", "contrast", "--output_dir", "out"]
    return succeed(ACCELERATE, EVALUATE, *flags, cwd=folder), folder / "out"


def results_of(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())["results"]


def test_the_record_says_what_was_evaluated_and_how(finished, folder, resident):
    record = json.loads((finished[1] / "evaluation.json").read_text())
    said = {name: record[name] for name in ("model", "dataset", "split", "revision", "processes", "precision")}
    assert said == {
        "model": "model",
        "dataset": "digits/target",
        "split": "test",
        "revision": None,
        "processes": 1,
        "precision": "no",
    }
    assert record["config"]["trained_on"] == ["contrast"] and record["config"]["seed"] == 3
    assert record["seconds"] > 0 and record["versions"]["torch"]
    torch.set_num_threads(1)
    asked = {"corruptions": ("gaussian_noise", "contrast"), "severities": (2, 5)}
    asked["augmentations"] = ("pad_crop", "grayscale")
    expected = evaluate(open_classifier(str(folder / "model")), resident, seed=3, show_progress=False, **asked)
    assert record["results"] == expected
    assert record["kin"] == ["fog"]


def test_the_table_is_on_the_terminal_and_in_the_folder(finished):
    done, out = finished
    table = (out / "evaluation.md").read_text()
    assert for_terminal(table, 80) in done.stdout and "evaluation.json are in out" in done.stdout
    assert "| corruption | 2 | 5 | mean |" in table and "| gaussian noise |" in table
    assert "| augmented by | top-1 | KL | feature distance |" in table and "| pad crop |" in table
    assert table.count("\\*") == 7 and "mean error" in table and "seed 3" in table
    assert "Macro F1" in table and "| class | images | recall | precision | F1 |" in table
    with Image.open(out / "corruption_heatmap.png") as picture:
        assert min(picture.size) > 200


def test_two_processes_and_a_stream_give_the_digits_of_one(finished, folder):
    flags = ["--model", "model", *DATA, *FEW, "--eval_batch_size", 500, "--streaming", "--output_dir", "two"]
    succeed(TWO_PROCESSES, EVALUATE, *flags, cwd=folder, ACCELERATE_USE_CPU="true")
    assert results_of(folder / "two") == results_of(finished[1])
    for name in ("confusion", "errors", "per_class"):
        both = {(out / "figures" / f"{name}.png").read_bytes() for out in (folder / "two", finished[1])}
        assert len(both) == 1 and len(both.pop()) > 1000


def test_corrupted_images_from_a_folder_in_bfloat16(folder, resident):
    first = ResidentSplit(resident.images[:100], resident.labels[:100], resident.label_names)
    images = [corrupt(first.images.float() / 255, "contrast", severity) for severity in range(1, 6)]
    levels = (torch.cat(images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    (folder / "C").mkdir()
    np.save(folder / "C" / "contrast.npy", levels.numpy())
    np.save(folder / "C" / "labels.npy", first.labels.repeat(5).numpy())
    flags = ["--model", "model", *DATA, "--eval_split", "test[:100]", "--eval_corruptions", "contrast"]
    flags += ["--corrupted_folder", "C", "--output_dir", "bfloat16"]
    succeed([*ACCELERATE, "--cpu", "--mixed_precision", "bf16"], EVALUATE, *flags, cwd=folder)
    torch.set_num_threads(1)
    model = open_classifier(str(folder / "model"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = evaluate(model, first, corruptions=("contrast",), show_progress=False)
    assert results_of(folder / "bfloat16") == made
    assert made["clean"]["nll"] != evaluate(model, first, show_progress=False)["clean"]["nll"]


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs the recipe's own file in this process; returns its exit code and what it wrote to stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def start(*flags: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(EVALUATE), *map(str, flags)])
        try:
            runpy.run_path(str(EVALUATE), run_name="__main__")
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return start


def test_a_held_out_share_or_a_split(run):
    code, said = run("--model", "model", *DATA, "--validation_share", 0.2, "--eval_split", "test")
    assert code == 2 and "give validation_share or eval_split test, not both" in said


def test_pictures_of_other_sizes_are_brought_to_the_models(folder, run):
    """No --image_size: the first picture is no square, so all take the model's 32 pixels."""
    rng = np.random.default_rng(0)
    for label in ("5", "6", "7", "8", "9"):
        (folder / "pictures" / "test" / label).mkdir(parents=True)
        for number, size in enumerate(((40, 50), (33, 33))):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / "test" / label / f"{number}.png")
    tiny_vit_folder(folder / "vit", ["5", "6", "7", "8", "9"])
    flags = ["--model", "vit", "--dataset", "./pictures", "--eval_corruptions", "none", "--output_dir", "sizes"]
    code, said = run(*flags)
    assert code == 0, said
    record = json.loads((folder / "sizes" / "evaluation.json").read_text())
    assert record["results"]["num_images"] == 10 and record["config"]["image_size"] == 32
    assert not (folder / "sizes" / "corruption_heatmap.png").exists()


@pytest.fixture(scope="module")
def cropping(folder) -> Path:
    """A model whose checkpoint resizes to 40 px and crops 32, and pictures of many shapes, with its own answers."""
    torch.manual_seed(3)
    names = ["ant", "bee", "cat"]
    network = timm.create_model("test_resnet", num_classes=3)
    network.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bicubic"}
    timm.models.save_for_hf(network, folder / "crops", model_config={"label_names": names}, safe_serialization=True)
    rng = np.random.default_rng(1)
    for label in names:
        (folder / "shapes" / "test" / label).mkdir(parents=True)
        for number, (height, width) in enumerate(((40, 50), (61, 47), (32, 32), (200, 30), (33, 90))):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "shapes" / "test" / label / f"{number}.png")
    return folder


@torch.inference_mode()
def test_as_published_is_as_timm_validates(cropping, run):
    """Top-1 and NLL of timm's transform and forward pass, picture by picture; corruptions of the cropped picture."""
    flags = ["--model", "crops", "--dataset", "./shapes", "--protocol", "published", "--eval_severities", 3]
    code, said = run(*flags, "--eval_corruptions", "gaussian_noise", "--output_dir", "published")
    assert code == 0, said
    network = timm.create_model("local-dir:crops", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    files = sorted((cropping / "shapes" / "test").glob("*/*.png"))
    logits = torch.cat([network(transform(Image.open(file))[None]) for file in files])
    labels = torch.arange(3).repeat_interleave(5)
    record = json.loads((cropping / "published" / "evaluation.json").read_text())
    clean = record["results"]["clean"]
    assert clean["top1"] == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
    assert clean["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert record["protocol"] == "published" and record["results"]["num_images"] == 15
    own = "Preprocessing as published: timm's 32x32, crop_pct 0.8, crop_mode center, bicubic."
    assert record["preprocessing"] == own and own in (cropping / "published" / "evaluation.md").read_text()
    classifier = open_classifier("crops").eval()
    pictures = torch.stack([classifier.published(decode_image(str(file), "here")) for file in files])
    expected = evaluate(classifier, ResidentSplit(pictures, labels, ["ant", "bee", "cat"]), show_progress=False)
    assert clean["top1"] == expected["clean"]["top1"]
    made = evaluate(
        classifier,
        ResidentSplit(pictures, labels, ["ant", "bee", "cat"]),
        **{"corruptions": ("gaussian_noise",), "severities": (3,), "show_progress": False},
    )
    assert record["results"]["corruptions"] == made["corruptions"]


def test_by_default_what_differs_is_said(cropping, run):
    flags = ["--model", "crops", "--dataset", "./shapes", "--eval_corruptions", "none"]
    code, said = run(*flags, "--output_dir", "uniform")
    assert code == 0, said
    record = json.loads((cropping / "uniform" / "evaluation.json").read_text())
    assert record["protocol"] == "uniform" and record["preprocessing"] == (
        "Measured with the shorter side to 32 px, centre crop 32; the checkpoint's own protocol is timm's 32x32, "
        "crop_pct 0.8, crop_mode center, bicubic: --protocol published."
    )
    assert record["preprocessing"] in (cropping / "uniform" / "evaluation.md").read_text()


def test_an_export_of_ours_is_measured_as_published(finished, folder):
    """Nothing to say: the export says what the evaluation does."""
    record = json.loads((finished[1] / "evaluation.json").read_text())
    assert record["protocol"] == "uniform" and record["preprocessing"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "digits/target"], "no model given: --model"),
        (["--model", "model"], "no dataset given: --dataset"),
        (["--model", "nowhere", *DATA], "Unknown model 'nowhere'"),
        (["--model", "model", *DATA, "--trained_on", "fogg"], "Unknown corruption 'fogg'"),
        (["--model", "model", *DATA, "--eval_corruptions", "fogg"], "eval_corruptions fogg: unknown"),
        (["--model", "model", *DATA, "--augment", "crop"], "under crop: unknown; there are pad_crop, grayscale"),
        (["--model", "model", *DATA, "--corrupted_folder", "nowhere"], "corrupted_folder nowhere is not a folder"),
        (["--model", "model", *DATA, "--corrupted_folder", "C", "--frost_folder", "F"], "not both"),
        (["--model", "model", "--dataset", "digits/source", "--match_labels"], "5 of the data's 5 classes have no"),
        (["--model", "model", *DATA, "--learning_rate", 1], "unknown flag 'learning_rate'"),
        (["--model", "model", *DATA, "--protocol", "published"], "leave out --image_size"),
        (
            ["--model", "model", *DATA[:2], "--protocol", "published", "--corrupted_folder", "C"],
            "those images are cropped already",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(run, flags, said):
    code, errors = run(*flags)
    lines = errors.strip().splitlines()
    assert code == 2 and said in lines[-1] and lines[-1].startswith("error: ")


def test_a_folder_that_holds_something_is_not_overwritten(finished, folder, run):
    flags = ["--model", "model", *DATA, *FEW, "--output_dir", "out"]
    before = (folder / "out" / "evaluation.json").read_bytes()
    code, said = run(*flags)
    assert code == 2 and said.strip().endswith("give another --output_dir")
    assert (folder / "out" / "evaluation.json").read_bytes() == before
