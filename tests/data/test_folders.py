"""Folders as people have them: what is in them decides, what is not read is said, the first path at fault is named."""

import os
from pathlib import Path

import pytest
from PIL import Image, features

from hf_transinv.data.decoding import image_suffixes
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_dataset, open_source, open_unlabelled
from hf_transinv.data.walk import walk
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels, write_encoded

_PNG = encode(numbered_pixels(0))


def _put(root: Path, *places: str, data: bytes = _PNG) -> Path:
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def _counts(root: Path, split: str = "train") -> dict[str, int]:
    source = open_source(str(root), split=split)
    return dict(zip(source.label_names, source.class_counts.tolist(), strict=True))


def _told(root: Path) -> str:
    opened = open_dataset(str(root)).opened
    return "\n".join([*opened.told, *opened.warnings])


# Links


@pytest.mark.parametrize("kind", ["files", "one class", "classes", "splits", "root"])
def test_links_are_followed(tmp_path: Path, kind: str) -> None:
    places = [f"{split}/{name}/{row}.png" for split in ("train", "test") for name in "ab" for row in range(3)]
    real, linked = _put(tmp_path / "real", *places), tmp_path / "linked"
    if kind == "root":
        linked.symlink_to(real)
    for split in () if kind == "root" else ("train", "test"):
        if kind == "splits":
            linked.mkdir(exist_ok=True)
            (linked / split).symlink_to(real / split)
            continue
        for name in "ab":
            folder = linked / split / name
            folder.parent.mkdir(parents=True, exist_ok=True)
            if kind == "classes" or (kind == "one class" and name == "a"):
                folder.symlink_to(real / split / name)
                continue
            folder.mkdir()
            for file in (real / split / name).iterdir():
                (folder / file.name).symlink_to(file)
    for split in ("train", "test"):
        assert _counts(linked, split) == {"a": 3, "b": 3}


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert [str(file) for file in walk(tmp_path).images] == ["a/0.png", "b/0.png"]


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"Row 2 \(.*b/gone\.png\).*cannot be read"):
        ResidentSplit.load(open_source(str(tmp_path)), show_progress=False)
    split = ResidentSplit.load(open_source(str(tmp_path)), on_bad_image="skip", show_progress=False)
    assert len(split) == 2 and "b/gone.png" in split.skipped[0]


# Suffixes and files that are not read

