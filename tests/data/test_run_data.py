"""Two splits are held against each other before training: classes, images in both, and what was read is said."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from hf_transinv.config import DataConfig
from hf_transinv.data.described import describe_rows
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.run_data import Data, open_data, ordinary
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels, write_encoded

_SORTED = ["a"] * 6 + ["b"] * 6 + ["c"] * 6


def _open(dataset: Path, **options: object) -> Data:
    return open_data(DataConfig(str(dataset), **options), Accelerator(cpu=True))


def _write_folder(root: Path, **splits: dict[str, range]) -> Path:
    for split, classes in splits.items():
        for name, rows in classes.items():
            (root / split / name).mkdir(parents=True)
            for row in rows:
                (root / split / name / f"{row}.png").write_bytes(encode(numbered_pixels(row)))
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_a_slice_that_loses_a_class_is_refused(tmp_path: Path, streaming: bool) -> None:
    write_encoded(tmp_path / "train.parquet", _SORTED[:12], ["a", "b", "c"])
    write_encoded(tmp_path / "test.parquet", _SORTED, ["a", "b", "c"])
    with pytest.raises(InputError, match=r"has no image of 1 of its 3 classes: 'c'.*--validation_share 0\.1"):
        _open(tmp_path, streaming=streaming)


@pytest.mark.parametrize("train", ["train[:50%]", "train[:12]"])
def test_a_slice_of_sorted_rows_is_refused(tmp_path: Path, train: str) -> None:
    write_encoded(tmp_path / "train.parquet", _SORTED)
    with pytest.raises(InputError, match="has no image of"):
        _open(tmp_path, train_split=train, eval_split="train[12:]")


def test_the_advice_of_the_error_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_encoded(tmp_path / "train.parquet", _SORTED)
    with pytest.raises(InputError, match=r"--validation_share 0\.1"):
        _open(tmp_path)
    data = _open(tmp_path, validation_share=0.1)
    assert data.num_rows == 15 and data.evaluation.class_counts() == [1, 1, 1]
    assert "has no image" not in caplog.text and "also in split" not in caplog.text
    again = _open(tmp_path, validation_share=0.1)
    assert (again.evaluation.images == data.evaluation.images).all()


def test_classes_that_are_not_evaluated_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_encoded(tmp_path / "train.parquet", _SORTED, ["a", "b", "c"])
    write_encoded(tmp_path / "test.parquet", ["b"] * 3, ["b"])
    with caplog.at_level(logging.WARNING):
        data = _open(tmp_path)
    assert "split 'test' has no image of 2 of the 3 classes, and says nothing about them: 'a', 'c'" in caplog.text
    assert data.evaluation.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("other", ["cat", "Cat "])
def test_a_class_of_the_evaluation_alone_is_refused(tmp_path: Path, other: str) -> None:
    train, test = {"Cat": range(4), "Dog": range(4, 8)}, {other: range(8, 10), "Dog": range(10, 12)}
    root = _write_folder(tmp_path, train=train, test=test)
    with pytest.raises(
        InputError, match=rf"no image of 1 of its 3 classes: '{other}'.*look alike: give them one name"
    ):
        _open(root)


def test_a_class_whose_images_are_all_broken_is_refused(tmp_path: Path) -> None:
    root = _write_folder(tmp_path, train={"a": range(4), "b": range(4)}, test={"a": range(4, 6), "b": range(6, 8)})
    for file in (root / "train" / "b").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"has no image that can be decoded of 1 of its 2 classes: 'b'"):
        _open(root, on_bad_image="skip")


def test_images_of_both_splits_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = {"a": range(4), "b": range(4, 8)}
    root = _write_folder(tmp_path, train=train, test={"a": range(2, 6), "b": range(8, 10)})
    _open(root)
    assert "4 of the 6 images of split 'test' are also in split 'train', pixel for pixel" in caplog.text


@pytest.mark.parametrize(("odd", "said"), [("nan", "where a label is missing"), ("cat ", "names that look alike")])
def test_odd_classes_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, odd: str, said: str) -> None:
    write_encoded(tmp_path / "train.parquet", ["cat", "dog", odd] * 2)
    write_encoded(tmp_path / "test.parquet", ["cat", "dog", odd])
    _open(tmp_path)
    assert said in caplog.text and repr(odd) in caplog.text


def test_text_beside_numbers_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_encoded(tmp_path / "train.parquet", ["cat", "dog"] * 2)
    cells = [{"bytes": encode(numbered_pixels(row)), "path": None} for row in range(2)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "test.parquet")
    with pytest.raises(InputError, match="has labels '0', '1', which are not among the classes 'cat', 'dog'"):
        _open(tmp_path)


def test_nothing_is_said_of_splits_that_are_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, test = {"a": range(4), "b": range(4, 8)}, {"a": range(8, 10), "b": range(10, 12)}
    _open(_write_folder(tmp_path, train=train, test=test))
    assert not caplog.records


def test_skipped_images_are_kept_with_their_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, test = {"a": range(4), "b": range(4, 8)}, {"a": range(8, 10), "b": range(10, 12)}
    root = _write_folder(tmp_path, train=train, test=test)
    for place in ("train/a/2.png", "test/b/11.png"):
        (root / place).write_bytes((root / place).read_bytes()[:60])
    with pytest.raises(InputError, match=r"Row 3 \(.*test/b/11\.png\).*truncated.*--on_bad_image skip"):
        _open(root)
    data = _open(root, on_bad_image="skip")
    assert data.num_rows == 7 and len(data.evaluation) == 3
    assert [line.split("(")[1].split(")")[0] for line in data.skipped] == [
        str(root / place) for place in ("train/a/2.png", "test/b/11.png")
    ]
    assert "split 'train': 1 images could not be decoded and are left out, the first: Row 2 (" in caplog.text


def test_what_was_read_is_said(tmp_path: Path) -> None:
    root = _write_folder(
        tmp_path, train={"a": range(4), "b": range(4, 8)}, Test={"a": range(8, 10), "b": range(10, 12)}
    )
    _write_folder(root, val={"a": range(20, 21), "b": range(21, 22)})
    (root / "readme.txt").write_text("x")
    said = "\n".join(_open(root, eval_split="test").described)
    for line in (
        f"dataset     {root}: image folder",
        "train       split train: 8 images",
        "evaluation  split Test: 4 images",
        "not used    split val",
        "images      column image: 6 px, as they are",
        "label       column label: 2 classes a, b",
        "note        not read: 1 .txt",
    ):
        assert line in said
    assert "column image: shorter side resized to 8 px, centre cut out" in "\n".join(
        _open(root, image_size=8).described
    )


def test_both_splits_have_the_same_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": encode(numbered_pixels(row)), "path": None} for row in range(4)]
    columns = {"image": cells, "fine_label": ["a", "b", "a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    pq.write_table(pa.table(columns | {"label": ["x", "y", "x", "y"]}), tmp_path / "test.parquet")
    assert _open(tmp_path).evaluation.label_names == ["a", "b"]


# Whole pictures


def _write_photos(root: Path, shape: tuple[int, int] = (40, 60)) -> Path:
    for split, rows in (("train", range(8)), ("test", range(6, 10))):
        for row in rows:
            folder = root / split / "ab"[row % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.png").write_bytes(encode(numbered_pixels(row, *shape)))
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_how_whole_pictures_are_cut_is_said(tmp_path: Path, streaming: bool) -> None:
    root = _write_photos(tmp_path)
    data = _open(root, image_size=16, crop="resized", eval_crop_pct=0.875, streaming=streaming)
    stored = "" if streaming else ", shorter side 18 px or less (0 MB)"
    cuts = f"whole pictures{stored}, random crops of 16 px"
    held = "evaluation: shorter side 18 px, centre of 16 px"
    assert f"images      column image: {cuts}; {held}" in "\n".join(data.described)
    bicubic = _open(root, image_size=16, interpolation="bicubic", eval_crop_pct=0.5).described
    cuts = "shorter side resized to 16 px, centre cut out, bicubic; evaluation: shorter side 32 px, centre of 16 px"
    assert f"images      column image: {cuts}" in "\n".join(bicubic)


def test_the_evaluation_sees_what_timm_would_show(tmp_path: Path) -> None:
    """Pillow rounds otherwise by one level."""
    from PIL import Image
    from timm.data import create_transform

    root = _write_photos(tmp_path)
    data = _open(root, image_size=16, crop="resized", eval_crop_pct=0.9, interpolation="bicubic")
    files = sorted((root / "test").glob("*/*.png"))
    show = create_transform((3, 16, 16), interpolation="bicubic", crop_pct=0.9, mean=(0, 0, 0), std=(1, 1, 1))
    for image, file in zip(data.evaluation.images, files, strict=True):
        assert (255 * show(Image.open(file)) - image.float()).abs().max() < 1.01


def test_shared_pictures_are_found_whatever_their_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = _open(_write_photos(tmp_path), image_size=16, crop="resized")
    assert isinstance(data.train.images, Pictures)
    assert "2 of the 4 images of split 'test' are also in split 'train'" in caplog.text


def test_shared_squares_are_found_by_their_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Squares of the size stay a tensor, and are compared as with any other crop: in another file format as well."""
    root = _write_photos(tmp_path, (16, 16))
    (root / "test" / "a" / "6.png").unlink()
    (root / "test" / "a" / "6.bmp").write_bytes(encode(numbered_pixels(6, 16, 16), "BMP"))
    data = _open(root, image_size=16, crop="resized")
    plain = _open(root, image_size=16)
    assert torch.equal(data.train.images, plain.train.images)
    assert "column image: shorter side resized to 16 px, centre cut out" in "\n".join(data.described)
    assert caplog.text.count("2 of the 4 images of split 'test' are also in split 'train'") == 2


