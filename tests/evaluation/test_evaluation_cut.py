"""A student is measured by the tools on the squares that its run was evaluated on: its export records the cut."""

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from hf_transinv.commands import invariance_report
from hf_transinv.commands.evaluation_images import ImagesConfig
from hf_transinv.config import DataConfig
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.data.run_data import Data, open_data
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from hf_transinv.hub.export import export_classifier
from hf_transinv.models import Teacher, open_classifier

SIDE = 32
CUT: dict[str, Any] = {"image_size": SIDE, "eval_crop_pct": 0.875, "interpolation": "bicubic"}
# Fields of DataConfig that say which pictures there are and what they show.
WHICH = {"dataset", "dataset_config", "dataset_revision", "train_split", "eval_split", "validation_share"}
WHICH |= {"validation_fold", "validation_split", "image_column", "label_column", "on_bad_image"}
# Fields of training alone, each with another value than the default and what it needs.
OF_TRAINING: dict[str, dict[str, Any]] = {
    "streaming": {"streaming": True},
    "shuffle_buffer": {"shuffle_buffer": 5},
    "label_noise": {"label_noise": 0.5},
    "crop": {"crop": "resized"},
    "crop_scale": {"crop": "resized", "crop_scale": (0.1, 0.2)},
    "crop_ratio": {"crop": "resized", "crop_ratio": (0.5, 2.0)},
    "stored_size": {"crop": "resized", "stored_size": 40},
    "flip": {"flip": False},
}
OF_THE_CUT: dict[str, dict[str, Any]] = {
    name: {**CUT, name: other}
    for name, other in {"image_size": 24, "eval_crop_pct": 1.0, "interpolation": "bilinear"}.items()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many shapes, none of them a square."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("ant", "bee", "cat"):
            (folder / split / label).mkdir(parents=True)
            for number, (height, width) in enumerate(((40, 50), (61, 47), (18, 90), (33, 20))):
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


def opened(folder: Path, **options: Any) -> Data:
    return open_data(DataConfig(str(folder), **(CUT | options)), Accelerator(cpu=True))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Path]:
    """The data of a run, and its student's export."""
    data = opened(folder)
    torch.manual_seed(0)
    student = open_classifier("wrn10_1_cifar", label_names=data.label_names, num_classes=3, pretrained=False)
    place = tmp_path_factory.mktemp("run") / "student"
    return data, export_classifier(student, place, **data.evaluated_as)


def test_every_field_that_changes_the_evaluation_images_is_in_the_mark(folder: Path) -> None:
    """A new field of DataConfig belongs to one of the three groups, and does what its group says."""
    assert {field.name for field in fields(EvaluationCut)} == OF_THE_CUT.keys()
    known = [*WHICH, *OF_TRAINING, *OF_THE_CUT]
    assert sorted(known) == sorted(field.name for field in fields(DataConfig))
    plain = opened(folder)
    for options in OF_TRAINING.values():
        data = opened(folder, **options)
        assert torch.equal(data.evaluation.images, plain.evaluation.images)
        assert data.evaluated_as == plain.evaluated_as
    for name, options in OF_THE_CUT.items():
        data = opened(folder, **options)
        assert not torch.equal(data.evaluation.images, plain.evaluation.images), name
        assert data.evaluated_as != plain.evaluated_as


def test_the_tools_cut_as_the_run_did(run: tuple[Data, Path], folder: Path) -> None:
    data, place = run
    assert json.loads((place / "config.json").read_text())["hf_transinv"] == {"format": 1, **CUT}
    model = open_classifier(str(place))
    assert model.cut == EvaluationCut(**CUT) and model.image_size == SIDE
    asked: dict[str, Any] = {"corruptions": ("contrast",), "severities": (3,), "show_progress": False}
    images = ImagesConfig(str(folder))
    found = evaluate(model, images.open(model, in_order=False), **asked)
    assert found == evaluate(model, data.evaluation, **asked)
    assert images.preprocessing is None, "nor is there a difference to what the export says to timm"
    assert images.told[-1] == "images      measured at 32 px (crop_pct 0.875, bicubic)"
    said = {name: getattr(images, name) for name in CUT}
    assert said == CUT, "for the record"
    report = invariance_report.ImagesConfig(str(folder), num_images=12)
    cut = report.cut_for(Teacher(model))
    assert torch.equal(report.load(report.drawn(0), cut, Accelerator(cpu=True)).images, data.evaluation.images)