_WRITERS = {".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".ppm": "PPM"}
_WRITERS |= {".webp": "WEBP", ".jp2": "JPEG2000", ".tga": "TGA", ".ico": "ICO", ".sgi": "SGI", ".pcx": "PCX"}
_WRITERS |= {".avif": "AVIF", ".jfif": "JPEG", ".jpe": "JPEG", ".jpg": "JPEG", ".dib": "DIB", ".tiff": "TIFF"}


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("suffix", _WRITERS)
def test_every_suffix_that_is_decoded_is_read(tmp_path: Path, suffix: str, upper: bool) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF, as all before 11.3 are")
    assert suffix in image_suffixes()
    for name in "ab":
        path = _put(tmp_path, f"{name}/plain.png") / name / f"0{suffix.upper() if upper else suffix}"
        Image.fromarray(numbered_pixels(1, 16, 16)).save(path, _WRITERS[suffix])
    assert _counts(tmp_path) == {"a": 2, "b": 2}
    assert len(ResidentSplit.load(open_source(str(tmp_path)), image_size=8, show_progress=False)) == 4


def test_what_is_not_read_is_counted_by_suffix(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png")
    _put(tmp_path, "a/1.heic", "a/2.HEIC", "b/notes.txt", "a/._0.png", "b/.DS_Store", ".cache/x.png", data=b"x")
    _put(tmp_path, "__MACOSX/a/._0.png", ".ipynb_checkpoints/0.png", "a/.hidden/1.png", data=b"x")
    assert _counts(tmp_path) == {"a": 1, "b": 1}
    told = _told(tmp_path)
    assert "not read: 2 .heic, 1 .txt, 6 hidden" in told
    assert "2 images are of kinds that are not decoded here, such as a/1.heic" in told


def test_a_class_of_unreadable_images_is_a_class_without_images(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png", "c/0.heic")
    assert _counts(tmp_path) == {"a": 1, "b": 1, "c": 0}


def test_folders_of_other_files_are_no_classes(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png", "docs/readme.txt", "docs/deep/er.pdf")
    assert _counts(tmp_path) == {"a": 1, "b": 1}
    assert "docs/ holds no images and is no class" in _told(tmp_path)


def test_names_that_are_not_unicode_are_refused(tmp_path: Path) -> None:
    _put(tmp_path, "a/0.png", "b/0.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/caf\xe9.png")).write_bytes(_PNG)
    with pytest.raises(InputError, match=r"caf\\xe9\.png"):
        open_source(str(tmp_path))


# Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train", "valid"),
        ("Training", "Testing"),
    ],
)
def test_splits_by_any_of_their_names(tmp_path: Path, train: str, test: str) -> None:
    _put(tmp_path, *(f"{train}/{name}/{row}.png" for name in "ab" for row in range(2)))
    _put(tmp_path, *(f"{test}/{name}/0.png" for name in "ab"))
    assert open_dataset(str(tmp_path)).split_names == [train, test]
    assert _counts(tmp_path) == {"a": 2, "b": 2}  # asked for as train
    other = "validation" if test.lower().startswith("val") else "test"
    assert _counts(tmp_path, other) == {"a": 1, "b": 1}


def test_splits_of_other_names_when_they_are_asked_for(tmp_path: Path) -> None:
    _put(tmp_path, *(f"fold{number}/{name}/0.png" for number in (1, 2) for name in "ab"))
    opened = open_dataset(str(tmp_path), asked=["fold1", "fold2[:50%]"])
    assert opened.split_names == ["fold1", "fold2"] and opened.source("fold2").num_rows == 2


def test_folders_beside_the_splits_are_said(tmp_path: Path) -> None:
    _put(tmp_path, *(f"train/{name}/0.png" for name in "ab"), "test/0.png", "test/1.png", "docs/figure.png")
    _put(tmp_path, "runs/exp1/curve.png", "cover.png")
    opened = open_dataset(str(tmp_path))
    assert opened.split_names == ["train"] and _counts(tmp_path) == {"a": 1, "b": 1}
    told = _told(tmp_path)
    assert "test/ is no split to use: its 2 images lie in no class folders" in told
    assert "docs/ beside the splits is not read: 1 images" in told
    assert "runs/ beside the splits is not read: 1 images" in told and "1 images beside the splits" in told
    with pytest.raises(InputError, match="cannot give split 'test'"):
        opened.source("test")


def test_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    _put(tmp_path, "train/cat.0.png", "train/dog.0.png", "test/0.png")
    with pytest.raises(InputError, match=r"have no classes: test/ \(1 images\), train/ \(2 images\)"):
        open_source(str(tmp_path))
    assert open_unlabelled(str(tmp_path)).split == "test"
    assert open_unlabelled(str(tmp_path), split="train").num_rows == 2


def test_a_class_of_one_split_alone_is_a_class_of_all(tmp_path: Path) -> None:
    _put(tmp_path, "train/a/0.png", "train/b/0.png", "train/c/0.png", "test/b/0.png", "test/c/0.png")
    assert _counts(tmp_path, "test") == {"a": 0, "b": 1, "c": 1}
    _put(tmp_path, "test/d/0.png")
    assert _counts(tmp_path) == {"a": 1, "b": 1, "c": 1, "d": 0}


# Depth


@pytest.mark.parametrize("split", ["", "train/"])
def test_the_class_is_the_first_folder_and_deeper_images_are_said(tmp_path: Path, split: str) -> None:
    _put(tmp_path, f"{split}cat/0.png", f"{split}cat/2021/may/1.png", f"{split}dog/2022/0.png")
    assert _counts(tmp_path) == {"cat": 2, "dog": 1}
    assert f"2 images lie deeper than their class folder, such as {split}cat/2021/may/1.png" in _told(tmp_path)


@pytest.mark.parametrize("inside", [("train/a", "train/b", "test/a"), ("a", "b", "c")])
def test_one_folder_around_everything_is_named(tmp_path: Path, inside: tuple[str, ...]) -> None:
    _put(tmp_path, *(f"unzipped/{place}/0.png" for place in inside))
    with pytest.raises(InputError, match=rf"one class folder, 'unzipped'.*give that folder: {tmp_path}/unzipped"):
        open_source(str(tmp_path))
    assert _counts(tmp_path / "unzipped")["a"] == 1


def test_one_folder_below_the_split_is_shown(tmp_path: Path) -> None:
    _put(tmp_path, *(f"{split}/images/{name}/0.png" for split in ("train", "test") for name in "ab"))
    with pytest.raises(InputError, match=r"'images'.*test/images/a/ \(1 images\).*Expected ROOT/class/image"):
        open_source(str(tmp_path))


def test_splits_below_other_folders_are_refused(tmp_path: Path) -> None:
    kinds, splits = ("photo", "sketch"), ("train", "test")
    _put(tmp_path, *(f"{kind}/{split}/{name}/0.png" for kind in kinds for split in splits for name in "ab"))
    with pytest.raises(InputError, match=rf"splits of {tmp_path} lie below other folders.*such as {tmp_path}/photo"):
        open_source(str(tmp_path))
    assert _counts(tmp_path / "photo") == {"a": 1, "b": 1}


@pytest.mark.parametrize("split", ["", "train/"])
def test_the_first_image_outside_a_class_folder_is_named(tmp_path: Path, split: str) -> None:
    _put(tmp_path, f"{split}a/0.png", f"{split}b/0.png", f"{split}stray.png", f"{split}stray2.png")
    if split:
        _put(tmp_path, "test/a/0.png")
    with pytest.raises(InputError, match=rf"{tmp_path}/{split}stray\.png lies outside.* 2 of the 4 images"):
        open_source(str(tmp_path))


# Names that mean something to a library


@pytest.mark.parametrize("name", ["parquet", "imagefolder", "csv", "json", "text", "arrow", "webdataset", "train"])
@pytest.mark.parametrize("spelled", ["{}", "./{}", "{}/", "../here/{}"])
def test_a_folder_is_read_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spelled: str
) -> None:
    here = tmp_path / "here"
    _put(here, f"{name}/train/red/0.png", f"{name}/train/blue/0.png", f"{name}/classes.json", data=_PNG)
    (here / name / "classes.json").write_text("{}")
    _put(here, "photos/train/old0/0.png", "photos/train/old1/0.png")
    monkeypatch.chdir(here)
    assert open_source(spelled.format(name)).label_names == ["blue", "red"]


