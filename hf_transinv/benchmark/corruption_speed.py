"""Images a second of each corruption, batched, beside the authors' generator that goes image by image."""

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.benchmark import Timer

from hf_transinv.augment.corruptions import corrupt
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.synthetic import picture_like
from hf_transinv.formats.markdown import table
from hf_transinv.formats.terminal import stages

# Images a second of make_cifar_c.py (hendrycks/robustness) on one core at 32 px, mean of the severities; measured in
# another run: the ratio to them is an order of magnitude.
AUTHORS = {
    "gaussian_noise": 15_500,
    "shot_noise": 6_400,
    "impulse_noise": 8_600,
    "defocus_blur": 7_900,
    "glass_blur": 350,
    "motion_blur": 1_020,
    "zoom_blur": 640,
    "snow": 890,
    "frost": 220,
    "fog": 3_800,
    "brightness": 5_200,
    "contrast": 32_600,
    "elastic_transform": 2_700,
    "pixelate": 50_200,
    "jpeg_compression": 12_700,
}
AUTHORS_SWEEP = 1_200


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """The table as Markdown, and its numbers."""
    speeds = measure(config, accelerator.device)
    return markdown(speeds, config), {"images_per_second": speeds}


def seconds_per_call(name: str, severity: int, images: Tensor, threads: int, config: BenchmarkConfig) -> float:
    """Median seconds of one call on the whole batch."""
    generator = torch.Generator(images.device).manual_seed(config.seed)
    call = {"corrupt": corrupt, "images": images, "name": name, "severity": severity, "generator": generator}
    timer = Timer("corrupt(images, name, severity, generator)", globals=call, num_threads=threads)
    return timer.blocked_autorange(min_run_time=config.seconds / len(SEVERITIES)).median


def measure(config: BenchmarkConfig, device: torch.device) -> dict[str, list[float]]:
    """Images a second of each corruption, all five severities in turn; one figure a number of threads."""
    images = picture_like(config.batch_size, config.image_size, config.seed).to(device)
    speeds: dict[str, list[float]] = {}
    for name in stages(config.corruptions, "corruptions", "corruption"):
        for threads in config.threads:
            calls = [seconds_per_call(name, severity, images, threads, config) for severity in SEVERITIES]
            speeds.setdefault(name, []).append(len(calls) * config.batch_size / sum(calls))
    return speeds


def markdown(speeds: dict[str, list[float]], config: BenchmarkConfig) -> str:
    """A row a corruption, and the whole sweep; the last column is the first one over the authors'."""
    with_authors = config.image_size == 32
    header = ["images/s", *(f"{n} thread{'s' * (n > 1)}" for n in config.threads)]
    header += ["authors, one core", "ratio"] if with_authors else []
    rows: list[tuple[str, list[float], float | None]] = [
        (name.replace("_", " "), values, AUTHORS[name]) for name, values in speeds.items()
    ]
    if len(speeds) > 1:
        sweep = [len(speeds) / sum(1 / values[i] for values in speeds.values()) for i in range(len(config.threads))]
        rows.append(("all, one after another", sweep, AUTHORS_SWEEP if len(speeds) == len(AUTHORS) else None))
    lines = []
    for name, values, authors in rows:
        line = [name, *(f"{value:,.0f}" for value in values)]
        if with_authors:
            line += [f"{authors:,}", f"{values[0] / authors:.1f}"] if authors else ["–", "–"]
        lines.append(line)
    return table(header, lines)
