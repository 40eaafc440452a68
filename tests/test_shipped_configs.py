"""Every shipped configuration, opened by its own command as far as its data and models: all but the training.

Hub ids are found in HF_TRANSINV_LOCAL_HUB, whose layout is built here of stand-ins: a few images with the right
columns and classes, tiny networks. Where that variable is set already, what it holds stands in their place.
"""

import io
import os
import re
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.data.sources import open_dataset
from hf_transinv.errors import InputError
from hf_transinv.experiment.session import Session
from hf_transinv.hub.export import export_classifier
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.location import locate
from hf_transinv.resolve import local_hub
from hf_transinv.resolve.local_hub import VARIABLE
from hf_transinv.resolve.shipped import config_file, launch_file, model_folder
from hf_transinv.training.trainer import Trainer
from tests.launching import REPOSITORY

SHIPPED = sorted((REPOSITORY / "recipes" / "configs").glob("*.yaml"))
# The recipe of each configuration that is no comparison; the others are for train_teacher.
RECIPES = {
    **dict.fromkeys(["cifar100_small", "cifar100_three_teachers", "digits"], "multi_teacher"),
    **dict.fromkeys(["cifar100_probe", "cifar100_probe_matched", "digits_probe"], "probe"),
    "digits_single_teacher": "single_teacher",
    "cifar_vae": "train_vae",
    "hard_toy": "hard_toy",
}
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100 = [f"class {number:03}" for number in range(100)]
OWN = os.environ.get(VARIABLE)


class OpenedError(Exception):
    """Training would begin now."""