def test_other_rows_of_the_run_see_central_squares(tmp_path: Path) -> None:
    """Beside a row with resized crops: the same squares as in a run of its own, with the same labels and noise."""
    root, process = _write_photos(tmp_path), Accelerator(cpu=True)
    data = _open(root, image_size=16, crop="resized", label_noise=0.5)
    plain = _open(root, image_size=16, label_noise=0.5)
    whole, labels = data.feed(8, 0, process, ordinary(data.config, "resized")).next_batch()
    assert isinstance(whole, Pictures)
    for crop in ("pad", "none"):
        base = CropFlip(crop)
        (images, own), (expected, theirs) = (one.feed(8, 0, process, base).next_batch() for one in (data, plain))
        assert torch.equal(images, expected) and torch.equal(own, theirs) and torch.equal(own, labels)
    assert ordinary(data.config, "pad", False) == CropFlip("pad", False)
    given = {"crop": "resized", "crop_scale": (0.1, 0.9), "crop_ratio": (0.5, 2.0), "interpolation": "bicubic"}
    expected = CropFlip("resized", True, scale=(0.1, 0.9), ratio=(0.5, 2.0), interpolation="bicubic")
    assert ordinary(DataConfig(image_size=16, **given), flip=True) == expected


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("first", ["pad", "resized"])
def test_both_cuts_of_a_comparison_are_said(tmp_path: Path, first: str, streaming: bool) -> None:
    options = {"image_size": 16, "streaming": streaming}
    rows = {crop: DataConfig(str(_write_photos(tmp_path)), crop=crop, **options) for crop in ("pad", "resized")}
    rows |= {"none": DataConfig(str(tmp_path), crop="none", **options)}
    data = open_data(rows[first], Accelerator(cpu=True))
    when = "" if streaming else "; decoded for them when the first of them begins"
    squares = f"images      of 'pad', 'none': shorter side resized to 16 px, centre cut out{when}"
    stored = "" if streaming else ", shorter side 18 px or less"
    whole = f"images      of 'resized': whole pictures{stored}, random crops of 16 px; "
    whole += f"evaluation: shorter side 16 px, centre{when}"
    said = describe_rows(rows[first], rows, data.source, data.image_size)
    assert said == [whole if first == "pad" else squares]
    assert describe_rows(rows["pad"], {"none": rows["none"]}, data.source, data.image_size) == []


