"""Where batches come from: our two feeds and the usual loader, on one parquet file of PNG images.

The file lies in a temporary folder.

    resident     decoded once into a tensor on the device; a batch is a gather
    streaming    read as a stream, shuffled by a buffer, decoded ahead by threads
    DataLoader   `datasets` with a transform that decodes, in torch's loader: in the main process, or in one worker

Each is drawn from alone, and while plain training goes on with it. What was read ahead before the clock starts is
thrown away first.
"""

import io
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from PIL.Image import Image as Picture
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional

from hf_transinv.benchmark import photograph_speed
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import PLAIN, Entry, build_objective, build_trainer
from hf_transinv.benchmark.synthetic import class_names, picture_levels
from hf_transinv.benchmark.timing import Spread, repeats, seconds_a_call
from hf_transinv.data.batches import Feed
from hf_transinv.data.pictures import BatchImages
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import Source, open_source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.formats.markdown import table
from hf_transinv.formats.terminal import stages
from hf_transinv.training.trainer import Trainer

_CHUNK = 256  # images made at a time
_READ_AHEAD = 5  # batches, more than any of the feeds keeps
NOTE = """\
Median of the rounds. waiting: share of a plain student turn in which the host waits for its batch; a GPU may be busy
with the turn before. The resident feed decodes once, at {decoded:,.0f} images/s."""

Batch = tuple[BatchImages, Tensor]


class WatchedFeed:
    """What a turn asks of a feed, with the time that it is waited for.

    Args:
        batch_size: images in a batch.
        draw: returns the next batch.
    """

    def __init__(self, batch_size: int, draw: Callable[[], Batch]) -> None:
        self.batch_size, self._draw = batch_size, draw
        self.waited = 0.0

    def next_batch(self) -> Batch:
        """The next batch; `waited` seconds become more."""
        started = time.perf_counter()
        batch = self._draw()
        self.waited += time.perf_counter() - started
        return batch

    def use_up(self) -> None:
        """Throw away what was read ahead, and count `waited` from 0."""
        for _ in range(_READ_AHEAD):
            self._draw()
        self.waited = 0.0


@dataclass
class FeedFigures:
    """A feed, and what its rounds gave.

    Attributes:
        name: in the table.
        feed: it.
        trainer: plain training with it.
        alone: images a second that it gives when nothing else is done, a figure a round.
        training: images a second of the training.
        waiting: share of a turn that it is waited for.
    """

    name: str
    feed: WatchedFeed
    trainer: Trainer
    alone: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def measure(self, draws: int, turns: int) -> None:
        """One more round: so many batches alone, then so many turns."""
        device, feed = self.trainer.accelerator.device, self.feed
        feed.use_up()
        self.alone.append(feed.batch_size / seconds_a_call(self.draw, draws, device))
        feed.use_up()
        seconds = seconds_a_call(self.trainer.take_turn, turns, device)
        self.training.append(feed.batch_size / seconds)
        self.waiting.append(feed.waited / (seconds * turns))

    def draw(self) -> None:
        """A batch, to the device."""
        for tensor in self.feed.next_batch():
            tensor.to(self.trainer.accelerator.device, non_blocking=True)


@dataclass(frozen=True)
class FeedRow:
    """Images a second of a feed alone and in plain training, and the share of a turn that it is waited for."""

    feed: str
    alone: Spread
    training: Spread
    waiting: Spread


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """The table as Markdown, and its numbers."""
    rows, decoded = measure(config, accelerator)
    numbers = {"feeds": [asdict(row) for row in rows], "decoded_images_per_second": decoded}
    of_photographs, more = photograph_speed.section(config)
    return f"{markdown(rows)}\n\n{NOTE.format(decoded=decoded)}{of_photographs}", numbers | more


