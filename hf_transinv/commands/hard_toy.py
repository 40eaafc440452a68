r"""Run the toy experiment of HARD, in our reading: does distillation pass on shift invariance?

The teacher is shift-invariant by construction: circular convolutions and a
global maximum, on digits centred on a larger canvas. The student is a
perceptron, which knows nothing of neighbouring pixels. Both are trained on
centred digits only and tested on shifted ones, which are out of distribution.

transinv hard-toy
    the embedded digits, three seeds, six minutes on one core: a table,
    hard_toy.json and a figure

transinv hard-toy --seeds 0 --hard_augmenter thin_plate \
    --output_dir outputs/toy
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from matplotlib.figure import Figure
from torch import Tensor, nn

from hf_transinv.augment.hard_augmenters import Augmenter, AugmenterConfig, build_augmenter
from hf_transinv.config import OutputConfig, TrainConfig, as_dict
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.data.transforms import CropFlip, to_float
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.launch import Stopped, output_folder, start_accelerator
from hf_transinv.figures import method_styles, save_figure
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.markdown import table
from hf_transinv.models import Classifier, Teacher
from hf_transinv.objectives.hard import Hard, HardConfig
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.record import environment
from hf_transinv.resolve.shipped import config_folder
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup

MARGIN = 4  # pixels around the 8 px digits, and so the largest shift that leaves them whole
SIDE = 8 + 2 * MARGIN
DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
WIDE = {"hard_init_scale": 0.3}  # before the tanh a standard deviation of about 1: nearly uniform over the ranges
STILL = {"hard_linear_range": 0.0, "hard_shift_range": 0.0, "hard_displacement_range": 0.0}


@dataclass
class ToyConfig:
    """The toy.

    Attributes:
        seeds: one teacher and its students are trained with each.
        teacher_steps: steps in which a teacher is trained.
        output_dir: where table, numbers and figure go; default: a new folder under outputs/.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    teacher_steps: int = 300
    output_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}: expected at least one, each once, none negative")
        if self.teacher_steps < 1:
            raise InputError(f"teacher_steps must be at least 1, given {self.teacher_steps}")


class StudentAlone(Hard):
    """HARD without the augmenter's turns: distillation under an untrained augmenter."""

    turns: Any = (("student",),)

    def next_turn(self, turn: int) -> tuple[str, ...]:
        return ("student",)


def digits(split: str) -> ResidentSplit:
    """The digits 0 to 4 in the middle of the canvas."""
    small = ResidentSplit.load(open_source("digits/source", split=split), show_progress=False)
    return replace(small, images=F.pad(small.images, (MARGIN,) * 4))


def invariant_network(classes: int) -> nn.Module:
    """Circular convolutions and a global maximum: a circular shift of the image does not change the logits."""
    options: dict[str, Any] = {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}
    return nn.Sequential(
        *(nn.Conv2d(1, 12, **options), nn.ReLU(), nn.Conv2d(12, 16, **options), nn.ReLU()),
        *(nn.Conv2d(16, 32, **options), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, classes)),
    )


def perceptron(classes: int) -> nn.Module:
    """A network in which every pixel is an input of its own."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(SIDE**2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
        nn.Linear(256, classes),
    )


def classifier(build: Callable[[int], nn.Module], classes: int, seed: int) -> Classifier:
    """An untrained network, with the weights that the seed gives; of one channel, as the digits are grey."""
    set_seed(seed)
    return Classifier(build(classes), num_classes=classes, input_size=(SIDE, SIDE), mean=(0.1,), std=(0.25,))


def train(
    objective: Objective, split: ResidentSplit, config: TrainConfig, folder: Path, accelerator: Accelerator
) -> None:
    """Train one network for `max_steps`, without crop or flip."""
    assert config.max_steps is not None
    feeds: dict[str, Any] = {
        player: ResidentFeed(split, config.batch_size, config.seed + 1_000_003 * (player != "student"))
        for (player,) in objective.turns
    }
    folder.mkdir(parents=True)
    ordinary = CropFlip("none", flip=False)
    steps = config.max_steps, len(split) / config.batch_size
    setup = TrainerSetup(feeds, ordinary, config, *steps, folder, folder.name)
    trainer = Trainer(accelerator, objective, setup)
    trainer.train()
    if trainer.stopped:
        raise Stopped(f"stopped in {folder.name}; start again with another --output_dir")


@torch.no_grad()
def accuracy_by_shift(model: nn.Module, split: ResidentSplit) -> list[float]:
    """Accuracy in percent at each shift of 0 to MARGIN pixels, mean over the eight directions."""
    model.eval()
    images, labels = to_float(split.images), split.labels
    found = []
    for shift in range(MARGIN + 1):
        moved = [torch.roll(images, (shift * y, shift * x), (2, 3)) for y, x in DIRECTIONS]
        right = [(model(one).argmax(1) == labels).float().mean().item() for one in moved]
        found.append(100 * fmean(right))
    return found


def run_seed(
    seed: int, splits: tuple[ResidentSplit, ResidentSplit], groups: list[Any], folder: Path, accelerator: Accelerator
) -> tuple[dict[str, Any], Augmenter]:
    """Train the teacher and the students of one seed.

    Args:
        seed: of everything random.
        splits: training and test.
        groups: TrainConfig, HardConfig, AugmenterConfig and ToyConfig.
        folder: where the runs are written.
        accelerator: of one process.

    Returns:
        Row -> its accuracy by shift; and the augmenter that HARD has trained.
    """
    config, method, augment, toy = groups
    config = replace(config, seed=seed, save_steps=config.max_steps)
    training, test = splits
    classes = len(training.label_names)
    network = classifier(invariant_network, classes, seed)
    fit = replace(config, max_steps=toy.teacher_steps, save_steps=toy.teacher_steps)
    train(Supervised(network), training, fit, folder / f"{seed}_teacher", accelerator)
    teacher = Teacher(network, "shift-invariant")
    found: dict[str, Any] = {"teacher": {"accuracy": accuracy_by_shift(teacher, test)}}
    rows = {
        "plain distillation": (StudentAlone, replace(augment, **STILL)),
        "augmenter, untrained": (StudentAlone, augment),
        "random warps, whole range": (StudentAlone, replace(augment, **WIDE)),
        "HARD": (Hard, augment),
    }
    for name, (method_class, options) in rows.items():
        student = classifier(perceptron, classes, seed)
        augmenter = build_augmenter(options, (SIDE, SIDE))
        objective = method_class(student, augmenter, teacher, method)
        train(objective, training, config, folder / f"{seed}_{name.replace(', ', '_').replace(' ', '_')}", accelerator)
        found[name] = {"accuracy": accuracy_by_shift(student, test), "learned": objective.observe()}
    return found, augmenter


def summary(results: dict[int, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Row -> "mean" and "deviation" over the seeds, in percent: of each shift, then of all shifts but 0 together."""
    rows = {}
    for name in next(iter(results.values())):
        curves = [result[name]["accuracy"] for result in results.values()]
        columns = list(zip(*[[*curve, fmean(curve[1:])] for curve in curves], strict=True))
        rows[name] = {
            "mean": [fmean(column) for column in columns],
            "deviation": [stdev(column) if len(column) > 1 else 0.0 for column in columns],
        }
    return rows


