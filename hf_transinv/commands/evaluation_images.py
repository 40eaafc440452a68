"""The pictures that a checkpoint is evaluated on: opened, and cut as it records or as it is asked."""

import logging
from dataclasses import dataclass
from typing import Any

from hf_transinv.config import DataConfig
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.config.data_config import FILTERS
from hf_transinv.data.columns import listed
from hf_transinv.data.described import named_classes
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.run_data import warnings_of
from hf_transinv.data.sources import Source, default_eval_split, open_dataset
from hf_transinv.errors import InputError
from hf_transinv.evaluation.splits import SourceSplit, first_image_size
from hf_transinv.models import Classifier
from hf_transinv.models.description import what_differs

logger = logging.getLogger(__name__)


@dataclass
class ImagesConfig:
    """The pictures.

    Attributes:
        dataset: Hub id, folder of images, table of image paths (.csv, .tsv, .jsonl, .parquet), parquet file, folder
            in Hub shape or saved by `datasets`, or the embedded digits/source or digits/target.
        dataset_config: configuration of a Hub dataset that has several.
        dataset_revision: branch, tag or commit of a Hub dataset.
        eval_split: split to evaluate on; default: test or validation, whichever the dataset has.
        train_split: with validation_share: the split that it was held out of.
        validation_share: evaluate on the share of train_split that a training with the same share held out.
        validation_fold: with validation_share: the fold of that training.
        image_column: column with the pictures; default: the one column of that type.
        label_column: column with the labels; default: the one column of that type.
        streaming: read the split as a stream instead of bringing all of it here first.
        image_size: side to which pictures are resized and cropped; default: the side that the checkpoint records.
        eval_crop_pct: share of the resized shorter side that the central square has; timm's crop_pct; default: what
            the checkpoint of a run records, else 1.
        interpolation: of that resizing, antialiased: bilinear or bicubic; default: what the checkpoint of a run
            records, else bilinear.
        on_bad_image: what to do with a broken picture: raise, or skip it and list it in skipped_images.txt.
        protocol: uniform: pictures are resized and cropped as the three fields above say; published: as the
            checkpoint says, by the library that published it.
    """

    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    eval_split: str | None = None
    train_split: str = "train"
    validation_share: float = 0.0
    validation_fold: int = 0
    image_column: str | None = None
    label_column: str | None = None
    streaming: bool = False
    image_size: int | None = None
    eval_crop_pct: float | None = None
    interpolation: str | None = choice(None, FILTERS, is_closed=False)
    on_bad_image: str = choice("raise", ("raise", "skip"))
    protocol: str = choice("uniform", ("uniform", "published"))

    def __post_init__(self) -> None:
        check_choices(self)
        DataConfig(
            image_size=self.image_size,
            on_bad_image=self.on_bad_image,
            validation_share=self.validation_share,
            validation_fold=self.validation_fold,
            streaming=self.streaming,
        )
        EvaluationCut(1).overruled(self.image_size, self.eval_crop_pct, self.interpolation)  # checks them
        if self.validation_share and self.eval_split is not None:
            raise InputError(f"give validation_share or eval_split {self.eval_split}, not both")
        given = [name for name in ("image_size", "eval_crop_pct", "interpolation") if getattr(self, name) is not None]
        if self.protocol == "published" and given:
            raise InputError(f"protocol published: the checkpoint says size and crop; leave out --{given[0]}")
        if self.dataset is None:
            raise InputError(
                "no dataset given: --dataset with a Hub id, a folder of images, a table of image paths, a parquet "
                "file, or digits/target"
            )

    def open(self, model: Classifier, in_order: bool) -> SourceSplit:
        """Open the split, prepared for a model.

        Sets `told`, lines that describe the data; `cut`, how pictures become squares, or None where the checkpoint's
        library does that; and `preprocessing`, how images are prepared, or None where there is nothing to say.

        Args:
            model: to be evaluated.
            in_order: whether classes go by their order instead of by their names.
        """
        assert self.dataset is not None
        columns: dict[str, Any] = {"image_column": self.image_column, "label_column": self.label_column}
        asked = [self.eval_split, self.train_split]
        opened = open_dataset(
            self.dataset, config=self.dataset_config, revision=self.dataset_revision, asked=asked, **columns
        )
        share, fold = self.validation_share, self.validation_fold
        hold_out = HoldOut(share, "held_out", fold) if share else None
        split = self.train_split if hold_out else self.eval_split or default_eval_split(opened.split_names)
        source = opened.source(split, streaming=self.streaming, hold_out=hold_out, **columns)
        self.eval_split = source.split
        options = {"on_bad_image": self.on_bad_image} | self._numbering(source, model, in_order)
        for warning in [*opened.opened.warnings, *warnings_of(source)]:
            logger.warning(warning)
        self.told = [
            f"dataset     {self.dataset}: {opened.opened.kind}",
            f"evaluation  split {source.split}, column {source.columns[0]}, label {source.columns[1]}: "
            f"{named_classes(source.label_names)}",
            *(f"note        {line}" for line in opened.opened.told),
        ]
        if self.protocol == "published":
            published = model.take_published()
            self.cut: EvaluationCut | None = None
            self.preprocessing: str | None = f"Preprocessing as published: {published.description}."
            self.told.append(f"images      as published: {published.description}")
            return SourceSplit(source, preprocess=published, **options)
        cut = self.cut = model.cut.overruled(self.image_size, self.eval_crop_pct, self.interpolation)
        self.image_size, self.eval_crop_pct, self.interpolation = cut.image_size, cut.eval_crop_pct, cut.interpolation
        keeps_size = first_image_size(source) == (cut.image_size, cut.image_size) and cut.shorter == cut.image_size
        self.preprocessing = what_differs(model, cut, keeps_size)
        self.told.append(f"images      measured at {cut}")
        if cut != (recorded := model.recorded_cut(cut)):
            other = f"Measured at {cut}, and not at the {recorded} that the checkpoint records."
            self.preprocessing = f"{other} {self.preprocessing or ''}".strip()
            is_other_size = cut.image_size != recorded.image_size
            logger.warning(f"{other} Corruptions differ between sizes" if is_other_size else other.rstrip("."))
        return SourceSplit(source, **cut.decoding, **options)

    @staticmethod
    def _numbering(source: Source, model: Classifier, in_order: bool) -> dict[str, Any]:
        """Options for a split that lacks some of the model's classes: it is evaluated among all of them."""
        names, own = model.label_names or [], source.label_names
        is_part = len(own) < len(names) and len(set(names)) == len(names)
        if in_order or not is_part or not set(own) <= set(names):
            return {}
        missing = [name for name in names if name not in set(own)]
        logger.warning("split %r has no class %s: nothing is said about it", source.split, listed(missing))
        return {"renumber": [names.index(name) for name in own], "label_names": names}