@pytest.mark.parametrize("name", ["parquet", "imagefolder", "csv", "json", "text", "arrow", "webdataset"])
def test_the_name_of_a_reader_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _put(tmp_path, "photos/train/old0/0.png", "photos/train/old1/0.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"'{name}' is the name of a reader of `datasets`"):
        open_source(name)


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(tmp_path, "data/a/0.png", "data/b/0.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("~/data").label_names == ["a", "b"]


@pytest.mark.parametrize("name", ["data [v2]", "50% #1 é", "x*y", "what?", "a b"])
def test_a_path_that_is_there_is_no_pattern(tmp_path: Path, name: str) -> None:
    write_encoded(tmp_path / name / "train.parquet", ["a", "b", "a"], ["a", "b"])
    for dataset in (tmp_path / name, tmp_path / name / "train.parquet"):
        assert open_source(str(dataset)).class_counts.tolist() == [2, 1]
        assert open_source(str(dataset), streaming=True).class_counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("suffix", "advice"), [(".zip", "Unpack it"), (".tar", "Unpack it"), (".txt", "folder it is in")]
)
def test_a_file_that_is_no_dataset_is_said_to_be_one(tmp_path: Path, suffix: str, advice: str) -> None:
    path = _put(tmp_path, f"data{suffix}") / f"data{suffix}"
    with pytest.raises(InputError, match=f"is a file, and not one of .*{advice}"):
        open_source(str(path))


# Parquet files by their names


def test_files_that_name_no_split_join_none_where_others_do(tmp_path: Path) -> None:
    for place in ("train-0", "Test", "extra", "holdout"):
        write_encoded(tmp_path / f"{place}.parquet", ["a", "b", "a"], ["a", "b"])
    for dataset in (tmp_path, tmp_path / "*.parquet"):
        opened = open_dataset(str(dataset))
        assert opened.split_names == ["train", "test"] and opened.source("train").num_rows == 3
        assert "not read, as their names say no split: 'extra.parquet', 'holdout.parquet'" in opened.opened.warnings


def test_the_first_folder_that_names_a_split_decides(tmp_path: Path) -> None:
    for place in ("train/test_site/0", "train/home/0", "test/0", "test/train_like/0"):
        write_encoded(tmp_path / f"{place}.parquet", ["a", "b"], ["a", "b"])
    opened = open_dataset(str(tmp_path))
    assert [opened.source(split).num_rows for split in ("train", "test")] == [4, 4]


@pytest.mark.parametrize("given", [{"config": "small"}, {"revision": "v2"}])
@pytest.mark.parametrize("dataset", ["folder", "digits/target"])
def test_what_only_the_hub_has_is_refused_for_local_data(tmp_path: Path, dataset: str, given: dict[str, str]) -> None:
    _put(tmp_path, "a/0.png", "b/0.png")
    with pytest.raises(InputError, match=r"dataset_(config small|revision v2) was given for .*is on this machine"):
        open_source(str(tmp_path) if dataset == "folder" else dataset, **given)