def markdown(rows: dict[str, dict[str, list[float]]], seeds: int) -> str:
    """The table of `summary`."""
    header = ["accuracy (%)", "centred", *(f"{shift} px" for shift in range(1, MARGIN + 1)), "shifted, mean"]
    cells = [
        [name, *(f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(row["mean"], row["deviation"], strict=True))]
        for name, row in rows.items()
    ]
    told = f"Mean ± standard deviation of {seeds} seeds. A shift is the mean over eight directions."
    return f"{table(header, cells)}\n\n{told}\n"


@torch.no_grad()
def plot(rows: dict[str, Any], images: Tensor, augmented: Tensor, path: Path) -> None:
    """Draw accuracy over the shift, and some images under the augmenter that HARD has trained."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes, pictures = figure.subplots(1, 2, width_ratios=(3, 2))
    for (color, _), (name, row) in zip(method_styles(list(rows)), rows.items(), strict=True):
        mean, deviation = (torch.tensor(row[key][:-1]) for key in ("mean", "deviation"))
        axes.plot(range(MARGIN + 1), mean, color=color, label=name, marker="o", markersize=3)
        axes.fill_between(range(MARGIN + 1), mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("shift (pixels)")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 103)
    axes.set_xticks(range(MARGIN + 1))
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    grid = torch.stack([images, *augmented])[:, :, 0].transpose(1, 2).flatten(2).flatten(0, 1)
    pictures.imshow(grid, cmap="gray", vmin=0, vmax=1)
    pictures.set_title("originals, then HARD's x~ of five z", fontsize=8)
    pictures.set_axis_off()
    save_figure(figure, path)


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    groups = parse(
        [TrainConfig, HardConfig, AugmenterConfig, ToyConfig],
        default_config=config_folder() / "hard_toy.yaml",
        description=description,
    )
    toy = groups[-1]
    output = OutputConfig(output_dir=toy.output_dir)
    accelerator = start_accelerator(output)
    if accelerator.num_processes > 1:
        raise InputError("the toy runs in one process: transinv hard-toy")
    folder = output_folder(output, "hard_toy")
    device = accelerator.device
    training, test = (
        replace(split, images=split.images.to(device), labels=split.labels.to(device))
        for split in (digits("train"), digits("test"))
    )
    results: dict[int, dict[str, Any]] = {}
    for seed in toy.seeds:
        results[seed], augmenter = run_seed(seed, (training, test), groups, folder / "runs", accelerator)

    rows = summary(results)
    shown = markdown(rows, len(toy.seeds))
    write_json(folder / "hard_toy.json", {"config": as_dict(*groups), **environment(), "rows": rows, "seeds": results})
    atomic_write_text(folder / "hard_toy.md", shown)
    images = to_float(test.images[:6])
    generator = torch.Generator().manual_seed(toy.seeds[-1])
    with torch.no_grad():
        augmented = [augmenter(images, augmenter.draw(images.shape, generator)).cpu() for _ in range(5)]
    plot(rows, images.cpu(), torch.stack(augmented), folder / "hard_toy.png")
    print(f"\n{shown}\nFigure and numbers are in {folder}")
