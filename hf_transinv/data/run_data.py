"""The data of a run: both splits opened, decoded, checked against each other, and described."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accelerate import Accelerator

from hf_transinv.config import DataConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.classes import look_alikes
from hf_transinv.data.columns import listed
from hf_transinv.data.described import MOST_NAMES, describe_splits
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.run_splits import RunSplits, open_run_splits
from hf_transinv.data.sources import Source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError

logger = logging.getLogger(__name__)

_MISSING_WORDS = ("nan", "null", "none", "n/a", "<na>")
_COUNTS_UNKNOWN = "whether every class has a training image is not known: a stream does not say it beforehand"


@dataclass
class Data:
    """The data of a run.

    Attributes:
        train: the training split, resident or opened as a stream; its labels are still without noise.
        evaluation: the evaluation split, resident.
        config: of the data.
        eval_split: the name of the evaluation split.
        described: lines on what was read and what was not.
        source: the training split, not decoded.
        forms: the training split as it has been decoded so far, by the stored size; of None: as central squares.
        validation: the part to measure on while training, resident; `evaluation` itself where the dataset has no
            other split for that; None: there is none.
        validation_split: its name.
    """

    train: ResidentSplit | Source
    evaluation: ResidentSplit
    config: DataConfig
    eval_split: str
    described: list[str]
    source: Source
    forms: dict[int | None, ResidentSplit] = field(default_factory=dict)
    validation: ResidentSplit | None = None
    validation_split: str | None = None

    @property
    def label_names(self) -> list[str]:
        """The classes."""
        return self.train.label_names

    @property
    def num_rows(self) -> int | None:
        """Training images, when known."""
        return self.train.num_rows if isinstance(self.train, Source) else len(self.train)

    @property
    def image_size(self) -> int:
        """Side of the decoded images, in pixels."""
        return self.evaluation.images.shape[-1]

    @property
    def evaluated_as(self) -> dict[str, Any]:
        """How the evaluation images were brought to size, for an export: see `hub.export.export_classifier`."""
        return EvaluationCut(self.image_size, self.config.eval_crop_pct, self.config.interpolation).decoding

    @property
    def skipped(self) -> list[str]:
        """The images left out of the resident splits: where they are and what is wrong."""
        own = None if self.validation is self.evaluation else self.validation
        splits = [split for split in (self.train, own, self.evaluation) if isinstance(split, ResidentSplit)]
        return [found for split in splits for found in split.skipped]

    @property
    def class_counts(self) -> list[int] | None:
        """Training images of each class, by the labels that the student sees; None when a stream does not say."""
        if not isinstance(self.train, Source):
            return self.train.with_label_noise(self.config.label_noise).class_counts()
        return None if self.train.class_counts is None else self.train.class_counts.tolist()

    def feed(
        self,
        batch_size: int,
        seed: int,
        accelerator: Accelerator,
        base: CropFlip | None = None,
        variants: int = 1,
        balanced: bool = False,
    ) -> Feed:
        """Endless shuffled batches of the training split with its label noise; this process's share of each.

        Args:
            batch_size: images in a batch of all processes together.
            seed: of the order, from 0 on.
            accelerator: says which process this is.
            base: the row's ordinary augmentation: crop "resized" needs whole pictures, the others central squares.
                What the run has not used before is decoded here. Default: the configuration's.
            variants: crops that the row needs of each picture; a stream takes them.
            balanced: whether every class occurs equally often; not for a stream.
        """
        place: dict[str, int] = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        config, base = self.config, base or ordinary(self.config)
        if isinstance(self.train, Source):
            return StreamingFeed(
                self.train,
                batch_size,
                seed,
                buffer_size=config.shuffle_buffer,
                image_size=config.image_size,
                on_bad_image=config.on_bad_image,
                interpolation=config.interpolation,
                crop=base,
                variants=variants,
                **place,
            )
        stored_size = config.stored_size if base.crop == "resized" else None
        if stored_size not in self.forms:
            self.forms[stored_size] = _load(config, self.source, accelerator, stored_size)
        split = self.forms[stored_size].with_label_noise(config.label_noise)
        return ResidentFeed(split, batch_size, seed, **place, balanced=balanced)


def _load(
    config: DataConfig, source: Source, accelerator: Accelerator, stored_size: int | None, **options: Any
) -> ResidentSplit:
    """Decodes a split on the accelerator's device: central squares, or whole pictures where a stored size is given."""
    return ResidentSplit.load(
        source,
        image_size=config.image_size,
        on_bad_image=config.on_bad_image,
        device=accelerator.device,
        show_progress=accelerator.is_main_process,
        interpolation=config.interpolation,
        stored_size=stored_size,
        **options,
    )