# The part to measure on while training


def _three_splits(root: Path, **more: dict[str, range]) -> Path:
    train = {"a": range(4), "b": range(4, 8)}
    return _write_folder(root, train=train, **more)


def test_a_held_out_share_leaves_the_test_split_for_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _three_splits(tmp_path, test={"a": range(8, 10), "b": range(10, 12)})
    data = _open(root, validation_share=0.25)
    assert data.num_rows == 6 and data.validation is not None and len(data.validation) == 2
    assert data.eval_split == "test" and len(data.evaluation) == 4
    said = "\n".join(data.described)
    assert "train       split train without 0.25 of every class: 6 images" in said
    assert "validation  split train, 0.25 of every class held out: 2 images, measured while training" in said
    assert "evaluation  split test: 4 images, once, at the end" in said and "not used" not in said
    assert not caplog.records
    assert _open(root, validation_share=0.25, eval_split="test[:50%]").eval_split == "test[:50%]"


def test_without_a_test_split_the_held_out_share_is_evaluated_on(tmp_path: Path) -> None:
    data = _open(_three_splits(tmp_path), validation_share=0.25)
    assert data.validation is data.evaluation and len(data.evaluation) == 2
    assert data.eval_split == data.validation_split == "train, 0.25 of every class held out"
    assert not any("validation" in line for line in data.described)