@pytest.mark.parametrize("name", OF_THE_CUT)
def test_each_field_can_be_overruled(
    run: tuple[Data, Path], folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut = EvaluationCut(**OF_THE_CUT[name])
    expected = opened(folder, **OF_THE_CUT[name]).evaluation.images
    given = {name: OF_THE_CUT[name][name]}
    model = open_classifier(str(run[1]))
    images, report = ImagesConfig(str(folder), **given), invariance_report.ImagesConfig(str(folder), **given)
    with caplog.at_level(logging.WARNING):
        split = images.open(model, in_order=False)
        assert report.cut_for(Teacher(model)) == cut
    assert torch.equal(torch.cat([batch.images for batch in split.batches(5, 0, 1)]), expected)
    both = f"easured at {cut}, and not at the 32 px (crop_pct 0.875, bicubic) that"
    assert f"M{both} the checkpoint records." in str(images.preprocessing)
    assert [f"m{both} its" in caplog.text, f"M{both} the" in caplog.text] == [True, True]
    assert ("differ between sizes" in caplog.text) == (name == "image_size")


def test_a_model_that_is_no_export_is_measured_as_before(
    run: tuple[Data, Path], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its size, the default cut; and an export of before said its size alone."""
    older = export_classifier(open_classifier(str(run[1])), tmp_path / "older", image_size=SIDE)
    config = json.loads((older / "config.json").read_text())
    expected = opened(folder, eval_crop_pct=1.0, interpolation="bilinear").evaluation.images
    for mark in ({"format": 1, "image_size": SIDE}, None):
        (older / "config.json").write_text(json.dumps(config | {"hf_transinv": mark}))
        model = open_classifier(str(older))
        assert model.cut == EvaluationCut(SIDE)
        images = ImagesConfig(str(folder)).open(model, in_order=False)
        assert torch.equal(next(images.batches(12, 0, 1)).images, expected)
        assert not caplog.text
    ImagesConfig(str(folder), eval_crop_pct=0.9).open(model, in_order=False)
    assert not caplog.text, "it records no cut that this would differ from"


@pytest.mark.parametrize(
    ("mark", "read"),
    [
        ({"image_size": 8, "eval_crop_pct": 0.5, "interpolation": "bicubic"}, EvaluationCut(8, 0.5, "bicubic")),
        ({"image_size": 8, "eval_crop_pct": 1}, EvaluationCut(8)),
        ({"image_size": 8, "eval_crop_pct": 0, "interpolation": "lanczos"}, EvaluationCut(8)),
        ({"image_size": 8, "eval_crop_pct": "0.5", "interpolation": ["bicubic"]}, EvaluationCut(8)),
        ({"eval_crop_pct": 0.5}, None),
        ("x", None),
    ],
)
def test_marks_are_read_with_care(mark: Any, read: EvaluationCut | None) -> None:
    assert EvaluationCut.recorded(mark) == read


@pytest.mark.parametrize("config", [ImagesConfig, invariance_report.ImagesConfig])
def test_what_is_no_cut_is_refused(config: Any) -> None:
    with pytest.raises(InputError, match=r"eval_crop_pct must be in \(0, 1\], given 2"):
        config("data", eval_crop_pct=2.0)
    with pytest.raises(InputError, match="interpolation 'nearest' is not one of bilinear, bicubic"):
        config("data", interpolation="nearest")


@pytest.mark.parametrize("name", OF_THE_CUT)
def test_the_published_protocol_has_its_own(name: str) -> None:
    with pytest.raises(InputError, match=f"leave out --{name}"):
        ImagesConfig("data", protocol="published", **{name: CUT[name]})