def open_data(config: DataConfig, accelerator: Accelerator, splits: RunSplits | None = None) -> Data:
    """Opens, decodes and checks the splits; resident ones are on the accelerator's device.

    Args:
        config: of the data.
        accelerator: says where they are kept, and which process this is.
        splits: as they were opened before; None: they are opened here.

    Raises:
        InputError: a split cannot be opened, a class has no training image, or an image cannot be decoded.
    """
    splits = splits or open_run_splits(config)
    source, held = splits.train, splits.evaluation
    with_files = config.stored_size is not None
    as_measured: dict[str, Any] = {"crop_pct": config.eval_crop_pct, "with_files": with_files}
    read = {"evaluation": (held, _load(config, held, accelerator, None, **as_measured))}
    if splits.validation is not None:
        own = read["evaluation"] if splits.validation is held else None
        read["validation"] = own or (
            splits.validation,
            _load(config, splits.validation, accelerator, None, **as_measured),
        )
    evaluation = read["evaluation"][1]
    train = source if config.streaming else _load(config, source, accelerator, config.stored_size)
    forms = {} if isinstance(train, Source) else {config.stored_size: train}
    if forms and not isinstance(forms[config.stored_size].images, Pictures):
        forms[None] = forms[config.stored_size]  # squares as they are, whatever the crop
    counts = source.class_counts if isinstance(train, Source) else train.class_counts()
    check_class_counts(counts, source, image_is_bad=isinstance(train, ResidentSplit) and bool(train.num_skipped))
    validation = read["validation"][1] if splits.validation is not None else None
    described = describe_splits(config, splits, train, evaluation, validation)
    data = Data(train, evaluation, config, held.split, described, source, forms)
    if splits.validation is not None:
        data.validation_split, data.validation = splits.validation.split, validation
        _check_sides(data)
    if accelerator.is_main_process:
        warnings = [*splits.dataset.opened.warnings, *warnings_of(source)]
        if counts is None:
            warnings.append(_COUNTS_UNKNOWN)
        measured = list({id(loaded): (split, loaded) for split, loaded in read.values()}.values())
        for split, loaded in measured:
            warnings += missing_classes(loaded.class_counts(), source.label_names, split)
            warnings += shared_images(train, loaded, source, split)
        if len(measured) > 1:
            (last, at_end), (first, while_training) = measured
            warnings += shared_images(while_training, at_end, first, last)
        for split, part in (*measured, (source, train)):
            if isinstance(part, ResidentSplit) and part.num_skipped:
                skipped = f"{part.num_skipped} images could not be decoded and are left out"
                warnings.append(f"split {split.split!r}: {skipped}, the first: {part.skipped[0]}")
        for warning in warnings:
            logger.warning(warning)
    return data


def _check_sides(data: Data) -> None:
    """Raises InputError when the student would be measured at one size and evaluated at another."""
    assert data.validation is not None
    side = data.validation.images.shape[-1]
    if side != data.image_size:
        raise InputError(
            f"images of split {data.validation_split!r} have {side} pixels, those of {data.eval_split!r} "
            f"{data.image_size}: bring them to one size with --image_size"
        )


def check_class_counts(counts: Sequence[int] | np.ndarray | None, source: Source, image_is_bad: bool = False) -> None:
    """Raises InputError when a class has no image to train on: one output of the head would never be trained.

    Args:
        counts: images of each class; None when a stream does not say.
        source: the training split.
        image_is_bad: whether images were left out because they could not be decoded.
    """
    empty = (
        [] if counts is None else [name for name, count in zip(source.label_names, counts, strict=True) if not count]
    )
    if empty:
        why = " that can be decoded" if image_is_bad else ""
        like = next((pair for pair in look_alikes(source.label_names) if set(pair) & set(empty)), None)
        hint = f" {like[0]!r} and {like[1]!r} look alike: give them one name." if like else ""
        raise InputError(
            f"{source.name}, split {source.split!r}, has no image{why} of {len(empty)} of its "
            f"{len(source.label_names)} classes: {listed(empty, MOST_NAMES)}. Add images or remove the class.{hint} "
            "(A slice of rows that are sorted by class loses whole classes: --validation_share 0.1 holds out the same "
            "share of each.)"
        )


def missing_classes(counts: Sequence[int], names: Sequence[str], split: Source) -> list[str]:
    """A warning about classes without an image in a split that is measured on; else none.

    Args:
        counts: images of each class in it.
        names: of the classes.
        split: it.
    """
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return []
    return [
        f"split {split.split!r} has no image of {len(missing)} of the {len(names)} classes, and says nothing about "
        f"them: {listed(missing, MOST_NAMES)}"
    ]


def shared_images(train: ResidentSplit | Source, evaluation: ResidentSplit, source: Source, held: Source) -> list[str]:
    """A warning when images of one split are also in one that was learned or chosen from, pixel for pixel; else none.

    Args:
        train: what is trained on, or what chooses among students.
        evaluation: what is measured on.
        source: the split of the first.
        held: the split of the second.
    """
    if isinstance(train, Source):
        return []
    is_whole = isinstance(train.images, Pictures)  # of which the evaluation has squares
    own, others = (split.files if is_whole else split.digests for split in (train, evaluation))
    if own is None or others is None:
        return []
    shared = int(np.isin(others, own).sum())
    if not shared:
        return []
    return [
        f"{shared} of the {len(evaluation)} images of split {held.split!r} are also in split {source.split!r}, pixel "
        "for pixel: what is measured on them is remembered, not learned"
    ]


def warnings_of(source: Source) -> list[str]:
    """Warnings about names of classes that are unusual."""
    names = source.label_names
    missing = [name for name in names if name.strip().lower() in _MISSING_WORDS]
    return [
        *(f"the class {name!r} is what tables write where a label is missing" for name in missing),
        *(
            f"the classes {a!r} and {b!r} have names that look alike, and are two classes"
            for a, b in look_alikes(names)
        ),
    ]


def ordinary(config: DataConfig, crop: str | None = None, flip: bool | None = None) -> CropFlip:
    """The ordinary augmentation of a row with this crop and flip; None: the configuration's."""
    zoom = {"scale": config.crop_scale, "ratio": config.crop_ratio}
    given: dict[str, Any] = {name: value for name, value in zoom.items() if value}
    crop, flip = crop or config.crop, config.flip if flip is None else flip
    return CropFlip(crop, flip, interpolation=config.interpolation, **given)
