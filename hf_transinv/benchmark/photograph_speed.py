"""Training batches of photographs: our feeds, timm's loader and torch's with torchvision, on one folder of JPEGs.

Every row makes the same of a photograph of 500x375 pixels: a random resized crop of 224 px, mirrored or not, in
[0, 1] (timm's loader also normalises). All threads and workers of a row share one core, whose time is what counts.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.synthetic import picture_levels
from hf_transinv.benchmark.timing import Spread
from hf_transinv.data.batches import Feed
from hf_transinv.data.pictures import Crops
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.data.transforms import CropFlip, to_float
from hf_transinv.formats.markdown import table
from hf_transinv.formats.terminal import stages

_SIDE, _STORED = 224, 258  # as --image_size 224 has it
_WIDTH, _HEIGHT = 500, 375
_SCALE = (0.35, 1.0)
_READ_AHEAD = 5  # batches, more than a stream keeps
FIRST, STREAMED, TIMM = "resident, first epoch with decoding", "streamed", "timm, no worker"
NOTE = """\
{count} photographs of 500x375 pixels, {bytes:,.0f} kB each, to batches of {batch} crops of 224 px. Images a second of
one core, which all threads and workers share: processor time, median of the rounds.

Peak memory of a process that makes one epoch of such batches: resident {resident:,.0f} MB, streamed
{streamed:,.0f} MB; {before:,.0f} MB of them before it opens the data."""


def section(config: BenchmarkConfig) -> tuple[str, dict[str, Any]]:
    """The table as Markdown, and its numbers; neither where no photographs are asked for."""
    if not config.photographs:
        return "", {}
    with tempfile.TemporaryDirectory() as folder:
        size = write_photographs(Path(folder), config.photographs, config.seed)
        with _one_core():
            figures = measure(Path(folder), config)
        memory = {name: peaks(name, Path(folder), config) for name in (FIRST, STREAMED)}
    shown = {"resident": memory[FIRST][1], "streamed": memory[STREAMED][1], "before": memory[FIRST][0]}
    note = NOTE.format(count=config.photographs, bytes=size / 1000, batch=_batch_size(config), **shown)
    numbers: dict[str, Any] = {"photographs": {name: asdict(spread) for name, spread in figures.items()}}
    numbers["photograph_memory"] = {name: {"before": before, "peak": peak} for name, (before, peak) in memory.items()}
    return f"\n\n{markdown(figures)}\n\n{note}", numbers


def write_photographs(folder: Path, count: int, seed: int) -> float:
    """Writes JPEGs of quality 90 into two class folders; returns their mean size in bytes."""
    size = 0
    for number in range(count):
        path = folder / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = picture_levels(1, _WIDTH, seed + number)[0, :, :_HEIGHT]
        functional.to_pil_image(levels).save(path, "JPEG", quality=90)
        size += path.stat().st_size
    return size / count


def measure(folder: Path, config: BenchmarkConfig) -> dict[str, Spread]:
    """Images a second of processor time, by row; every row makes epochs, one at least, in every round."""
    rows = epochs(folder, config)
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in stages(range(config.rounds), "photographs", "round"):
        for name, epoch in rows.items():
            count, seconds = 0, 0.0
            while seconds <= config.seconds:
                with ExitStack() as opened:
                    batches, before = epoch(opened), _processor_seconds()
                    count += sum(len(batch) for batch in batches)
                    seconds += _processor_seconds() - before
            found[name].append(count / seconds)
    return {name: Spread.of(values) for name, values in found.items()}


def epochs(folder: Path, config: BenchmarkConfig) -> Mapping[str, Callable[[ExitStack], Iterator[torch.Tensor]]]:
    """For each row what returns an epoch of batches, float [B, 3, 224, 224], given a stack that closes its feed."""
    batch_size, source = _batch_size(config), open_source(str(folder))
    batches = config.photographs // batch_size

    def load() -> ResidentSplit:
        return ResidentSplit.load(source, image_size=_SIDE, stored_size=_STORED, show_progress=False)

    augmentation, generator = CropFlip("resized", scale=_SCALE), torch.Generator().manual_seed(config.seed)

    def cropped(feed: Feed) -> Iterator[torch.Tensor]:
        for _ in range(batches):
            images, _ = feed.next_batch()
            if isinstance(images, Crops):
                yield to_float(images.variants[0])
            else:
                yield to_float(augmentation(images, augmentation.draw(len(images), (_SIDE, _SIDE), generator)))

    def first(_: ExitStack) -> Iterator[torch.Tensor]:
        yield from cropped(ResidentFeed(load(), batch_size, config.seed))

    def streamed(opened: ExitStack) -> Iterator[torch.Tensor]:
        stream = open_source(str(folder), streaming=True)
        feed = StreamingFeed(stream, batch_size, config.seed, image_size=_SIDE, crop=augmentation)
        opened.enter_context(closing(feed))
        for _ in range(_READ_AHEAD):  # then as much is decoded as is drawn
            feed.next_batch()
        return cropped(feed)

    @cache
    def held() -> Feed:
        return ResidentFeed(load(), batch_size, config.seed)

    return {
        FIRST: first,
        "resident, later epochs": lambda _: cropped(held()),
        STREAMED: streamed,
        TIMM: partial(_of_timm, folder, batch_size, 0),
        "timm, one worker": partial(_of_timm, folder, batch_size, 1),
        "torchvision v2 + DataLoader, no worker": partial(_of_torchvision, folder, batch_size),
    }


def peaks(name: str, folder: Path, config: BenchmarkConfig) -> tuple[float, float]:
    """The peak memory of a process of its own that makes an epoch of a row: before it opens the data and after, MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peaks, name, folder, config).result()


