"""Everything over HTTP: models and data come from a Hub, the student goes out to one and comes back in other hands."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source, split_names
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier, open_classifier
from tests.launching import ACCELERATE, MULTI_TEACHER, succeed, tiny_teachers, tiny_vit_folder
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import close_session, hub, hub_here, since_1

__all__ = ["hub", "hub_here"]

NAMES = ["ant", "bee", "cat"]
STORAGE, HEADERS, ABOUT = "/models/lab/*", "/lab/vit/resolve/*", "/api/models/lab/vit/revision/*"


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(classifier: Classifier) -> torch.Tensor:
    return classifier.eval()(images())


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard(folder: Path, first: int, num_rows: int) -> bytes:
    """A parquet file with columns of its own names; row i of the dataset has class i modulo 3."""
    classes = datasets.ClassLabel(names=NAMES)
    features = datasets.Features({"img": datasets.Image(), "fine_label": classes, "coarse_label": classes})
    rows = range(first, first + num_rows)
    pictures, labels = [{"bytes": png(row), "path": None} for row in rows], [row % 3 for row in rows]
    columns = {"img": pictures, "fine_label": labels, "coarse_label": [0] * num_rows}
    path = folder / "shard.parquet"
    datasets.Dataset.from_dict(columns, features).to_parquet(path)
    return path.read_bytes()


@pytest.fixture
def waits(monkeypatch) -> None:
    """The client tries again without waiting."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


# A whole run, from the Hub and to the Hub

LOAD = """
import re, sys, timm, torch
from PIL import Image
from transformers import pipeline
image = Image.open("image.png").convert("RGB")
model = timm.create_model("hf_hub:" + sys.argv[1], pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
classify = pipeline("image-classification", model=sys.argv[1], top_k=3)
with torch.no_grad():
    by_timm = model(transform(image)[None])
    by_transformers = classify.model(**classify.image_processor(image, return_tensors="pt")).logits
    other = model(torch.load("images.pt"))
names = model.pretrained_cfg["label_names"]
shown = [entry["label"] for entry in classify(image)]
with open(huggingface_hub.hf_hub_download(sys.argv[1], "README.md")) as card:
    code = re.findall(r"```python\\n(.*?)```", card.read(), re.DOTALL)
for block in code:
    if sys.modules["hf_transinv"] or "hf_transinv" not in block:
        exec(block, {})
seen = {"timm": by_timm, "transformers": by_transformers, "other": other}
torch.save(seen | {"names": names, "shown": shown, "num_blocks": len(code)}, "seen.pt")
"""
WITH_OURS = "import hf_transinv, huggingface_hub\n" + LOAD
WITHOUT_OURS = "import sys\nsys.modules['hf_transinv'] = None\nimport huggingface_hub\n" + LOAD


def load_elsewhere(hub: LoopbackHub, repo_id: str, code: str, folder: Path, isolated: bool) -> dict:
    """What a fresh process with an empty cache and no token sees of a student."""
    folder.mkdir()
    (folder / "image.png").write_bytes(png(0))
    torch.save(images(), folder / "images.pt")
    environment = os.environ | hub.environment(folder, token=False, OMP_NUM_THREADS="1")
    flags = ["-I"] if isolated else []
    command = [sys.executable, *flags, "-c", code, repo_id]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    return torch.load(folder / "seen.pt")