def test_a_named_validation_split(tmp_path: Path) -> None:
    val = {"a": range(20, 21), "b": range(21, 22)}
    root = _three_splits(tmp_path, val=val)
    alone = _open(root, validation_split="validation")
    assert alone.validation is alone.evaluation and alone.eval_split == "val"  # found by its kind
    _write_folder(root, test={"a": range(8, 10), "b": range(10, 12)})
    data = _open(root, validation_split="val")
    assert data.validation is not None and len(data.validation) == 2 and data.eval_split == "test"
    assert _open(root).validation is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation_split": "val", "eval_split": "validation"}, "eval_split validation are the same images"),
        ({"validation_split": "train"}, "train_split train are the same images"),
        ({"validation_split": "nope", "eval_split": "val"}, "cannot give split 'nope'"),
        ({"validation_share": 0.2}, "Several splits could be evaluated on: test_a, test_b"),
    ],
)
def test_a_split_for_two_purposes_is_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    small = {"a": range(20, 21), "b": range(21, 22)}
    with pytest.raises(InputError, match=said):
        _open(_three_splits(tmp_path, val=small, test_a=small, test_b=small), **options)


def test_images_that_choose_and_measure_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = {"a": range(4), "b": range(4, 8)}, {"a": range(3, 10), "b": range(10, 12)}
    root = _write_folder(tmp_path, train=train, val=val, test={"a": range(9, 13), "b": range(13, 14)})
    _open(root, validation_split="val")
    assert "of the 9 images of split 'val' are also in split 'train'" in caplog.text
    assert "of the 5 images of split 'test' are also in split 'val'" in caplog.text


def test_a_share_or_a_split() -> None:
    with pytest.raises(InputError, match="or validation_split val, not both"):
        DataConfig("data", validation_share=0.1, validation_split="val")
    with pytest.raises(InputError, match="eval_split or validation_split"):
        DataConfig("data", validation_share=0.1, streaming=True)


@pytest.mark.parametrize("options", [{}, {"image_size": 8}, {"image_size": 8, "streaming": True}])
def test_decoding_leaves_the_global_generators_alone(tmp_path: Path, options: dict[str, object]) -> None:
    """A run decodes after its networks are built: what they draw later is the same as if it had decoded before."""

    def states() -> list[object]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]

    write_encoded(tmp_path / "train.parquet", _SORTED)
    write_encoded(tmp_path / "test.parquet", _SORTED)
    before = states()
    data = _open(tmp_path, label_noise=0.0 if options.get("streaming") else 0.2, **options)
    data.feed(4, 0, Accelerator(cpu=True)).close()
    assert states() == before
