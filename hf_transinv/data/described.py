"""What a run says of its data at its start."""

import math
from collections.abc import Mapping, Sequence

from hf_transinv.config import DataConfig
from hf_transinv.data.columns import listed
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.run_splits import RunSplits
from hf_transinv.data.sources import Source

MOST_NAMES = 10  # classes named in one line


def describe_splits(
    config: DataConfig,
    splits: RunSplits,
    train: ResidentSplit | Source,
    evaluation: ResidentSplit,
    validation: ResidentSplit | None = None,
) -> list[str]:
    """Lines on what was read.

    Args:
        config: of the data.
        splits: not decoded.
        train: the training split, decoded but for a stream.
        evaluation: the evaluation split, decoded.
        validation: the part to measure on while training, decoded; None: there is none.
    """
    source, held, own, opened = splits.train, splits.evaluation, splits.validation, splits.dataset
    rows = source.num_rows if isinstance(train, Source) else len(train)
    image, label = source.columns
    bases = {*source.bases, *held.bases, *(own.bases if own else ())}
    unused = [name for name in opened.split_names if name not in bases]
    while_training: list[str] = []
    at_end = ""
    if own is not None and validation is not None and own is not held:
        while_training = [f"validation  split {own.split}: {len(validation):,} images, measured while training"]
        at_end = ", once, at the end"
    return [
        f"dataset     {source.name}: {opened.opened.kind}",
        f"train       split {source.split}: {'unknown' if rows is None else f'{rows:,}'} images"
        + (", as a stream" if source.streaming else ""),
        *while_training,
        f"evaluation  split {held.split}: {len(evaluation):,} images{at_end}",
        *([f"not used    split {', '.join(unused)}"] if unused else []),
        f"images      column {image}: {describe_cuts(config, train, evaluation.images.shape[-1])}",
        f"label       column {label}: {named_classes(source.label_names)}",
        *(f"note        {line}" for line in opened.opened.told),
        *(["note        images of both splits are not compared: one is a stream"] if source.streaming else []),
    ]


def describe_cuts(config: DataConfig, train: ResidentSplit | Source, side: int) -> str:
    """How images become squares of a side: "whole pictures, shorter side 110 px, random crops of 96 px; ..."."""
    if config.image_size is None:
        return f"{side} px, as they are"
    filtered = "" if config.interpolation == "bilinear" else f", {config.interpolation}"
    shorter = math.floor(side / config.eval_crop_pct)
    held = f"shorter side {shorter} px, centre" + (f" of {side} px" if shorter > side else "")
    pictures = None if isinstance(train, Source) else train.images
    if config.crop != "resized" or (pictures is not None and not isinstance(pictures, Pictures)):
        same = f"shorter side resized to {side} px, centre cut out{filtered}"
        return same if shorter == side else f"{same}; evaluation: {held}"
    stored = "" if config.streaming else f", shorter side {config.stored_size} px or less"
    size = "" if pictures is None else f" ({pictures.nbytes / 1e6:,.0f} MB)"
    whole = f"whole pictures{stored}{size}, random crops of {side} px{filtered}"
    return f"{whole}; evaluation: {held}"


def describe_rows(opened: DataConfig, rows: Mapping[str, DataConfig], source: Source, side: int) -> list[str]:
    """Lines on rows whose training images are cut otherwise than those that are described already.

    Args:
        opened: of the data that is open.
        rows: of each row, by its title.
        source: the training split.
        side: of the squares and crops, in pixels.
    """
    others: dict[str, list[str]] = {}
    own = describe_cuts(opened, source, side)
    for title, config in rows.items():
        cuts = describe_cuts(config, source, side)
        if cuts != own:
            others.setdefault(cuts, []).append(title)
    later = "" if source.streaming else "; decoded for them when the first of them begins"
    return [f"images      of {listed(titles, MOST_NAMES)}: {cuts}{later}" for cuts, titles in others.items()]


def named_classes(names: Sequence[str]) -> str:
    """The number of classes and their names: "3 classes a, b, c"."""
    more = ", ..." if len(names) > MOST_NAMES else ""
    return f"{len(names)} classes {', '.join(names[:MOST_NAMES])}{more}"