def assert_same_student(seen: dict, student: Classifier) -> None:
    image = torch.from_numpy(np.array(Image.open(io.BytesIO(png(0))))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(seen["other"], student.eval().network(images()), rtol=0, atol=1e-6)
        torch.testing.assert_close(seen["timm"], student(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["transformers"], seen["timm"], rtol=0, atol=1e-6)
    assert seen["names"] == student.label_names
    best = seen["timm"][0].argsort(descending=True)
    assert seen["shown"] == [student.label_names[index] for index in best[:3]]
    assert seen["num_blocks"] >= 1


def test_teachers_and_data_come_from_the_hub_and_the_student_goes_there(tmp_path):
    with LoopbackHub("me") as hub:
        for name, folder in zip("ab", tiny_teachers(tmp_path / "teachers"), strict=False):
            hub.put(f"lab/{name}", Path(folder))
        pictures = {f"data/train-0000{part}-of-00002.parquet": shard(tmp_path, 24 * part, 24) for part in (0, 1)}
        pictures["data/test-00000-of-00001.parquet"] = shard(tmp_path, 48, 9)
        hub.put("lab/pictures", pictures, "dataset")
        here = tmp_path / "here"
        here.mkdir()
        flags = ["--teachers", "hf_hub:lab/a", "hf_hub:lab/b", "ema", "--dataset", "lab/pictures", "--streaming"]
        flags += ["--label_column", "fine_label", "--student", "wrn10_1_cifar", "--max_steps", 6, "--batch_size", 8]
        flags += ["--inner_steps", 2, "--shuffle_buffer", 16, "--save_steps", 2, "--eval_corruptions", "none"]
        flags += ["--output_dir", "out", "--push_to_hub", "me/student", "--push_every", 2]
        done = succeed(ACCELERATE, MULTI_TEACHER, *flags, cwd=here, **hub.environment(here))
        assert f"Published: {hub.endpoint}/me/student" in done.stdout
        titles = [commit.title for commit in hub.commits("me/student")]
        assert titles[0] == "Student trained with hf_transinv"
        assert set(titles[1:-1]) <= {"Student after 2 steps", "Student after 4 steps"} and len(titles) > 2
        files = hub.files("me/student")
        assert files.keys() >= {"run.json", "figures/selection.png", "augmentation/config.json"}
        assert str(tmp_path).encode() not in files["run.json"] + files["README.md"]
        assert "step" not in json.loads(files["config.json"])["hf_transinv"]
        seen = load_elsewhere(hub, "me/student", WITH_OURS, tmp_path / "there", isolated=False)
        assert_same_student(seen, open_classifier(str(here / "out" / "student")))
        assert hub.strays == []
        assert hub.token not in done.stdout + done.stderr
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in kept if hub.token.encode() in path.read_bytes()]
        assert not [name for name, data in files.items() if hub.token.encode() in data]


@pytest.mark.parametrize("architecture", ["resnet18", pytest.param("convnextv2_atto", marks=pytest.mark.slow)])
def test_a_student_of_timm_needs_nothing_of_ours(tmp_path, architecture):
    """Trained by the recipe and pushed by it; loaded where importing hf_transinv is impossible."""
    with LoopbackHub("me") as hub:
        pictures = {f"data/{split}-00000-of-00001.parquet": shard(tmp_path, 0, 12) for split in ("train", "test")}
        hub.put("lab/pictures", pictures, "dataset")
        here = tmp_path / "here"
        here.mkdir()
        flags = ["--dataset", "lab/pictures", "--label_column", "fine_label", "--student", architecture]
        flags += ["--teachers", "ema", "--max_steps", 2, "--batch_size", 4, "--inner_steps", 1]
        flags += ["--eval_corruptions", "none", "--output_dir", "out", "--push_to_hub", "me/student"]
        succeed(ACCELERATE, MULTI_TEACHER, *flags, cwd=here, **hub.environment(here))
        assert b"import hf_transinv" not in hub.files("me/student")["README.md"]
        assert b"from hf_transinv.augment.learned_augmentation import" in hub.files("me/student")["README.md"]
        seen = load_elsewhere(hub, "me/student", WITHOUT_OURS, tmp_path / "there", isolated=True)
        assert hub.strays == []
    # Not by way of our own resizing to 224 px, which does not round to 8 bits as Pillow's does.
    student = open_classifier(str(here / "out" / "student")).eval().network
    with torch.no_grad():
        torch.testing.assert_close(seen["other"], student(images()), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen["transformers"], seen["timm"], rtol=0, atol=1e-6)
    assert seen["names"] == NAMES and sorted(seen["shown"]) == NAMES and seen["num_blocks"] >= 1


# Models by id


@pytest.fixture
def vit(hub_here, tmp_path) -> LoopbackHub:
    torch.manual_seed(0)
    hub_here.put("lab/vit", tiny_vit_folder(tmp_path / "vit", NAMES))
    return hub_here


@pytest.fixture
def expected(vit, tmp_path) -> torch.Tensor:
    return logits(open_classifier(str(tmp_path / "vit")))


@pytest.mark.parametrize("name", ["lab/vit", "hf_hub:lab/vit", "hf-hub:lab/vit@main"])
def test_a_timm_repository(vit, expected, name):
    classifier = open_classifier(name)
    assert torch.equal(logits(classifier), expected) and classifier.label_names == NAMES


def test_revisions_are_branches_tags_and_commits(vit, expected, tmp_path):
    torch.manual_seed(1)
    newer = tiny_vit_folder(tmp_path / "newer", NAMES)
    first = vit.repository("lab/vit").at("main").oid
    vit.put("lab/vit", newer, revision="next")
    vit.tag("lab/vit", "v1")
    for revision in ("v1", first, "main"):
        assert torch.equal(logits(open_classifier(f"hf_hub:lab/vit@{revision}")), expected)
    of_newer = logits(open_classifier(str(newer)))
    assert torch.equal(logits(open_classifier("lab/vit", revision="next")), of_newer)
    assert not torch.equal(of_newer, expected)


def test_a_transformers_repository(hub_here, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label=dict(enumerate(NAMES)))
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    hub_here.put("lab/hf_vit", tmp_path / "vit")
    classifier = open_classifier("lab/hf_vit")
    assert classifier.label_names == NAMES
    assert torch.equal(logits(classifier), logits(open_classifier(str(tmp_path / "vit"))))


def test_a_private_one_needs_the_token(hub_here, tmp_path, monkeypatch):
    hub_here.put("lab/secret", tiny_vit_folder(tmp_path / "vit", NAMES), private=True)
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "")
        with pytest.raises(InputError, match=r"'lab/secret' does not exist, or is private.*hf auth login"):
            open_classifier("lab/secret")
    assert open_classifier("lab/secret").label_names == NAMES


