"""Report what a classifier is invariant to, from unlabelled images: invariance.html, .md and .json.

transinv invariance --model USER/NAME --dataset USER/DATA
    one model; without --dataset on the embedded digits

transinv invariance --models A B --reference PLAIN --dataset uoft-cs/cifar10
    several side by side, ranked by what they tolerate beyond a plainly
    trained one
"""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config import DataConfig, OutputConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.config.data_config import FILTERS
from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import Source, open_unlabelled, split_names
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.first_screen import say_run
from hf_transinv.experiment.launch import output_folder, start_accelerator
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.terminal import say, stage_bar
from hf_transinv.invariance.page import page
from hf_transinv.invariance.report import Measured, Report, as_numbers, summary_markdown, summary_text
from hf_transinv.invariance.sweeps import (
    Curve,
    Sweep,
    clean_answers,
    corruption_sweeps,
    measure_sweep,
    primitive_sweeps,
)
from hf_transinv.invariance.tolerated_range import ToleratedRangeConfig, find_tolerated_range
from hf_transinv.models import Teacher, open_classifier
from hf_transinv.models.description import describe
from hf_transinv.record import command_line, environment

logger = logging.getLogger(__name__)

_EXAMPLES = 4


@dataclass
class ModelsConfig:
    """The models, and how they are measured.

    Attributes:
        model: Hub id, local folder or timm name of a classifier.
        models: several, side by side.
        reference: a plainly trained one; the others are ranked by what they tolerate beyond it.
        corruptions: corruptions to measure; default: all; none: only the primitives.
        batch_size: images at a time.
        seed: of everything random.
        output_dir: folder of the report; default: a new one under outputs/, named by recipe and time.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    reference: str | None = None
    corruptions: tuple[str, ...] = choice(("all",), ("all", "none", *CORRUPTIONS), is_closed=False)
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
        dataset: Hub id, folder of images, table of image paths (.csv, .tsv, .jsonl, .parquet), parquet file, folder
            in Hub shape or saved by `datasets`; default: the embedded digits.
        dataset_config: configuration of a Hub dataset that has several.
        dataset_revision: branch, tag or commit of a Hub dataset.
        eval_split: split or slice; default: test or validation, whichever the dataset has, or its only split.
        image_column: column with the pictures; default: the one column of that type.
        image_size: side to which pictures are resized and cropped; default: for each model the side that its
            checkpoint records.
        eval_crop_pct: share of the resized shorter side that the central square has; timm's crop_pct; default: what
            the checkpoint of a run records, else 1.
        interpolation: of that resizing, antialiased: bilinear or bicubic; default: what the checkpoint of a run
            records, else bilinear.
        on_bad_image: what to do with a broken picture: raise, or skip it and list it in skipped_images.txt.
        num_images: how many to draw; all if the split has fewer.
    """

    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    eval_split: str | None = None
    image_column: str | None = None
    image_size: int | None = None
    eval_crop_pct: float | None = None
    interpolation: str | None = choice(None, FILTERS, is_closed=False)
    on_bad_image: str = choice("raise", ("raise", "skip"), is_closed=False)
    num_images: int = 1000

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise InputError(f"num_images must be at least 1, given {self.num_images}: no images, no report")
        DataConfig(image_size=self.image_size, on_bad_image=self.on_bad_image)
        EvaluationCut(1).overruled(self.image_size, self.eval_crop_pct, self.interpolation)  # checks them

    def open(self) -> Source:
        """The split, not yet decoded; by default the smallest embedded one with enough images, or the largest."""
        if self.dataset is None:
            sources = [open_unlabelled(name, split=split) for name in EMBEDDED_NAMES for split in split_names(name)]
            enough = [source for source in sources if _rows(source) >= self.num_images]
            return min(enough, key=_rows) if enough else max(sources, key=_rows)
        return open_unlabelled(
            self.dataset,
            config=self.dataset_config,
            split=self.eval_split,
            image_column=self.image_column,
            revision=self.dataset_revision,
        )

    def drawn(self, seed: int) -> Source:
        """Random rows of the split, in its order."""
        source = self.open()
        drawn = torch.randperm(_rows(source), generator=torch.Generator().manual_seed(seed))[: self.num_images]
        table: Any = source.rows
        rows = table.select(drawn.sort().values.tolist())
        return replace(source, rows=rows, num_rows=len(rows))

    def cut_for(self, model: Teacher) -> EvaluationCut:
        """How the pictures are cut that a model is measured with; warns if it is not the recorded cut."""
        cut = model.classifier.cut.overruled(self.image_size, self.eval_crop_pct, self.interpolation)
        if cut != (recorded := model.classifier.recorded_cut(cut)):
            logger.warning(
                "%s is measured at %s, and not at the %s that its checkpoint records%s",
                *(model.name, cut, recorded),
                "" if cut.image_size == recorded.image_size else ": corruptions differ between sizes",
            )
        return cut

    def load(self, source: Source, cut: EvaluationCut, accelerator: Accelerator) -> ResidentSplit:
        """The images of a source, all cut alike."""
        return ResidentSplit.load(source, **cut.decoding, on_bad_image=self.on_bad_image, device=accelerator.device)