def _peaks(name: str, folder: Path, config: BenchmarkConfig) -> tuple[float, float]:
    before = _peak_memory()
    with ExitStack() as opened:
        for _ in epochs(folder, config)[name](opened):
            pass
    return before, _peak_memory()


def _peak_memory() -> float:
    """Of this process, MB. On Linux `ru_maxrss` may be that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _of_timm(folder: Path, batch_size: int, workers: int, _: ExitStack) -> Iterator[torch.Tensor]:
    from timm.data import ImageDataset, create_loader

    loader = create_loader(
        ImageDataset(str(folder / "train")),
        input_size=(3, _SIDE, _SIDE),
        batch_size=batch_size,
        is_training=True,
        scale=_SCALE,
        color_jitter=None,  # type: ignore[arg-type]  # timm's way to leave it out
        interpolation="bilinear",
        num_workers=workers,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    for images, _ in loader:
        yield images


def _of_torchvision(folder: Path, batch_size: int, _: ExitStack) -> Iterator[torch.Tensor]:
    from torchvision.datasets import ImageFolder
    from torchvision.io import decode_image

    crop = v2.RandomResizedCrop(_SIDE, scale=_SCALE, antialias=True)
    transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
    dataset = ImageFolder(str(folder / "train"), transform, loader=decode_image)
    for images, _ in DataLoader(dataset, batch_size, shuffle=True, drop_last=True):
        yield images


@contextmanager
def _one_core() -> Iterator[None]:
    """This thread, and the threads and processes that it starts, on one core, where the system has that.

    Two that are busy at once take more time each, by what they share.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    may_use = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if may_use:
        os.sched_setaffinity(0, {min(may_use)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if may_use:
            os.sched_setaffinity(0, may_use)


def _processor_seconds() -> float:
    """Of this process with all its threads, and of the workers that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime


def _batch_size(config: BenchmarkConfig) -> int:
    return min(config.batch_size, config.photographs)


def markdown(figures: Mapping[str, Spread]) -> str:
    """One line per row, each with its ratio to timm's loader without a worker."""
    header = ["photographs", "images/s of one core", "smallest to largest", "ratio to timm, no worker"]
    lines = [
        [
            name,
            f"{spread.median:,.0f}",
            f"{spread.low:,.0f} to {spread.high:,.0f}",
            f"{spread.median / figures[TIMM].median:.2f}",
        ]
        for name, spread in figures.items()
    ]
    return table(header, lines)
