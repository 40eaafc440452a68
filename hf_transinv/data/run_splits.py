"""Which splits a run reads: one to train on, one to measure on while training, one to evaluate on at the end."""

from dataclasses import dataclass
from typing import Any

from hf_transinv.config import DataConfig
from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.sources import OpenDataset, Source, open_dataset
from hf_transinv.data.split_names import default_eval_split, find_split, split_kind
from hf_transinv.errors import InputError


@dataclass(frozen=True)
class RunSplits:
    """The splits of a run, with the same columns and classes, not yet decoded.

    Attributes:
        dataset: theirs.
        train: to train on.
        evaluation: to evaluate on at the end.
        validation: to measure on while training; `evaluation` itself where the dataset has no other split for that;
            None: there is none.
    """

    dataset: OpenDataset
    train: Source
    evaluation: Source
    validation: Source | None = None


def open_run_splits(config: DataConfig) -> RunSplits:
    """Opens the dataset and the splits that a run reads.

    Raises:
        InputError: no dataset is given, a split cannot be opened, or one is used for two purposes.
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
        asked=[config.train_split, config.eval_split, config.validation_split],
        image_column=config.image_column,
        label_column=config.label_column,
    )
    share, fold = config.validation_share, config.validation_fold
    # Before the training split is read, which may be large: there may be no split to evaluate on.
    eval_split = _eval_split(config, opened.split_names)
    train = opened.source(
        config.train_split,
        image_column=config.image_column,
        label_column=config.label_column,
        streaming=config.streaming,
        hold_out=HoldOut(share, "train", fold) if share else None,
    )
    image_column, label_column = train.columns
    alike: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "classes": train.classes}
    validation = None
    if share:
        validation = opened.source(config.train_split, hold_out=HoldOut(share, "held_out", fold), **alike)
    elif config.validation_split is not None:
        validation = opened.source(config.validation_split, **alike)
    evaluation = validation if eval_split is None else opened.source(eval_split, **alike)
    assert evaluation is not None  # without a validation part there is a split to evaluate on, or an error
    return RunSplits(opened, train, evaluation, validation)


def _eval_split(config: DataConfig, names: list[str]) -> str | None:
    """The split to evaluate on; None: there is none beside the validation part, which is then evaluated on as well.

    Raises:
        InputError: it cannot be chosen, or it is the one that is trained or measured on.
    """
    validation = None if config.validation_split is None else find_split(config.validation_split, names)
    if validation is None and not config.validation_share:
        return config.eval_split or default_eval_split(names)
    taken = {"train_split": config.train_split, "eval_split": config.eval_split}
    for field, split in taken.items():
        if validation is not None and split is not None and find_split(split, names) == validation:
            raise InputError(
                f"validation_split {config.validation_split} and {field} {split} are the same images: what chooses "
                "among students is neither trained nor evaluated on. Name another split"
            )
    if config.eval_split is not None:
        return config.eval_split
    used = {
        part.partition("[")[0].strip()
        for split in (find_split(config.train_split, names), validation)
        for part in (split or "").split("+")
    }
    rest = [name for name in names if name not in used]
    return default_eval_split(rest) if any(split_kind(name) in ("test", "validation") for name in rest) else None
