"""Tiny datasets made on the spot; nothing is written outside the test's own folder."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))


def encode(pixels: np.ndarray, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def numbered_pixels(number: int, height: int = 6, width: int = 6) -> np.ndarray:
    """An RGB image that says which one it is: its first pixel is (number % 256, number // 256, 0)."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[0, 0] = (number % 256, number // 256, 0)
    return pixels


def write_encoded(path: Path, labels: Sequence[str], names: Sequence[str] | None = None) -> None:
    """A parquet file whose labels were numbered on their own, by these names; as text where there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = datasets.Value("string") if names is None else datasets.ClassLabel(names=list(names))
    values = list(labels) if names is None else [names.index(label) for label in labels]
    images = [{"bytes": encode(numbered_pixels(row)), "path": None} for row in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    datasets.Dataset.from_dict({"image": images, "label": values}, features).to_parquet(path)


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., str]:
    """Writes train.parquet: columns ``image`` and ``label`` (a ClassLabel unless label_type says otherwise)."""

    def write(
        images: Sequence[bytes | None],
        labels: Sequence[Any],
        *,
        label_type: Any = None,
        names: Sequence[str] = ("cat", "dog"),
        file_name: str = "train.parquet",
        row_group: int | None = None,
    ) -> str:
        features = datasets.Features(
            {"image": datasets.Image(), "label": label_type or datasets.ClassLabel(names=list(names))}
        )
        cells = [None if image is None else {"bytes": image, "path": None} for image in images]
        path = tmp_path / file_name
        row_group = row_group or (None if cells else 1)  # of no rows, datasets 5.0 and 5.1 find no size
        datasets.Dataset.from_dict({"image": cells, "label": list(labels)}, features).to_parquet(path, row_group)
        return str(path)

    return write


@pytest.fixture
def numbered_parquet(write_parquet: Callable[..., str]) -> Callable[..., str]:
    """Writes n rows whose images and labels say their number; the label of row i is i % 2."""

    def write(num_rows: int, **options: Any) -> str:
        images = [encode(numbered_pixels(row)) for row in range(num_rows)]
        return write_parquet(images, [row % 2 for row in range(num_rows)], **options)

    return write
