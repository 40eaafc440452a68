"""What is a checkpoint invariant to? A report on any classifier, from unlabelled images: invariance.html, .md, .json.

python recipes/invariance.py --model USER/NAME --dataset USER/DATA
    one model; without --dataset on the embedded digits

python recipes/invariance.py --models A B --reference PLAIN --dataset uoft-cs/cifar10
    several side by side, ranked by what they tolerate beyond a plainly trained one
"""

import sys
import time
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from tqdm import tqdm

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.command_line import parse
from hf_transinv.config import OutputConfig, as_dict
from hf_transinv.data.crops import to_float
from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import Source, open_unlabelled, split_names
from hf_transinv.errors import InputError
from hf_transinv.invariance.page import page
from hf_transinv.invariance.report import Measured, Report, as_numbers, summary_markdown, summary_text
from hf_transinv.invariance.sweeps import clean_answers, corruption_sweeps, measure_sweep, primitive_sweeps
from hf_transinv.invariance.widest_range import WidestRangeConfig, find_widest_range
from hf_transinv.launch import clear_errors, output_folder, start_accelerator
from hf_transinv.models import Teacher, open_classifier
from hf_transinv.record import environment, write_json
from hf_transinv.whole import write_whole

_EXAMPLES = 4


@dataclass
class ModelsConfig:
    """The models.

    Attributes:
        model: Hub id, local folder or timm name of a classifier.
        models: several, side by side.
        reference: a plainly trained one; the others are ranked by what they tolerate beyond it.
        corruptions: corruptions to measure; default: all there are; none: the primitives alone.
        batch_size: images at a time.
        seed: of everything random.
        output_dir: folder of the report; default: a new one under outputs/, named by recipe and time.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    reference: str | None = None
    corruptions: tuple[str, ...] = ("all",)
    batch_size: int = 250
    seed: int = 0
    output_dir: str | None = None

    def __post_init__(self) -> None:
        given = self.named()
        if not given:
            raise InputError("no model given: --model with a Hub id, a folder or a timm name, or several --models")
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise InputError(f"model {twice[0]!r} is given twice; name each model once")
        for name in self.chosen_corruptions():
            check_corruption(name)
        if self.batch_size < 1 or self.seed < 0:
            raise InputError("batch_size must be at least 1, seed not negative")

    def named(self) -> list[str]:
        """The models, as they were given."""
        return [*([] if self.model is None else [self.model]), *self.models]

    def measured(self) -> list[str]:
        """The models and the reference."""
        given = self.named()
        return given if self.reference is None or self.reference in given else [*given, self.reference]

    def chosen_corruptions(self) -> tuple[str, ...]:
        """Names of the corruptions."""
        if self.corruptions in ((), ("none",)):
            return ()
        return CORRUPTIONS if self.corruptions == ("all",) else tuple(dict.fromkeys(self.corruptions))


@dataclass
class ImagesConfig:
    """The images; labels are neither used nor needed.

    Attributes:
        dataset: Hub id, folder in Hub shape, parquet file or folder of images; default: the embedded digits.
        dataset_config: configuration of a Hub dataset that has several.
        dataset_revision: branch, tag or commit of a Hub dataset.
        eval_split: split or slice; default: test or validation, whichever the dataset has, or its only split.
        image_column: column with the pictures; default: the one column of that type.
        image_size: side to which pictures are resized and cropped; default: their own, when they all agree.
        num_images: how many to draw; all when the split has fewer.
    """

    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    eval_split: str | None = None
    image_column: str | None = None
    image_size: int | None = None
    num_images: int = 1000

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise InputError(f"num_images must be at least 1, given {self.num_images}: no images, no report")
        if self.image_size is not None and self.image_size < 8:
            raise InputError(f"image_size must be at least 8, given {self.image_size}")

    def open(self) -> Source:
        """The split, not yet decoded; of the embedded digits the smallest that has enough images, or the largest."""
        if self.dataset is None:
            sources = [open_unlabelled(name, split=split) for name in EMBEDDED_NAMES for split in split_names(name)]
            enough = [source for source in sources if source.num_rows >= self.num_images]
            return min(enough, key=lambda s: s.num_rows) if enough else max(sources, key=lambda s: s.num_rows)
        return open_unlabelled(
            self.dataset,
            config=self.dataset_config,
            split=self.eval_split,
            image_column=self.image_column,
            revision=self.dataset_revision,
        )

    def load(self, accelerator: Accelerator, seed: int) -> tuple[torch.Tensor, str]:
        """Images drawn from the split, uint8 [N, 3, H, W], and its name in words."""
        source = self.open()
        drawn = torch.randperm(source.num_rows, generator=torch.Generator().manual_seed(seed))[: self.num_images]
        rows = source.rows.select(drawn.sort().values.tolist())
        split = ResidentSplit.load(
            replace(source, rows=rows, num_rows=len(rows)), image_size=self.image_size, device=accelerator.device
        )
        return split.images, f"{source.name} ({source.split})"


def main() -> None:
    groups = parse([ModelsConfig, ImagesConfig, WidestRangeConfig, PrimitiveConfig], description=__doc__)
    chosen, pictures, widest, primitive = groups
    output = OutputConfig(output_dir=chosen.output_dir)
    accelerator = start_accelerator(output)
    if accelerator.num_processes > 1:
        raise InputError("the report is measured by one process: launch it with python, or --num_processes 1")
    started, folder = time.time(), output_folder(output, "invariance")
    models = [Teacher(open_classifier(name)).to(accelerator.device) for name in chosen.measured()]
    images, data = pictures.load(accelerator, chosen.seed)
    sweeps = (*corruption_sweeps(chosen.chosen_corruptions()), *primitive_sweeps(primitive.padding_mode))

    clean = [clean_answers(model, images, chosen.batch_size) for model in models]
    curves: list[dict] = [{} for _ in models]
    with tqdm(total=sum(len(sweep.strengths) for sweep in sweeps), desc="sweeps", leave=False) as bar:
        for sweep in sweeps:
            measured = measure_sweep(models, clean, images, sweep, chosen.seed, chosen.batch_size, bar.update)
            for own, curve in zip(curves, measured, strict=True):
                own[sweep.name] = curve
    results = []
    for model, answers, own in zip(models, clean, curves, strict=True):
        with tqdm(total=widest.range_turns, desc=f"widest range of {model.name}", leave=False) as bar:
            found = find_widest_range(model, images, answers, widest, primitive, chosen.seed, bar.update)
        size = sum(parameter.numel() for parameter in model.parameters())
        results.append(Measured(model.name, model.num_classes, size, model.classifier.input_size, own, found))

    record = {"config": as_dict(*groups), "command": " ".join(sys.argv), **environment()}
    record["seconds"] = round(time.time() - started, 1)
    # From all over the split, which may be sorted by class.
    examples = to_float(images[:: max(1, len(images) // _EXAMPLES)][:_EXAMPLES]).cpu()
    report = Report(
        results, sweeps, chosen.reference, data, examples, len(images), widest.tolerance, chosen.seed, record
    )
    write_whole(folder / "invariance.html", page(report))
    write_whole(folder / "invariance.md", summary_markdown(report))
    write_json(folder / "invariance.json", as_numbers(report))
    print(f"{summary_text(report)}\nThe report is {folder / 'invariance.html'}")


if __name__ == "__main__":
    with clear_errors():
        main()
