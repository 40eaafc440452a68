"""A stream from a Hub that does wrong: what passes is not noticed, what does not ends in a checkpoint and an error."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch

from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.errors import InputError
from hf_transinv.training.checkpointing import checkpoints
from tests.data.conftest import encode
from tests.launching import MULTI_TEACHER, PYTHON, TWO_PROCESSES, launch, saved_steps, succeed, tiny_teachers
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import OLD_CLIENT, hub, hub_here, hub_of_datasets, since_1
from tests.tiny_run import tiny_trainer

__all__ = ["hub", "hub_here", "hub_of_datasets"]

_STORAGE = "/datasets/lab/pictures/*"
_NAMES = ("ant", "bee", "cat")
_NUM_ROWS = 48


def _shard(folder: Path, rows: range) -> bytes:
    """Row groups of 4 images of 32 px; row i is of class i modulo 3."""
    pixels = [np.random.default_rng(row).integers(0, 256, (32, 32, 3), dtype=np.uint8) for row in rows]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(_NAMES))})
    columns = {
        "image": [{"bytes": encode(image), "path": None} for image in pixels],
        "label": [row % 3 for row in rows],
    }
    datasets.Dataset.from_dict(columns, features).to_parquet(folder / "shard.parquet", 4)
    return (folder / "shard.parquet").read_bytes()


def _put_pictures(hub: LoopbackHub, folder: Path) -> None:
    parts = {
        "train-00000-of-00002": range(20),
        "train-00001-of-00002": range(20, _NUM_ROWS),
        "test-00000-of-00001": range(9),
    }
    hub.put("lab/pictures", {f"data/{name}.parquet": _shard(folder, rows) for name, rows in parts.items()}, "dataset")


@pytest.fixture
def pictures(hub_of_datasets: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    _put_pictures(hub_of_datasets, tmp_path)
    return hub_of_datasets


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client meant to wait."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 2)
    return seconds


@pytest.fixture
def feed(pictures: LoopbackHub) -> Iterator[StreamingFeed]:
    opened = StreamingFeed(open_source("lab/pictures", streaming=True), 8, 0, buffer_size=8)
    yield opened
    opened.close()


def _batches(feed: StreamingFeed, count: int) -> list[torch.Tensor]:
    return list(chain(*(feed.next_batch() for _ in range(count))))


def _assert_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_stream_asks_once_for_a_row_group_and_not_for_the_files_again(
    pictures: LoopbackHub, feed: StreamingFeed
) -> None:
    before = len(pictures.requests)
    _batches(feed, 6)
    feed.close()
    asked = Counter((entry.path, entry.range) for entry in pictures.requests[before:] if entry.status == 206)
    assert len(asked) == 12 and max(asked.values()) <= 2  # in this epoch, and ahead in the next one
    others = [entry for entry in pictures.requests[before:] if entry.status not in (206, 302)]
    # Before 1.0 each thread of the client lists the repository once for itself.
    assert [entry for entry in others if not (OLD_CLIENT and entry.path.startswith("/api/"))] == []


@pytest.mark.parametrize(
    ("kind", "options", "waited"),
    [
        pytest.param("cut", {}, 1, marks=since_1),
        ("lost", {}, 1),
        (429, {"retry_after": 2}, 60 if OLD_CLIENT else 3),  # which did not read the answer's header
        (500, {}, 1),
        (503, {}, 1),
        ("slow", {"seconds": 30}, 1),
    ],
)
def test_a_fault_that_passes_changes_nothing(
    pictures: LoopbackHub,
    feed: StreamingFeed,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    kind: int | str,
    options: dict[str, int],
    waited: float,
) -> None:
    state = feed.state_dict()
    expected = _batches(feed, 9)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    pictures.misbehave("GET", _STORAGE, kind, after=3, times=2, **options)
    feed.load_state_dict(state)
    _assert_equal(_batches(feed, 9), expected)
    assert pictures.pending() == [] and waited in waits


@pytest.mark.parametrize("kind", ["lost", 429, 500, 503])
def test_a_hub_that_does_not_come_back_is_an_error_and_nothing_is_lost(
    pictures: LoopbackHub, feed: StreamingFeed, waits: list[float], kind: int | str
) -> None:
    state = feed.state_dict()
    expected = _batches(feed, 9)
    pictures.misbehave("GET", _STORAGE, kind, after=26, times=None)
    feed.load_state_dict(state)
    seen = []
    with pytest.raises(InputError, match=r"lab/pictures, split 'train', cannot be read any further: ") as refused:  # noqa: PT012 (some come first)
        for _ in range(9):
            seen += feed.next_batch()
    assert pictures.token not in str(refused.value) and len(waits) >= (2 if OLD_CLIENT else 5)
    state = feed.state_dict()
    assert 0 < len(seen) < len(expected)
    pictures.behave()
    feed.load_state_dict(state)
    _assert_equal(seen + _batches(feed, 9 - len(seen) // 2), expected)


def test_a_hub_that_is_gone_is_not_taken_for_bad_images(hub_of_datasets: LoopbackHub, waits: list[float]) -> None:
    """Of a folder of images, each is fetched when it is decoded."""
    image = encode(np.zeros((8, 8, 3), np.uint8))
    hub_of_datasets.put("lab/folder", {f"train/{name}/{n}.png": image for name in _NAMES for n in range(4)}, "dataset")
    source = open_source("lab/folder", streaming=True)
    assert source.row_groups is None and source.label_names == list(_NAMES)
    feed = StreamingFeed(source, 4, 0, image_size=8, on_bad_image="skip")
    try:
        assert sorted(chain(*(feed.next_batch()[1].tolist() for _ in range(3)))) == [0] * 4 + [1] * 4 + [2] * 4
        feed.close()
        hub_of_datasets.misbehave("GET", "*.png", 500, times=None)
        with pytest.raises(InputError, match=r"png cannot be read: .*500"):
            feed.next_batch()
        assert feed.num_skipped == 0
    finally:
        feed.close()


def test_a_run_whose_hub_is_gone_stops_with_a_checkpoint_and_goes_on_from_it(
    pictures: LoopbackHub, waits: list[float], tmp_path: Path
) -> None:
    opened = []

    def feed(batch_size: int, seed: int, accelerator: object) -> StreamingFeed:
        opened.append(StreamingFeed(open_source("lab/pictures", streaming=True), batch_size, seed, buffer_size=8))
        return opened[-1]

    options = {"feed": feed, "max_steps": 9, "save_steps": 100}
    tiny_trainer(tmp_path / "whole", **options).train()
    lost = tiny_trainer(tmp_path / "lost", **options)
    pictures.misbehave("GET", _STORAGE, 503, after=24, times=None)
    with pytest.raises(InputError, match=r"cannot be read any further.*checkpoint is written.*--resume_from latest"):
        lost.train()
    (saved,) = checkpoints(tmp_path / "lost" / "checkpoints")
    assert 0 < lost.step < 9 and saved.name == f"step_{lost.step:08d}"
    pictures.behave()
    resumed = tiny_trainer(tmp_path / "lost", **options)
    resumed.resume(saved)
    resumed.train()
    ends = [checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "lost")]
    assert {end.name for end in ends} == {"step_00000009"}
    for name in ("student", "augmentation"):
        assert len({(end / f"{name}.safetensors").read_bytes() for end in ends}) == 1
    for one in opened:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [PYTHON, TWO_PROCESSES], ids=["one process", "two processes"])
def test_a_recipe_whose_hub_is_gone_resumes_to_the_same_bits(tmp_path: Path, launcher: list[str]) -> None:
    """The client waits its real half minute here before it gives up."""
    with LoopbackHub() as hub:
        _put_pictures(hub, tmp_path)
        flags = ["--teachers", *tiny_teachers(tmp_path / "teachers"), "--dataset", "lab/pictures", "--streaming"]
        flags += ["--student", "wrn10_1_cifar", "--batch_size", 8, "--inner_steps", 2, "--shuffle_buffer", 8]
        flags += ["--max_steps", 9, "--save_steps", 100, "--eval_corruptions", "none", "--output_dir"]
        world = {"cwd": tmp_path, "ACCELERATE_USE_CPU": "true", **hub.environment(tmp_path)}
        succeed(launcher, MULTI_TEACHER, *flags, "whole", **world)
        processes = 2 if launcher is TWO_PROCESSES else 1
        opening = 12 * processes  # two requests for each thing: the Hub answers with the place of the file
        hub.misbehave("GET", "*/train-*.parquet", 500, after=opening + 44, times=None)
        done = launch(launcher, MULTI_TEACHER, *flags, "lost", **world)
        assert done.returncode == (2 if processes == 1 else 1), done.stderr[-5000:]
        assert "cannot be read any further" in done.stderr and "a checkpoint is written" in done.stderr
        assert 'Traceback (most recent call last):\n  File "' + str(MULTI_TEACHER) not in done.stderr
        (step,) = saved_steps(tmp_path / "lost")
        assert 0 < step < 9
        hub.behave()
        succeed(launcher, MULTI_TEACHER, *flags, "lost", "--resume_from", "latest", **world)
        for name in ("student", "augmentation"):
            path = f"checkpoints/step_00000009/{name}.safetensors"
            assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "lost" / path).read_bytes()
