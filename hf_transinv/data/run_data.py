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
from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import OpenDataset, Source, default_eval_split, open_dataset
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError

logger = logging.getLogger(__name__)

_MISSING_WORDS = ("nan", "null", "none", "n/a", "<na>")


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
    """

    train: ResidentSplit | Source
    evaluation: ResidentSplit
    config: DataConfig
    eval_split: str
    described: list[str]
    source: Source
    forms: dict[int | None, ResidentSplit] = field(default_factory=dict)

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
        config = self.config
        return {
            "image_size": self.image_size,
            "crop_pct": config.eval_crop_pct,
            "interpolation": config.interpolation,
        }

    @property
    def skipped(self) -> list[str]:
        """The images left out of the resident splits: where they are and what is wrong."""
        splits = [split for split in (self.train, self.evaluation) if isinstance(split, ResidentSplit)]
        return [found for split in splits for found in split.skipped]

    @property
    def class_counts(self) -> list[int] | None:
        """Training images of each class, by the labels that the student sees; None when a stream does not say."""
        if not isinstance(self.train, Source):
            return self.train.with_label_noise(self.config.label_noise).class_counts()
        return None if self.train.class_counts is None else self.train.class_counts.tolist()

    def ordinary(self, crop: str, flip: bool) -> CropFlip:
        """The ordinary augmentation of a row with this crop and flip."""
        zoom = {"scale": self.config.crop_scale, "ratio": self.config.crop_ratio}
        given: dict[str, Any] = {name: value for name, value in zoom.items() if value}
        return CropFlip(crop, flip, interpolation=self.config.interpolation, **given)

    def feed(
        self, batch_size: int, seed: int, accelerator: Accelerator, crop: str | None = None, balanced: bool = False
    ) -> Feed:
        """Endless shuffled batches of the training split with its label noise; this process's share of each.

        Args:
            batch_size: images in a batch of all processes together.
            seed: of the order, from 0 on.
            accelerator: says which process this is.
            crop: ordinary augmentation of the row: "resized" needs whole pictures, the others central squares. What
                the run has not used before is decoded here. Default: the configuration's.
            balanced: whether every class occurs equally often; not for a stream.
        """
        place: dict[str, int] = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        config = self.config
        stored_size = config.stored_size if crop in (None, "resized") else None
        if isinstance(self.train, Source):
            return StreamingFeed(
                self.train,
                batch_size,
                seed,
                buffer_size=config.shuffle_buffer,
                image_size=config.image_size,
                on_bad_image=config.on_bad_image,
                interpolation=config.interpolation,
                stored_size=stored_size,
                **place,
            )
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


def open_data(config: DataConfig, accelerator: Accelerator) -> Data:
    """Opens, decodes and checks both splits; resident ones are on the accelerator's device.

    Raises:
        InputError: a split cannot be opened, a class has no training image, or an image cannot be decoded.
    """
    opened, source, held = open_both_splits(config)
    with_files = config.stored_size is not None and not config.streaming
    evaluation = _load(config, held, accelerator, None, crop_pct=config.eval_crop_pct, with_files=with_files)
    train = source if config.streaming else _load(config, source, accelerator, config.stored_size)
    forms = {} if isinstance(train, Source) else {config.stored_size: train}
    if forms and not isinstance(forms[config.stored_size].images, Pictures):
        forms[None] = forms[config.stored_size]  # squares as they are, whatever the crop
    counts = source.class_counts if isinstance(train, Source) else train.class_counts()
    check_class_counts(counts, source, image_is_bad=isinstance(train, ResidentSplit) and bool(train.num_skipped))
    described = describe_splits(config, opened, (source, held), (train, evaluation))
    data = Data(train, evaluation, config, held.split, described, source, forms)
    if accelerator.is_main_process:
        warnings = [*opened.opened.warnings, *warnings_of(source)]
        warnings += compared_classes(counts, evaluation.class_counts(), source, held)
        warnings += shared_images(train, evaluation, source, held)
        for split, loaded in ((held, evaluation), (source, train)):
            if isinstance(loaded, ResidentSplit) and loaded.num_skipped:
                skipped = f"{loaded.num_skipped} images could not be decoded and are left out"
                warnings.append(f"split {split.split!r}: {skipped}, the first: {loaded.skipped[0]}")
        for warning in warnings:
            logger.warning(warning)
    return data


def open_both_splits(config: DataConfig) -> tuple[OpenDataset, Source, Source]:
    """Opens the dataset, its training split and its evaluation split with the same classes, both not yet decoded.

    Raises:
        InputError: no dataset is given, or a split cannot be opened.
    """
    if config.dataset is None:
        raise InputError(
            "no dataset given: --dataset with a Hub id, a folder of images, a table of image paths, a parquet file, "
            "or digits/target"
        )
    opened = open_dataset(
        config.dataset,
        config=config.dataset_config,
        revision=config.dataset_revision,
        asked=[config.train_split, config.eval_split],
        image_column=config.image_column,
        label_column=config.label_column,
    )
    share = config.validation_share
    rest = HoldOut(share, "train") if share else None
    # Before the training split is read, which may be large: there may be no split to evaluate on.
    eval_split = config.train_split if share else config.eval_split or default_eval_split(opened.split_names)
    source = opened.source(
        config.train_split,
        image_column=config.image_column,
        label_column=config.label_column,
        streaming=config.streaming,
        hold_out=rest,
    )
    image_column, label_column = source.columns
    held = opened.source(
        eval_split,
        image_column=image_column,
        label_column=label_column,
        classes=source.classes,
        hold_out=HoldOut(share, "held_out") if share else None,
    )
    return opened, source, held


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


def compared_classes(
    train: Sequence[int] | np.ndarray | None, evaluation: Sequence[int], source: Source, held: Source
) -> list[str]:
    """Warnings about classes without an image in the evaluation split, which it cannot measure.

    Args:
        train: training images of each class; None when a stream does not say.
        evaluation: evaluation images of each class.
        source: the training split.
        held: the evaluation split.
    """
    names = source.label_names
    missing = [name for name, count in zip(names, evaluation, strict=True) if not count]
    warnings = []
    if missing:
        warnings.append(
            f"split {held.split!r} has no image of {len(missing)} of the {len(names)} classes, and says nothing about "
            f"them: {listed(missing, MOST_NAMES)}"
        )
    if train is None:
        warnings.append("whether every class has a training image is not known: a stream does not say it beforehand")
    return warnings


def shared_images(train: ResidentSplit | Source, evaluation: ResidentSplit, source: Source, held: Source) -> list[str]:
    """A warning when images of the evaluation split are also training images, pixel for pixel; else none."""
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