def measure(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[list[FeedRow], float]:
    """A row a feed, and the images a second that the resident one decodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_parquet(Path(folder), config)
        source, started = held(path), time.perf_counter()
        split = ResidentSplit.load(source, device=accelerator.device, show_progress=False)
        decoded = len(split) / (time.perf_counter() - started)
        with open_feeds(path, split, config, accelerator.device) as opened:
            figures = []
            for name, draw in opened:
                objective = build_objective(Entry(PLAIN, "supervised"), config, accelerator.device)
                trainer = build_trainer(objective, config, accelerator, split)
                feed = WatchedFeed(config.batch_size, draw)
                trainer.feeds = {"student": cast(Feed, feed)}  # a turn asks for batches, nothing else
                figures.append(FeedFigures(name, feed, trainer))
            counts = [_counts(each, config) for each in figures]
            for _ in stages(range(config.rounds), "feeds", "round"):
                for each, (draws, turns) in zip(figures, counts, strict=True):
                    each.measure(draws, turns)
        accelerator.free_memory()
    rows = [
        FeedRow(each.name, *(Spread.of(values) for values in (each.alone, each.training, each.waiting)))
        for each in figures
    ]
    return rows, decoded


def _counts(figures: FeedFigures, config: BenchmarkConfig) -> tuple[int, int]:
    """Batches and turns of a round, after some that warm up."""
    device = figures.trainer.accelerator.device
    seconds_a_call(figures.trainer.take_turn, 1, device)
    figures.feed.use_up()
    # Of so many, half at most were read ahead.
    draws = repeats(config.seconds, seconds_a_call(figures.draw, 2 * _READ_AHEAD, device))
    turns = repeats(config.seconds, seconds_a_call(figures.trainer.take_turn, 1, device))
    return draws, max(turns, config.inner_steps)


# The data, and what draws batches from it


def write_parquet(folder: Path, config: BenchmarkConfig) -> Path:
    """A parquet file of PNG images with labels, as a data set on the Hub has it."""
    from datasets import ClassLabel, Dataset, Features, Image

    cells = []
    for start in range(0, config.feed_images, _CHUNK):
        count = min(_CHUNK, config.feed_images - start)
        for image in picture_levels(count, config.image_size, config.seed + start):
            cells.append({"bytes": _png(functional.to_pil_image(image)), "path": None})
    names = class_names(config.num_classes)
    labels = [row % len(names) for row in range(len(cells))]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    path = folder / "train.parquet"
    Dataset.from_dict({"image": cells, "label": labels}, features).to_parquet(path)
    return path


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _dataset(path: Path) -> Any:
    """The file as a `datasets.Dataset` that keeps its copy beside it, not in the user's cache."""
    from datasets import Dataset

    return Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))


def held(path: Path) -> Source:
    """The file as the library opens it, but for that copy."""
    from datasets import Image

    rows = _dataset(path)
    names = rows.features["label"].names
    return Source(rows.cast_column("image", Image(decode=False)), names, len(rows), str(path), "train", False)


@contextmanager
def open_feeds(
    path: Path, split: ResidentSplit, config: BenchmarkConfig, device: torch.device
) -> Iterator[list[tuple[str, Callable[[], Batch]]]]:
    """Every feed: its name, and what returns its next batch."""
    rows = _dataset(path).with_transform(_decoded)
    with (
        closing(StreamingFeed(open_source(str(path), streaming=True), config.batch_size, config.seed)) as streaming,
        closing(_endless(_loader(rows, 0, config, device))) as here,
        closing(_endless(_loader(rows, 1, config, device))) as in_a_worker,
    ):
        yield [
            ("resident", ResidentFeed(split, config.batch_size, config.seed).next_batch),
            ("streaming", streaming.next_batch),
            ("datasets + DataLoader, no worker", here.__next__),
            ("datasets + DataLoader, one worker", in_a_worker.__next__),
        ]


def _loader(rows: Any, workers: int, config: BenchmarkConfig, device: torch.device) -> DataLoader:
    return DataLoader(
        rows,
        config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(config.seed),
    )


def _decoded(rows: dict[str, list]) -> dict[str, list]:
    return {"image": [functional.pil_to_tensor(image) for image in rows["image"]], "label": rows["label"]}


def _endless(loader: DataLoader) -> Generator[Batch, None, None]:
    while True:
        for batch in loader:
            yield batch["image"], batch["label"]


def markdown(rows: Sequence[FeedRow]) -> str:
    """One line per feed."""
    header = ["feed, images/s", "alone", "smallest to largest", "plain training", "waiting", "smallest to largest"]
    lines = [
        [
            row.feed,
            f"{row.alone.median:,.0f}",
            f"{row.alone.low:,.0f} to {row.alone.high:,.0f}",
            f"{row.training.median:,.0f}",
            f"{row.waiting.median:.1%}",
            f"{row.waiting.low:.1%} to {row.waiting.high:.1%}",
        ]
        for row in rows
    ]
    return table(header, lines)
