"""How good a classifier is: accuracy on clean and on corrupted images, and the table that compares several.

The corrupted images are a pure function of (images, seed, corruption, severity, batch size): the numbers of a batch
are drawn on the CPU from a seed of its own. Of n processes each takes every n-th batch, and the sums are added in one
fixed order, so that the result is the same, digit for digit, with any number of processes.

The rule of the benchmark (Hendrycks and Dietterich, ICLR 2019): a model evaluated on a corruption may not have been
trained on it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from hf_transinv.augment.corruptions import check_corruption, corrupt
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_transinv.data.resident import ResidentSplit


@dataclass(frozen=True)
class Condition:
    """What is done to the images before they are classified: nothing, or one corruption at one severity."""

    corruption: str | None = None
    severity: int = 0

    def __str__(self) -> str:
        return f"{self.corruption} {self.severity}" if self.corruption else "clean"

    def apply(self, images: Tensor, seed: int, batch_index: int) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> the same, corrupted; the batch's place alone seeds the random numbers."""
        if self.corruption is None:
            return images
        place = f"{seed} {self.corruption} {self.severity} {batch_index}".encode()
        # torch's CPU generator takes 32 bits of the seed.
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(place, digest_size=4).digest()))
        return corrupt(images, self.corruption, self.severity, generator)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, every module's own mode restored on the way out."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode


def _batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts of label among the best 1 and the best 5, and the summed negative log-likelihood: [3], float32."""
    logits = logits.float()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    nll = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([best[:, 0].sum().float(), best.sum().float(), nll])


class _Scorer:
    """Runs one model over one split under one condition after another; `score` gives the sums of a condition."""

    def __init__(self, model: nn.Module, split: "ResidentSplit", accelerator: "Accelerator | None", batch_size: int):
        self.model, self.split, self.accelerator, self.batch_size = model, split, accelerator, batch_size
        self.device = accelerator.device if accelerator else next(model.parameters()).device
        self.num_batches = -(-len(split.images) // batch_size)
        rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        self.own_batches = range(rank, self.num_batches, world)

    def _autocast(self) -> AbstractContextManager:
        return self.accelerator.autocast() if self.accelerator else nullcontext()

    def score(self, condition: Condition, seed: int, progress: tqdm) -> Tensor:
        """Sums over the whole split, as `_batch_sums` has them, in float64 on the CPU: [3]."""
        progress.set_description(f"evaluate {condition}")
        sums = torch.zeros(self.num_batches, 3, dtype=torch.float64)
        for i in self.own_batches:
            rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
            images = self.split.images[rows].to(self.device).float() / 255
            images = condition.apply(images, seed, i).contiguous(memory_format=torch.channels_last)
            with self._autocast():
                logits = self.model(images)
            sums[i] = _batch_sums(logits, self.split.labels[rows].to(self.device)).cpu().double()
            progress.update()
        if self.accelerator and self.accelerator.num_processes > 1:
            # Rows of other processes are zero here: adding them is exact, and the sum below has one order for all.
            sums = self.accelerator.reduce(sums.to(self.device), reduction="sum").cpu()
        return sums.sum(dim=0)


def _check(split: "ResidentSplit", conditions: Sequence[Condition], batch_size: int) -> None:
    for condition in conditions:
        if condition.corruption is not None:
            check_corruption(condition.corruption, (condition.severity,))
    if len(split.images) == 0:
        raise InputError("The split to evaluate on is empty: give one with at least one image.")
    if batch_size < 1:
        raise InputError(f"Evaluation batches of {batch_size} images: expected at least 1.")


def _check_classes(model: nn.Module, split: "ResidentSplit", device: torch.device) -> int:
    """The number of classes the model answers with; refuses labels beyond it."""
    num_classes = model(split.images[:1].to(device).float() / 255).shape[1]
    largest = int(split.labels.max())
    if largest >= num_classes:
        raise InputError(
            f"The data has label {largest}, the classifier {num_classes} classes (0 to {num_classes - 1}): "
            f"evaluate on the data it was trained for, or open it with num_classes={len(split.label_names)} and train."
        )
    return num_classes


def evaluate(
    classifier: nn.Module,
    split: "ResidentSplit",
    *,
    accelerator: "Accelerator | None" = None,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = 500,
    seed: int = 0,
    show_progress: bool = True,
) -> dict:
    """Top-1 (percent) on a split, clean and under each corruption at each severity.

    Args:
        classifier: pixels in [0, 1], [B, 3, H, W] -> logits [B, C]; on its device already. It evaluates in eval mode
            and comes back in the mode it had.
        split: uint8 images [N, 3, H, W] and labels [N], the same on every process.
        accelerator: shares the batches among its processes and sets the precision; None: this process alone, the
            precision of the model.
        corruptions: names of hf_transinv.augment.corruptions.CORRUPTIONS.
        severities: 1 to 5.
        batch_size: images a batch. Corrupted images depend on it.
        seed: of the corruptions.
        show_progress: whether the main process draws a bar.

    Returns:
        Plain numbers, ready for JSON: {"num_images", "clean": {"top1", "nll", "top5" (with more than five classes)},
        "corruptions": {name: {"1": top1, ..., "mean"}}, "corruption_mean" (None without), "severities", "seed"}.

    Raises:
        InputError: unknown corruption or severity, an empty split, or labels beyond the classifier's classes.
    """
    conditions = [Condition(), *(Condition(name, severity) for name in corruptions for severity in severities)]
    _check(split, conditions, batch_size)
    model = accelerator.unwrap_model(classifier) if accelerator else classifier
    scorer = _Scorer(model, split, accelerator, batch_size)
    is_quiet = not show_progress or (accelerator is not None and not accelerator.is_main_process)
    total = len(conditions) * len(scorer.own_batches)
    with _evaluating(model), torch.inference_mode(), tqdm(total=total, unit="batch", disable=is_quiet) as progress:
        num_classes = _check_classes(model, split, scorer.device)
        sums = {condition: scorer.score(condition, seed, progress) for condition in conditions}
    return _summary(sums, len(split.images), num_classes) | {"severities": list(severities), "seed": seed}


def _summary(sums: dict[Condition, Tensor], num_images: int, num_classes: int) -> dict:
    """Sums of each condition -> the part of `evaluate`'s result that depends on them."""
    top1, top5, nll = (sums[Condition()] / num_images).tolist()
    clean = {"top1": 100 * top1, "nll": nll} | ({"top5": 100 * top5} if num_classes > 5 else {})
    table: dict[str, dict[str, float]] = {}
    for condition, condition_sums in sums.items():
        if condition.corruption is not None:
            row = table.setdefault(condition.corruption, {})
            row[str(condition.severity)] = 100 * condition_sums[0].item() / num_images
    for row in table.values():
        row["mean"] = sum(row.values()) / len(row)
    mean = sum(row["mean"] for row in table.values()) / len(table) if table else None
    return {"num_images": num_images, "clean": clean, "corruptions": table, "corruption_mean": mean}


def corruption_markdown(results: dict[str, dict]) -> str:
    """A Markdown table of top-1 in percent: a row a model; columns clean, each corruption's mean, the mean of those.

    Args:
        results: model name -> what `evaluate` returned. A corruption that one was not evaluated on shows as a dash.
    """
    names = list(dict.fromkeys(name for result in results.values() for name in result["corruptions"]))
    header = [
        "model",
        "clean",
        *(name.replace("_", " ") for name in names),
        *(["mean of corruptions"] if names else []),
    ]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for model, result in results.items():
        means = [result["corruptions"].get(name, {}).get("mean") for name in names]
        # A mean over other corruptions than the rows beside it would only mislead.
        mean = None if None in means else result["corruption_mean"]
        values = [result["clean"]["top1"], *means, *([mean] if names else [])]
        cells = ["–" if value is None else f"{value:.1f}" for value in values]
        lines.append([model.replace("|", "\\|"), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