def _rows(source: Source) -> int:
    return source.num_rows or 0


def measure_curves(
    models: list[Teacher], images: torch.Tensor, sweeps: tuple[Sweep, ...], chosen: ModelsConfig, bar: tqdm
) -> list[tuple[torch.Tensor, dict[str, Curve]]]:
    """Each model's answers to the images, [N, C], and its curve under each sweep."""
    clean = [clean_answers(model, images, chosen.batch_size) for model in models]
    curves: list[dict[str, Curve]] = [{} for _ in models]
    for sweep in sweeps:
        measured = measure_sweep(models, clean, images, sweep, chosen.seed, chosen.batch_size, bar.update)
        for own, curve in zip(curves, measured, strict=True):
            own[sweep.name] = curve
    return list(zip(clean, curves, strict=True))


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    groups = parse([ModelsConfig, ImagesConfig, ToleratedRangeConfig, PrimitiveConfig], description=description)
    chosen, pictures, widest, primitive = groups
    output = OutputConfig(output_dir=chosen.output_dir)
    accelerator = start_accelerator(output)
    if accelerator.num_processes > 1:
        raise InputError("the report runs in one process: launch it without --num_processes")
    started, folder = time.time(), output_folder(output, "invariance")
    say_run(accelerator, output, folder, pictures.dataset)
    models = [Teacher(open_classifier(name)).to(accelerator.device) for name in chosen.measured()]
    source, cuts = pictures.drawn(chosen.seed), {model.name: pictures.cut_for(model) for model in models}
    print(f"images      {source.name}, split {source.split}, column {source.columns[0]}: {source.num_rows} drawn")
    for model in models:
        print(f"model       {describe(model.classifier, cuts[model.name].image_size)}", flush=True)
        print(f"            measured at {cuts[model.name]}", flush=True)
    splits = {cut: pictures.load(source, cut, accelerator) for cut in sorted(set(cuts.values()))}
    sweeps = (*corruption_sweeps(chosen.chosen_corruptions()), *primitive_sweeps(primitive.padding_mode))

    measured: dict[str, tuple[torch.Tensor, dict[str, Curve]]] = {}
    total = len(splits) * sum(len(sweep.strengths) for sweep in sweeps)
    say("measuring", f"{len(models)} models under {len(sweeps)} sweeps")
    with stage_bar(total, "sweeps", " strengths") as bar:
        for cut, split in splits.items():
            group = [model for model in models if cuts[model.name] == cut]
            curves = measure_curves(group, split.images, sweeps, chosen, bar)
            measured |= zip([model.name for model in group], curves, strict=True)
    results = []
    for model in models:
        images, (answers, own) = splits[cuts[model.name]].images, measured[model.name]
        say("learning", f"the widest range that {model.name} tolerates: {widest.range_turns} turns")
        with stage_bar(widest.range_turns, f"widest range of {model.name}", " turns") as bar:
            found = find_tolerated_range(model, images, answers, widest, primitive, chosen.seed, bar.update)
        size = sum(parameter.numel() for parameter in model.parameters())
        height, width = model.classifier.input_size
        results.append(Measured(model.name, model.num_classes, size, (height, width), own, found))

    images = next(iter(splits.values())).images
    by_cut = {cut: " and ".join(name for name, own in cuts.items() if own == cut) for cut in splits}
    told = ", ".join(f"{cut}" + (f" for {names}" if len(splits) > 1 else "") for cut, names in by_cut.items())
    data = f"{source.name} ({source.split}), {told}"
    skipped = sorted({line for split in splits.values() for line in split.skipped})
    if skipped:
        logger.warning("%d images could not be decoded and are left out, the first: %s", len(skipped), skipped[0])
        atomic_write_text(folder / "skipped_images.txt", "".join(f"{line}\n" for line in skipped))
    record = {"config": as_dict(*groups), "command": command_line(), **environment()}
    record["seconds"] = round(time.time() - started, 1)
    # Evenly spaced, since the split may be sorted by class.
    examples = to_float(images[:: max(1, len(images) // _EXAMPLES)][:_EXAMPLES]).cpu()
    report = Report(
        results, sweeps, chosen.reference, data, examples, len(images), widest.tolerance, chosen.seed, record
    )
    atomic_write_text(folder / "invariance.html", page(report))
    atomic_write_text(folder / "invariance.md", summary_markdown(report))
    write_json(folder / "invariance.json", as_numbers(report))
    print(f"{summary_text(report)}\nThe report is {folder / 'invariance.html'}")