@pytest.mark.parametrize("token", [True, False])
def test_gated_missing_and_wrong_revision_are_told_apart(vit, tmp_path, monkeypatch, token):
    vit.put("other/gated", tmp_path / "vit", gated=True)
    monkeypatch.setenv("HF_TOKEN", vit.token if token else "")
    with pytest.raises(InputError, match=rf"'other/gated' is gated.*access at {vit.endpoint}/other/gated"):
        open_classifier("other/gated")
    with pytest.raises(InputError, match=r"'lab/none' does not exist, or is private"):
        open_classifier("hf_hub:lab/none")
    with pytest.raises(InputError, match=r"'lab/vit' has no revision 'v9'"):
        open_classifier("hf_hub:lab/vit@v9")


def test_what_is_cached_needs_no_hub(vit, expected, monkeypatch):
    open_classifier("lab/vit")
    asked = len(vit.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert torch.equal(logits(open_classifier("hf_hub:lab/vit")), expected)
    with pytest.raises(InputError, match=r"'lab/other' could not be reached, since HF_HUB_OFFLINE is set"):
        open_classifier("lab/other")
    assert len(vit.requests) == asked


def test_a_pickle_alone_is_refused_and_not_even_fetched(vit, tmp_path):
    config = (tmp_path / "vit" / "config.json").read_bytes()
    vit.put("lab/pickle", {"config.json": config, "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*safetensors\.torch\.save_file"):
        open_classifier("lab/pickle")
    assert not vit.asked("*", "*pytorch_model.bin")


MODEL_FAULTS = [(ABOUT, kind) for kind in (401, 403, 404, 429, 500, "cut", "lost", "truncate")]
MODEL_FAULTS += [(HEADERS, kind) for kind in (401, 403, 404, 429, 500, "cut", "lost", "truncate")]
MODEL_FAULTS += [(STORAGE, kind) for kind in (403, 404, 429, 500, "cut", "lost", "truncate")]


@pytest.mark.parametrize(("path", "kind"), MODEL_FAULTS)
def test_a_model_that_cannot_be_fetched_is_an_error_that_names_it(vit, expected, waits, path, kind):
    vit.misbehave("*", path, kind, times=None)
    try:
        assert torch.equal(
            logits(open_classifier("lab/vit")), expected
        )  # a download that is cut goes on where it ended
    except InputError as error:
        assert "'lab/vit'" in str(error) and vit.token not in str(error)
    vit.behave()
    assert torch.equal(logits(open_classifier("lab/vit")), expected)


@pytest.mark.parametrize("kind", [429, pytest.param("cut", marks=since_1)])
def test_a_fault_that_passes_is_not_even_noticed(vit, expected, waits, kind):
    vit.misbehave("GET", STORAGE, kind)
    assert torch.equal(logits(open_classifier("lab/vit")), expected) and vit.pending() == []


def test_weights_that_arrive_changed_are_refused_until_they_are_removed(vit, expected):
    vit.misbehave("GET", STORAGE, "corrupt", at=20_000)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"model.safetensors of Hub model 'lab/vit' is damaged.*Remove"
        ) as refused:
            open_classifier("lab/vit")
    Path(str(refused.value).split("Remove ")[1].removesuffix(" and try again.")).unlink()
    assert torch.equal(logits(open_classifier("lab/vit")), expected)


# Datasets by id


@pytest.fixture
def pictures(hub_here, tmp_path, monkeypatch) -> LoopbackHub:
    """lab/pictures with columns of its own names; `datasets`, too, read its environment when it was imported."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_here.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    files = {f"data/{split}-00000-of-00001.parquet": shard(tmp_path, 0, rows) for split, rows in SPLITS.items()}
    hub_here.put("lab/pictures", files, "dataset")
    return hub_here


SPLITS = {"train": 6, "test": 3}
READING = pytest.mark.parametrize("streaming", [False, True])


def open_pictures(streaming: bool, dataset: str = "lab/pictures", **options: str):
    return open_source(dataset, streaming=streaming, label_column="fine_label", **options)


def labels(source) -> list[int]:
    return [row["label"] for row in source.rows]


@READING
def test_a_dataset_with_columns_of_its_own_names(pictures, streaming):
    source = open_pictures(streaming)
    rows = list(source.rows)
    assert source.label_names == NAMES and [row["label"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert rows[4]["image"]["bytes"] == png(4)
    assert labels(open_pictures(streaming, split="test")) == [0, 1, 2]
    assert sorted(split_names("lab/pictures")) == ["test", "train"]
    with pytest.raises(InputError, match=r"'nope'.*train, test|'nope'.*test, train"):
        open_pictures(streaming, split="nope")


def test_slices_of_a_dataset_that_is_read_whole(pictures):
    split = ResidentSplit.load(open_pictures(False, split="train[:50%]"), show_progress=False)
    assert split.labels.tolist() == [0, 1, 2]


@READING
def test_configurations_and_revisions(pictures, tmp_path, streaming):
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*\n" for name in ("one", "two")
    )
    files = {"README.md": f"{card}---\n".encode()}
    files |= {f"{name}/train-0.parquet": shard(tmp_path, 0, rows) for name, rows in (("one", 3), ("two", 4))}
    pictures.put("lab/two", files, "dataset", private=True)
    assert len(labels(open_pictures(streaming, "lab/two", config="two"))) == 4
    for config in ("three", None):
        with pytest.raises(InputError, match=r"one.*two"):
            open_pictures(streaming, "lab/two", config=config)
    longer = {"data/train-00000-of-00001.parquet": shard(tmp_path, 0, 9)}
    pictures.put("lab/pictures", longer, "dataset", revision="longer")
    assert len(labels(open_pictures(streaming, revision="longer"))) == 9
    assert len(labels(open_pictures(streaming))) == 6
    with pytest.raises(InputError, match="Revision 'v9' doesn't exist"):
        open_pictures(streaming, revision="v9")


@READING
def test_gated_and_missing_datasets_are_told_apart(pictures, tmp_path, monkeypatch, streaming):
    data = {"data/train-00000-of-00001.parquet": shard(tmp_path, 0, 3)}
    pictures.put("other/gated", data, "dataset", gated=True)
    pictures.put("lab/private", data, "dataset", private=True)
    for token in (pictures.token, ""):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match=r"'other/gated' is a gated dataset.*hf auth login"):
            open_pictures(streaming, "other/gated")
        with pytest.raises(InputError, match=r"'lab/none' doesn't exist on the Hub or cannot be accessed"):
            open_pictures(streaming, "lab/none")
    with pytest.raises(InputError, match=r"'lab/private' doesn't exist on the Hub or cannot be accessed.*HF_TOKEN"):
        open_pictures(streaming, "lab/private")
    monkeypatch.setenv("HF_TOKEN", pictures.token)
    assert len(labels(open_pictures(streaming, "lab/private"))) == 3


def test_a_dataset_that_is_cached_needs_no_hub(pictures, monkeypatch):
    open_pictures(False)
    asked = len(pictures.requests)
    for constants in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert labels(open_pictures(False)) == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match="'lab/other' cannot be opened"):
        open_pictures(False, "lab/other")
    assert len(pictures.requests) == asked


@READING
@pytest.mark.parametrize("path", ["/api/datasets/lab/pictures/revision/*", "/datasets/lab/pictures/resolve/*"])
@pytest.mark.parametrize("kind", [401, 403, 500, "cut", "lost", "truncate"])
def test_a_dataset_that_cannot_be_fetched_is_an_error_that_names_it(pictures, waits, path, kind, streaming):
    pictures.misbehave("*", path, kind, times=None)
    try:
        assert labels(open_pictures(streaming)) == [0, 1, 2, 0, 1, 2]
    except InputError as error:
        assert "lab/pictures" in str(error) and pictures.token not in str(error)
    pictures.behave()
    huggingface_hub.HfFileSystem.clear_instance_cache()
    assert labels(open_pictures(streaming)) == [0, 1, 2, 0, 1, 2]
