"""How fast: images a second of each corruption, batched, beside the authors' generator that goes image by image.

python recipes/benchmark.py
    one thread and two, 128 images of 32 px, on the CPU or, where there is one, on the GPU
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm import tqdm

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption, corrupt
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.command_line import parse
from hf_transinv.errors import InputError
from hf_transinv.launch import clear_errors
from hf_transinv.record import environment, write_json

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


@dataclass
class BenchmarkConfig:
    """What is measured.

    Attributes:
        corruptions: which; default: all there are.
        batch_size: images a call.
        image_size: their side in pixels.
        threads: a column for each number of threads.
        seconds: time for each figure, at least.
        output: file for the numbers as JSON; default: none.
        seed: of the images and of what is drawn.
    """

    corruptions: tuple[str, ...] = CORRUPTIONS
    batch_size: int = 128
    image_size: int = 32
    threads: tuple[int, ...] = (1, 2)
    seconds: float = 0.3
    output: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.corruptions:
            check_corruption(name)
        if min(self.batch_size, self.image_size // 8, *self.threads) < 1 or self.seconds <= 0:
            raise InputError("batch_size and threads must be at least 1, image_size at least 8, seconds positive")


def picture_like(batch_size: int, size: int, seed: int) -> Tensor:
    """Smooth images with some grain, 8-bit levels in [0, 1], [B, 3, size, size]: to a codec noise is no picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (size, size), mode="bicubic")
    grain = 0.02 * torch.randn(smooth.shape, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).round() / 255


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
    for name in tqdm(config.corruptions, unit="corruption"):
        for threads in config.threads:
            calls = [seconds_per_call(name, severity, images, threads, config) for severity in SEVERITIES]
            speeds.setdefault(name, []).append(len(calls) * config.batch_size / sum(calls))
    return speeds


def markdown(speeds: dict[str, list[float]], config: BenchmarkConfig) -> str:
    """A row a corruption, and the whole sweep; the last column is the first one over the authors'."""
    with_authors = config.image_size == 32
    header = ["images/s", *(f"{n} thread{'s' * (n > 1)}" for n in config.threads)]
    header += ["authors, one core", "ratio"] if with_authors else []
    rows = [[name.replace("_", " "), *values, AUTHORS[name]] for name, values in speeds.items()]
    if len(speeds) > 1:
        sweep = [len(speeds) / sum(1 / values[i] for values in speeds.values()) for i in range(len(config.threads))]
        rows.append(["all, one after another", *sweep, AUTHORS_SWEEP if len(speeds) == len(AUTHORS) else None])
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, *values, authors in rows:
        line = [name, *(f"{value:,.0f}" for value in values)]
        if with_authors:
            line += [f"{authors:,}", f"{values[0] / authors:.1f}"] if authors else ["–", "–"]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    (config,) = parse([BenchmarkConfig], description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = measure(config, device)
    hardware = environment()
    if config.output:
        content = {"config": asdict(config), "images_per_second": speeds, **hardware}
        write_json(Path(config.output), content)
    print(f"\nbatch {config.batch_size}, {config.image_size} px, {device.type}\n\n{markdown(speeds, config)}")


if __name__ == "__main__":
    with clear_errors():
        main()