def write_parquet(folder: Path, labels: dict[str, list[str]], rows: dict[str, int]) -> None:
    """A dataset in the shape of its Hub repository: the column img and class numbers, a file a split."""
    generator = np.random.default_rng(0)
    told = {column: {"names": names, "_type": "ClassLabel"} for column, names in labels.items()}
    features = datasets.Features.from_dict({"img": {"_type": "Image"}} | told)
    (folder / "data").mkdir(parents=True)
    for split, count in rows.items():
        images = []
        for pixels in generator.integers(0, 256, (count, 32, 32, 3), np.uint8):
            Image.fromarray(pixels).save(file := io.BytesIO(), "png")
            images.append({"bytes": file.getvalue(), "path": None})
        columns = {column: [row % len(names) for row in range(count)] for column, names in labels.items()}
        table = pa.table({"img": images} | columns, schema=features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def export(folder: Path, architecture: str, names: list[str]) -> None:
    export_classifier(
        open_classifier(architecture, num_classes=len(names), label_names=names, pretrained=False), folder
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with everything that the configurations name: hub/, and the outputs of earlier runs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("shipped")
    hub, rows = folder / "hub", {"train": 300, "test": 200}
    write_parquet(hub / "datasets/uoft-cs/cifar10", {"label": CIFAR10}, rows)
    write_parquet(hub / "datasets/uoft-cs/cifar100", {"fine_label": CIFAR100, "coarse_label": CIFAR100[:20]}, rows)
    resnet = timm.create_model("resnet32_cifar", num_classes=10).state_dict()
    (weights := hub / "models/hf-transinv/resnet32_cifar10").mkdir(parents=True)
    save_file(resnet, weights / "model.safetensors")
    for name, classes in (("trashnet", CIFAR10[:6]), ("trashnet_small", CIFAR10[:6]), ("clothing", CIFAR10)):
        write_parquet(hub / f"datasets/hf-transinv/{name}", {"label": classes}, rows)
    for name in ("mobilenetv1_075_224", "mobilenet_v1_025_128"):
        export(hub / "models/hf-transinv" / name, "test_resnet", CIFAR100[:12])
    export(hub / "models/timm/resnet18.a1_in1k", "test_resnet", [f"synset {number}" for number in range(12)])
    named = set(re.findall(r"outputs/\w+/student", "".join(path.read_text() for path in SHIPPED)))
    for path in named:
        knows = CIFAR100 if "plain" in path else CIFAR10
        export(folder / path, "wrn10_1_cifar", knows)
    for kind in ("datasets/uoft-cs", "datasets/hf-transinv", "models/hf-transinv", "models/timm") if OWN else ():
        for repository in sorted(Path(OWN, kind).glob("*")):
            if (stand_in := hub / kind / repository.name).is_dir():
                stand_in.rename(folder / f"unused_{repository.name}")
            stand_in.symlink_to(repository.resolve())
    return folder


@pytest.fixture
def alone(place, tmp_path, monkeypatch) -> Path:
    """`place` as the working folder, no Hub, no training."""
    monkeypatch.chdir(place)
    monkeypatch.setenv(VARIABLE, "hub")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


def opened(path: Path, flags: list[str], out: Path, monkeypatch) -> list:
    """Run the recipe of a configuration up to its training; the objectives that it would train."""
    recipe = "compare" if path.stem.startswith("compare") else RECIPES.get(path.stem, "train_teacher")
    content, objectives = yaml.safe_load(path.read_text()), []
    expected = len(content["teachers"]) * len(content.get("seeds", [0])) if recipe == "probe" else 1

    def fit(session: Session, name: str, objective, *_: object) -> None:
        objectives.append(objective)
        if len(objectives) == expected:
            raise OpenedError

    def train(trainer: Trainer) -> None:
        objectives.append(trainer.objective)
        raise OpenedError

    monkeypatch.setattr(Session, "fit", fit)
    monkeypatch.setattr(Trainer, "train", train)
    # An untrained student is no worse under corruptions.
    monkeypatch.setattr("hf_transinv.commands.probe.severity_of", lambda rises, rise: 1.0)
    script = str(REPOSITORY / "recipes" / f"{recipe}.py")
    monkeypatch.setattr(sys, "argv", [script, "--config", path.stem, *flags, "--output_dir", str(out)])
    with pytest.raises(OpenedError):
        runpy.run_path(script, run_name="__main__")
    return objectives


def scales() -> list:
    """Every configuration, a comparison at each of its scales."""
    cases = []
    for path in SHIPPED:
        names = list(yaml.safe_load(path.read_text()).get("scale", {"": {}}))
        cases += [pytest.param(path, name, id=f"{path.stem} {name}".strip()) for name in names]
    return cases


@pytest.mark.parametrize(("path", "scale"), scales())
def test_a_shipped_configuration_opens_its_data_and_models(path, scale, alone, monkeypatch):
    flags = ["--scale", scale] if scale else []
    # The stand-ins have too few rows for slices such as train[45000:].
    for split in ("train", "test") if "uoft-cs" in path.read_text() and not OWN else ():
        flags += [f"--{'train' if split == 'train' else 'eval'}_split", split]
    assert opened(path, flags, alone / "out", monkeypatch)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_configuration_leads_out_of_its_folder(path):
    assert not re.search(r"\.\./|[\s:\"']/[a-z]|~/", path.read_text())


def test_no_command_of_the_readme_leads_out_of_the_checkout():
    assert "../" not in (REPOSITORY / "README.md").read_text()


# Names


def test_a_shipped_configuration_is_found_by_its_bare_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = str(REPOSITORY / "recipes/configs/digits.yaml")
    for name in ("digits", "digits.yaml", "recipes/configs/digits.yaml", "./recipes/configs/digits.yaml"):
        assert config_file(name) == digits
    for name in ("nowhere", "other/digits.yaml", "", "x" * 5000):
        assert config_file(name) == name
    assert launch_file("fsdp2") == str(REPOSITORY / "recipes/accelerate/fsdp2.yaml")
    (tmp_path / "digits").write_text("seed: 1\n")
    assert config_file("digits") == "digits"
    comparison = read_comparison(["--config", "compare_digits"])
    assert [row.label for row in comparison.rows] == ["fine-tuning", "crop + flip", "FixedAug", "TransInv"]


def test_a_shipped_teacher_is_found_from_anywhere_and_a_folder_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = {"revision": None, "architecture": None, "with_weights": True}
    assert locate("model_cards/digits_light", **where).folder == REPOSITORY / "model_cards/digits_light"
    assert model_folder("model_cards/nothing") is None and model_folder("digits_light") is None
    own = tmp_path / "model_cards/digits_light"
    export(own, "wrn10_1_cifar", ["a", "b"])
    assert locate("model_cards/digits_light", **where).folder == own


@pytest.mark.skipif(OWN is not None, reason="what the variable holds is not known here")
def test_hub_ids_are_read_from_the_local_hub_and_it_is_said(alone, place, caplog):
    caplog.set_level("INFO")
    local_hub._say.cache_clear()
    opened = open_dataset("uoft-cs/cifar100")
    assert opened.opened.name == "uoft-cs/cifar100" and opened.split_names == ["train", "test"]
    source = opened.source("train", label_column="fine_label")
    assert (source.name, source.num_rows, source.label_names) == ("uoft-cs/cifar100", 300, CIFAR100)
    where = {"revision": None, "architecture": None, "with_weights": True}
    location = locate("resnet32_cifar:hf-transinv/resnet32_cifar10", **where)
    assert location.folder == place / "hub/models/hf-transinv/resnet32_cifar10"
    assert (location.name, location.architecture) == ("resnet32_cifar:hf-transinv/resnet32_cifar10", "resnet32_cifar")
    for name in ("timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"):
        assert locate(name, **where).folder == place / "hub/models/timm/resnet18.a1_in1k"
    copies = [record.message for record in caplog.records if VARIABLE in record.message]
    assert any(message.startswith("uoft-cs/cifar100: the copy in") for message in copies)
    assert len(copies) == len(set(copies))


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18.a1_in1k@v1", "timm/other", "hf-hub:timm/..", "resnet18:timm/other"]
)
def test_a_revision_and_an_id_without_a_folder_are_looked_up_on_the_hub(alone, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="could not be reached"):
        locate(name, revision=None, architecture=None, with_weights=True)


@pytest.mark.parametrize("asked", [{"config": "nothing"}, {"revision": "v1"}])
def test_a_configuration_or_revision_that_a_local_copy_lacks_is_refused(alone, asked):
    with pytest.raises(InputError, match=r"uoft-cs/cifar10'.* cannot be opened"):
        open_dataset("uoft-cs/cifar10", **asked)


def test_a_folder_here_comes_before_the_local_hub(alone, place, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(place / "hub"))
    monkeypatch.chdir(tmp_path)
    write_parquet(Path("uoft-cs/cifar10"), {"label": ["a", "b"]}, {"train": 4, "test": 2})
    assert open_dataset("uoft-cs/cifar10").source("train").label_names == ["a", "b"]
